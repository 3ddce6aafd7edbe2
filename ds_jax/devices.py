"""The one place that maps steps over devices, places arrays on them and starts processes."""

import ctypes
import os
import platform
from collections.abc import Callable
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "batch"  # the mapped axis that a batch is spread over


def start(distributed: bool = False) -> None:
    """Prepares JAX; call it before anything else uses a device.

    Args:
        distributed: Whether this process is one of several that train together. They find each
            other by themselves under SLURM, Open MPI and on Cloud TPU; elsewhere by
            JAX_COORDINATOR_ADDRESS, DS_JAX_PROCESSES and DS_JAX_PROCESS in the environment.
    """
    accelerated = entry_points(group="jax_plugins") or find_spec("libtpu")
    if not accelerated:
        _keep_freed_memory()
    if jaxlib.__version__.startswith("0.10.") and not accelerated:
        # Since jaxlib 0.10 float32 convolutions on the CPU go to YNNPACK, whose weight gradient is
        # 4 to 5 times slower than Eigen's. XLA ends the program on a flag that it does not know.
        flag = "--xla_cpu_experimental_ynn_fusion_type=-individual_dot,-individual_convolution"
        os.environ["XLA_FLAGS"] = f"{flag} {os.environ.get('XLA_FLAGS', '')}".strip()
    if distributed:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        count, rank = os.environ.get("DS_JAX_PROCESSES"), os.environ.get("DS_JAX_PROCESS")
        jax.distributed.initialize(
            num_processes=int(count) if count else None, process_id=int(rank) if rank else None
        )


def _keep_freed_memory() -> None:
    """Has glibc's malloc keep what is freed, for the next step to use again.

    By itself it returns large blocks to the system, and new pages take an eighth of a step.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    trim_threshold, mmap_max, arena_max = -1, -4, -8  # as malloc.h numbers them
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(mmap_max, 0)  # large blocks come from the heap too,
    mallopt(arena_max, 1)  # of which there is one, that may grow,
    mallopt(trim_threshold, -1)  # and never shrinks


def is_first_process() -> bool:
    """Whether this process is the one that writes and prints."""
    return jax.process_index() == 0


def say(text: str) -> None:
    """Prints a line, once for all processes."""
    if is_first_process():
        print(text, flush=True)


def wait_for_others(name: str) -> None:
    """Returns when every process has come to the same place."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def compute_dtype() -> Any:
    """bfloat16 on accelerators, float32 on the CPU, which has no fast bfloat16."""
    return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16


def replicate(tree: Any) -> Any:
    """Puts a tree of arrays on every device of this process, whole."""
    # With several processes pmap takes and returns what each has on its own devices.
    mesh = Mesh(np.asarray(jax.local_devices()), (AXIS,))
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def batch_width(batch_size: int) -> int:
    """Rows a device takes so that all of them together hold a batch."""
    return -(-batch_size // jax.device_count())


def spread(rows: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Shares a batch of row numbers out to the devices.

    Args:
        rows: int32 [n], n at most width times the number of devices.
        width: Rows a device takes.

    Returns:
        Row numbers int32 and a mask float32, each [devices of this process, width]; what is left
        over is row 0 with mask 0.
    """
    shape = (jax.device_count(), width)
    padded = np.zeros(shape[0] * shape[1], np.int32)
    mask = np.zeros(shape[0] * shape[1], np.float32)
    padded[: len(rows)] = rows
    mask[: len(rows)] = 1
    own = slice(
        jax.process_index() * jax.local_device_count(),
        (jax.process_index() + 1) * jax.local_device_count(),
    )
    return padded.reshape(shape)[own], mask.reshape(shape)[own]


def parallel(step: Callable, whole: int, spread: int, donate: bool = False) -> Callable:
    """Maps a step over devices.

    Args:
        step: Takes arguments that every device sees whole, then arguments that are spread over
            devices; returns what is the same on all of them.
        whole: How many arguments, from the first, are seen whole.
        spread: How many follow that are spread.
        donate: Whether the first argument's memory is taken for the result.

    Returns:
        The mapped step; spread arguments have a leading axis of this process' devices.
    """
    return jax.pmap(
        step,
        axis_name=AXIS,
        in_axes=(None,) * whole + (0,) * spread,
        out_axes=None,
        donate_argnums=(0,) if donate else (),
    )
