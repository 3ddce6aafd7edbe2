"""One device, several, and several processes must train the same network."""

import os
import platform
import resource
import socket
import subprocess
import sys
from pathlib import Path

import device_trial
import jax
import numpy as np
import pytest

from ds_jax import devices

ROOT = Path(__file__).parents[1]
# Devices of each process by its name: a folder and, where several share it, the process' rank.
OTHERS = {"4": "4", "8": "8", "processes/0": "2", "processes/1": "2"}


def launch(folder: Path, log: Path, **environment: str) -> subprocess.Popen:
    environment = {**os.environ, **environment, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(ROOT / "tests" / "device_trial.py"), str(folder)]
    with open(log, "w") as output:
        return subprocess.Popen(command, env=environment, stdout=output, stderr=output)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def trials(narrow, tmp_path_factory):
    """What came out of 1, 4 and 8 devices and of two processes with two devices each."""
    folder = tmp_path_factory.mktemp("trials")
    together = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}", "DS_JAX_PROCESSES": "2"}
    running, saved = {}, {}
    for name, count in OTHERS.items():
        environment = {"JAX_NUM_CPU_DEVICES": count}
        shared, _, rank = name.partition("/")
        if rank:
            environment |= together | {"DS_JAX_PROCESS": rank}
        (folder / shared).mkdir(exist_ok=True)
        log = folder / shared / f"log_{rank or 0}.txt"
        running[log] = launch(folder / shared, log, **environment)
        saved[name] = folder / shared / f"process_{rank or 0}.npz"
    try:
        results = {"1": device_trial.run(folder)}
        for log, process in running.items():
            assert process.wait(timeout=240) == 0, log.read_text()
    finally:
        for process in running.values():
            process.kill()
            process.wait()
    for name, path in saved.items():
        with np.load(path) as arrays:
            results[name] = dict(arrays)
    return results


@pytest.mark.parametrize("name", OTHERS)
def test_the_trials_ran_on_as_many_devices_as_meant(trials, name):
    assert trials["1"]["devices"] == jax.device_count() == 1
    assert trials[name]["devices"] == (8 if name == "8" else 4)


@pytest.mark.parametrize("name", OTHERS)
def test_gradient_descent_is_the_same_on_any_devices(trials, name):
    """The second of three batches leaves most of eight devices without a row."""
    wanted = trials["1"]
    assert abs(np.diff(wanted["losses"])).min() > 1e-3  # the steps did move something
    for key in wanted:
        if key == "losses" or key.startswith("variables"):
            np.testing.assert_allclose(
                trials[name][key], wanted[key], rtol=1e-4, atol=1e-5, err_msg=key
            )


@pytest.mark.parametrize("name", OTHERS)
def test_folds_are_the_same_on_any_devices(trials, name):
    """Adam follows the sign of a gradient, however small, hence the wider tolerance."""
    for key in ("history_0", "history_1", "probabilities_0", "probabilities_1", "loaded"):
        np.testing.assert_allclose(
            trials[name][key], trials["1"][key], rtol=2e-3, atol=2e-4, err_msg=key
        )
    assert not np.allclose(trials["1"]["history_0"], trials["1"]["history_1"], rtol=0.01)


def test_processes_see_the_same(trials):
    for key, wanted in trials["processes/0"].items():
        if not key.startswith(("compiled", "counts")):
            np.testing.assert_array_equal(trials["processes/1"][key], wanted, err_msg=key)


@pytest.mark.parametrize("name", ["1", *OTHERS])
def test_a_step_compiles_once(trials, name):
    assert trials[name]["same_sharding"]
    first, *later = trials[name]["counts"]
    assert first > 0
    assert later == [first, first]


@pytest.mark.parametrize("name", ["1", *OTHERS])
def test_a_second_fold_compiles_nothing(trials, name):
    assert trials[name]["compiled_0"] > 0
    assert trials[name]["compiled_1"] == trials[name]["compiled_0"]


def test_rows_are_spread_in_order_and_padded_with_mask_0(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 4)
    monkeypatch.setattr(jax, "local_device_count", lambda: 2)
    width = devices.batch_width(10)
    assert width == 3
    parts = []
    for rank in range(2):
        monkeypatch.setattr(jax, "process_index", lambda rank=rank: rank)
        parts.append(devices.spread(np.arange(5, 12), width))
    rows, mask = (np.concatenate(part) for part in zip(*parts, strict=True))
    assert rows.dtype == np.int32
    assert mask.dtype == np.float32
    assert rows.tolist() == [[5, 6, 7], [8, 9, 10], [11, 0, 0], [0, 0, 0]]
    assert mask.tolist() == [[1, 1, 1], [1, 1, 1], [1, 0, 0], [0, 0, 0]]


def test_more_rows_than_the_devices_take_are_refused():
    with pytest.raises(ValueError, match="broadcast"):
        devices.spread(np.arange(5), 4)


def test_only_the_first_process_speaks(monkeypatch, capsys):
    devices.say("a line")
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    devices.say("another line")
    assert capsys.readouterr().out == "a line\n"


def test_the_cpu_computes_in_float32_and_others_in_bfloat16(monkeypatch):
    assert devices.compute_dtype() == np.float32
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert devices.compute_dtype().dtype.name == "bfloat16"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc than glibc's")
def test_memory_once_used_is_used_again_without_new_pages():
    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        block = bytearray(b"x") * 2**26
        del block
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    faults()
    assert faults() < 2**26 / resource.getpagesize() / 10
