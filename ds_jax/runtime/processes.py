"""The processes of a run: starts JAX in them, and lets them wait for each other and agree."""

import ctypes
import glob
import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from importlib.util import find_spec

import jax
import jaxlib
import numpy as np
from jax.experimental import multihost_utils

from ds_jax.runtime import files, progress

# Of NVIDIA's GPUs (/dev/dxg: under WSL), AMD's, and TPUs, which have one of the last two. Without
# any JAX chooses the CPU, whatever is installed.
_DEVICE_FILES = (
    "/dev/nvidia[0-9]*",
    "/dev/dxg",
    "/dev/kfd",
    "/dev/accel[0-9]*",
    "/dev/vfio/[0-9]*",
)
_YNN = "--xla_cpu_experimental_ynn_fusion_type=-individual_dot,-individual_convolution"


def start(distributed: bool = False) -> None:
    """Prepares JAX for a program of its own; call it before anything else uses a device.

    Compiled programs are kept as `prepare` says.

    Args:
        distributed: Whether this process is one of several that train together. They find each
            other by themselves under SLURM, Open MPI and on Cloud TPU; elsewhere by
            JAX_COORDINATOR_ADDRESS, DS_JAX_PROCESSES and DS_JAX_PROCESS in the environment.

    Raises:
        ValueError: The processes do not find each other, or JAX finds no device.
    """
    if not _is_accelerated():
        _keep_freed_memory()
    _prepare_compiler()
    if distributed:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        count, rank = os.environ.get("DS_JAX_PROCESSES"), os.environ.get("DS_JAX_PROCESS")
        try:
            jax.distributed.initialize(
                num_processes=int(count) if count else None, process_id=int(rank) if rank else None
            )
        except (ValueError, RuntimeError) as error:
            raise ValueError(
                f"--distributed: the processes do not find each other ({error}): set "
                "JAX_COORDINATOR_ADDRESS=host:port, DS_JAX_PROCESSES and DS_JAX_PROCESS for each, "
                "or leave --distributed out"
            ) from error
    _find_devices()


def prepare() -> None:
    """Prepares JAX in a process that also does other work, which keeps its way to use memory.

    Compiled programs are kept for later runs in the user's cache folder, or in that which
    `JAX_COMPILATION_CACHE_DIR` names.

    Raises:
        ValueError: JAX finds no device.
    """
    _prepare_compiler()
    _find_devices()


def _is_accelerated() -> bool:
    """Tells whether JAX will choose another device than the CPU.

    JAX itself knows it when it has started, which is too late for malloc: its threads have their
    own heaps then, and a training step takes 41,000 new pages as if nothing had been set.
    """
    asked = jax.config.jax_platforms
    if asked:
        return asked != "cpu"
    installed = entry_points(group="jax_plugins") or find_spec("libtpu")
    return bool(installed and any(map(glob.glob, _DEVICE_FILES)))


def _prepare_compiler() -> None:
    """Sets the compiler's flags, and the folder of compiled programs, if one can be written."""
    given = os.environ.get("XLA_FLAGS", "")
    if jaxlib.__version__.startswith("0.10.") and not _is_accelerated() and _YNN not in given:
        # Since jaxlib 0.10 float32 convolutions on the CPU go to YNNPACK, whose weight gradient is
        # 4 to 5 times slower than Eigen's. XLA ends the program on a flag that it does not know.
        os.environ["XLA_FLAGS"] = f"{_YNN} {given}".strip()
    given = jax.config.jax_compilation_cache_dir
    if given and "://" in given:
        return
    try:
        folder = files.expand(given) if given else files.cache_directory() / "compiled"
        files.check_writable(folder, "XDG_CACHE_HOME or JAX_COMPILATION_CACHE_DIR")
    except (OSError, ValueError) as error:
        folder = None
        line = f"note: compiled programs are not kept, and each start takes longer: {error}"
        print(line, file=sys.stderr, flush=True)  # standard output is for answers
    jax.config.update("jax_compilation_cache_dir", folder and str(folder))


def _find_devices() -> None:
    """Starts JAX on its devices, before any work.

    Raises:
        ValueError: There are none, or not those that the environment asks for.
    """
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter where a plugin is missing
        reason = str(error).splitlines()[0] if str(error) else "its plugin is not installed"
        names = ("JAX_PLATFORMS", "JAX_PLATFORM_NAME")
        asked = ", ".join(f"{name}={os.environ[name]}" for name in names if name in os.environ)
        raise ValueError(
            f"JAX finds no device{asked and ' for ' + asked} ({reason}): install what JAX needs "
            "for it, such as jax[cuda13], or set JAX_PLATFORMS=cpu"
        ) from error


def _keep_freed_memory() -> None:
    """Makes glibc's malloc keep freed memory for the next training step.

    By default it returns large blocks to the system, and new pages take an eighth of a step.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    trim_threshold, mmap_max, arena_max = -1, -4, -8  # as malloc.h numbers them
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(mmap_max, 0)  # large blocks come from the heap too,
    mallopt(arena_max, 1)  # of which there is one, that may grow,
    mallopt(trim_threshold, -1)  # and never shrinks


def devices() -> dict[str, str | int]:
    """Returns the `kind` of the devices of all processes, such as "NVIDIA H200", and `number`."""
    return {"kind": jax.devices()[0].device_kind, "number": jax.device_count()}


def is_first_process() -> bool:
    """Returns whether this process is the one that writes and prints."""
    return jax.process_index() == 0


def say(text: str) -> None:
    """Prints a line in the first process only."""
    if is_first_process():
        progress.say(text)


def wait_for_others(name: str) -> None:
    """Waits until every process has called this function with the same name."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def in_any_process(flags: Sequence[bool]) -> np.ndarray:
    """Returns which flags are set in any process, bool [n]; all processes must call it."""
    if jax.process_count() == 1:
        return np.asarray(flags, bool)
    return multihost_utils.process_allgather(np.asarray(flags, np.int32)).any(axis=0)
