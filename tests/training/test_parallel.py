"""One device, several, and several processes must train the same networks."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import device_trial
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from ds_jax.runtime import processes
from ds_jax.training import parallel
from ds_jax.training.parallel import ONE_FOLD_PER_DEVICE, ONE_MODEL

ROOT = Path(__file__).parents[2]
# By name: processes, devices of each, and what device_trial.py is given. Five folds on four devices
# leave one that is spread over all ("auto"), or that waits for a device ("folds"). Where "freed"
# begins, one of the five is trained already: its device is free at once, and takes the fifth.
TRIALS = {
    "eight": (1, 8, "batch", "2", "large"),
    "freed": (1, 4, "auto", "2", "large"),
    "two processes": (2, 2, "auto", "1", "small"),
    "loop": (1, 1, "batch", "2", "large"),
    "four processes": (4, 1, "folds", "2", "large"),
}
SLOW = ("freed", "loop", "eight", "four processes")


def each(*names):
    """Runs a test for some trials; the slow ones are left to `-m slow`."""
    slow = {name: [pytest.mark.slow] * (name in SLOW) for name in names}
    return pytest.mark.parametrize("name", [pytest.param(n, marks=slow[n]) for n in names])


def launch(name: str, folder: Path) -> list[subprocess.Popen]:
    """Starts the processes of a trial; what they print goes to files in the folder."""
    count, devices, *arguments = TRIALS[name]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "JAX_PLATFORMS": "cpu"}
    environment["JAX_NUM_CPU_DEVICES"] = str(devices)
    if count > 1:
        address = f"127.0.0.1:{tiny.free_port()}"
        environment |= {"JAX_COORDINATOR_ADDRESS": address, "DS_JAX_PROCESSES": str(count)}
    script = Path(__file__).with_name("device_trial.py")
    running = []
    for rank in range(count):
        environment["DS_JAX_PROCESS"] = str(rank)
        with open(folder / f"log_{rank}.txt", "w") as output:
            command = [sys.executable, script, folder, *arguments]
            running.append(
                subprocess.Popen(command, env=environment.copy(), stdout=output, stderr=output)
            )
    return running


class Trials:
    """What came out of one device, and of each trial, of all its processes together.

    Args:
        folder: Where they run.
    """

    def __init__(self, folder: Path):
        self.folder, self.running = folder, {}
        self.results = {"one": device_trial.run(folder)}

    def start(self, name: str) -> None:
        """Starts a trial."""
        (self.folder / name).mkdir()
        if name == "freed":
            shutil.copytree(self.folder / "fold_00", self.folder / name / "fold_00")
        self.running[name] = launch(name, self.folder / name)

    def __getitem__(self, name: str) -> dict[str, np.ndarray]:
        if name in self.results:
            return self.results[name]
        if name not in self.running:
            self.start(name)
        found = {}
        for rank, process in enumerate(self.running[name]):
            log = self.folder / name / f"log_{rank}.txt"
            assert process.wait(timeout=300) == 0, log.read_text()
            with np.load(self.folder / name / f"process_{rank}.npz") as arrays:
                found |= dict(arrays)
        return self.results.setdefault(name, found)


@pytest.fixture(scope="module")
def trials(request, narrow, tmp_path_factory):
    trials = Trials(tmp_path_factory.mktemp("trials"))
    try:
        for name in TRIALS:
            if name not in SLOW and request.config.option.markexpr != "slow":
                trials.start(name)  # side by side
        yield trials
    finally:
        for processes in trials.running.values():
            for process in processes:
                process.kill()
                process.wait()


@each(*TRIALS)
def test_the_trials_ran_as_meant(trials, name):
    processes, devices, _, _, memory = TRIALS[name]
    assert trials["one"]["devices"] == jax.device_count() == 1
    assert trials[name]["devices"] == processes * devices
    assert trials[name]["streamed"] == (memory == "small")
    assert not trials["one"]["streamed"]


@each("loop", "eight")
def test_gradient_descent_is_the_same_on_any_devices(trials, name):
    """The second of three batches leaves most of eight devices without a row."""
    wanted = trials["one"]
    for kind in ("", "dropout ", "mixing "):
        assert abs(np.diff(wanted[f"{kind}losses"])).min() > 1e-4  # the steps did move something
    for key in wanted:
        if key.split(" ")[-1].startswith(("losses", "variables")):
            np.testing.assert_allclose(
                trials[name][key], wanted[key], rtol=1e-4, atol=1e-5, err_msg=key
            )


@each(*TRIALS)
def test_folds_are_the_same_on_any_devices(trials, name):
    wanted = trials["one"]
    for number in device_trial.FOLDS:
        key = f"probabilities_{number}"
        np.testing.assert_allclose(trials[name][key], wanted[key], rtol=0, atol=1e-5, err_msg=key)
        key = f"history_{number}"
        np.testing.assert_allclose(trials[name][key], wanted[key], rtol=2e-5, err_msg=key)
    np.testing.assert_allclose(trials[name]["loaded"], wanted["loaded"], rtol=0, atol=1e-6)
    assert not np.allclose(wanted["history_0"], wanted["history_1"], rtol=0.01)


@each("loop", "eight")
def test_a_step_compiles_once(trials, name):
    assert trials[name]["same_sharding"]
    first, *later = trials[name]["counts"]
    assert first > 0
    assert later == [first, first]


@each("one", *TRIALS)
def test_more_folds_compile_nothing(trials, name):
    """But for those that are trained in another layout than the first ones."""
    first, *later = trials[name]["compilations"]
    assert first > 0
    if "collectives_batch" in trials[name] and "collectives_folds" in trials[name]:
        *later, _ = later
    assert set(later) <= {first}


@each(*TRIALS)
def test_folds_apart_exchange_nothing_and_a_batch_adds_its_gradients_up_once(trials, name):
    frozen = [f"block{block}_conv" for block in range(1, 6)]
    parameters = sum(
        leaf.size
        for key, leaf in trials["one"].items()
        if key.startswith("variables['params']") and not any(name in key for name in frozen)
    )
    assert trials["one"]["collectives_batch"].size == 0
    assert ("collectives_folds" in trials[name]) == (TRIALS[name][2] != "batch")
    assert trials[name].get("collectives_folds", np.empty(0)).size == 0
    if trials[name]["devices"] > 1 and "collectives_batch" in trials[name]:
        *_, largest = sorted(trials[name]["collectives_batch"])
        assert largest == parameters + 1  # with the loss
        small = trials[name]["collectives_batch"] < largest
        assert small.sum() == len(small) - 1
        # Batch normalisation's sums, and how many rows are real.
        assert trials[name]["collectives_batch"][small].max() <= 4 * 16


@pytest.mark.slow
def test_a_device_that_a_fold_has_freed_takes_the_next(trials):
    assert "collectives_batch" in trials["two processes"]
    assert "collectives_batch" not in trials["freed"]  # nothing was left to be spread


@each("two processes", "four processes")
def test_each_checkpoint_is_written_by_one_process(trials, name):
    count = TRIALS[name][0]
    written = [trials[name][f"written_{rank}"].tolist() for rank in range(count)]
    assert all(written)
    assert sorted(fold for folds in written for fold in folds) == list(device_trial.FOLDS)


def test_rows_of_a_batch_are_spread_in_order_and_padded_with_mask_0(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 4)
    monkeypatch.setattr(jax, "local_device_count", lambda: 2)
    width = ONE_MODEL.width(10)
    assert width == 3
    parts = []
    for rank in range(2):
        monkeypatch.setattr(jax, "process_index", lambda rank=rank: rank)
        parts.append(ONE_MODEL.spread([[np.arange(5, 12), np.arange(2)]], 3, width))
    rows, mask, counts = (np.concatenate(part) for part in zip(*parts, strict=True))
    assert (rows.dtype, mask.dtype, counts.dtype) == (np.int32, np.float32, np.int32)
    assert rows[:, 0].tolist() == [[5, 6, 7], [8, 9, 10], [11, 0, 0], [0, 0, 0]]
    assert mask[:, 0].tolist() == [[1, 1, 1], [1, 1, 1], [1, 0, 0], [0, 0, 0]]
    assert rows[:, 1].tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert mask[:, 1].sum() == 2
    assert not mask[:, 2].any()
    assert counts.tolist() == [2, 2, 2, 2]


def test_each_fold_has_its_own_rows(monkeypatch):
    monkeypatch.setattr(jax, "local_device_count", lambda: 3)
    assert ONE_FOLD_PER_DEVICE.width(10) == 10
    rows, mask, counts = ONE_FOLD_PER_DEVICE.spread(
        [[np.arange(2)], [], [np.arange(3), np.arange(1)]], 2, 3
    )
    assert rows.shape == mask.shape == (3, 2, 3)
    assert counts.tolist() == [1, 0, 2]
    assert mask.sum(axis=2).tolist() == [[2, 0], [0, 0], [3, 1]]
    assert rows[2, 0].tolist() == [0, 1, 2]


def test_more_rows_than_the_devices_take_are_refused():
    with pytest.raises(ValueError, match="broadcast"):
        ONE_MODEL.spread([[np.arange(5)]], 1, 4)


@pytest.mark.parametrize(
    ("way", "apart"), [("auto", [8, 8]), ("folds", [10, 10]), ("batch", [0, 0])]
)
def test_folds_are_shared_out_as_long_as_they_fill_the_devices(monkeypatch, way, apart):
    """Ten folds on two processes of four devices."""
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assigned = []
    for rank in range(2):
        monkeypatch.setattr(jax, "process_index", lambda rank=rank: rank)
        mine, rest = parallel.assign_folds(range(10), way)
        assert rest == list(range(apart[rank], 10))  # every process helps with these
        assigned += mine
    assert sorted(assigned) == list(range(apart[0]))


@pytest.mark.parametrize("way", ["auto", "folds", "batch"])
def test_a_single_device_takes_fold_after_fold(way):
    assert parallel.assign_folds([3, 5], way) == ([], [3, 5])


def test_a_scan_stops_where_it_is_told():
    def step(carry, x):
        return carry + x, carry * x

    xs = jnp.arange(1.0, 6)
    for count in range(6):
        carry, ys = jax.jit(lambda n: ONE_MODEL.scan(step, jnp.float32(1), xs, n))(count)
        wanted, some = jax.lax.scan(step, jnp.float32(1), xs[:count])
        assert carry == wanted
        assert ys.tolist() == [*some.tolist(), *[0] * (5 - count)]


@pytest.mark.parametrize("layout", [ONE_MODEL, ONE_FOLD_PER_DEVICE])
def test_models_are_placed_replaced_and_taken_back(layout):
    one, other = ({"a": np.full((2, 3), k, np.float32), "b": np.int32(k)} for k in (1, 2))
    placed = layout.place([one])
    jax.tree.map(np.testing.assert_array_equal, layout.take(placed, 0), one)
    replaced = layout.replace(placed, 0, other)
    taken = layout.take(replaced, 0)
    jax.tree.map(np.testing.assert_array_equal, taken, other)
    jax.tree.map(np.testing.assert_array_equal, layout.take(placed, 0), one)
    assert taken["b"].shape == ()


def test_the_memory_of_accelerators_is_their_own_and_a_cpu_s_is_shared(monkeypatch):
    class Device:
        def __init__(self, limit):
            self.limit = limit

        def memory_stats(self):
            return {"bytes_limit": self.limit}

    monkeypatch.setattr(jax, "local_devices", lambda: [Device(1000), Device(800)])
    assert parallel.fits(400)
    assert not parallel.fits(401)
    monkeypatch.undo()
    total = parallel.psutil.virtual_memory().total
    monkeypatch.setattr(jax, "local_device_count", lambda: 4)
    assert parallel.fits(total // 8)
    assert not parallel.fits(total // 8 + 1)


def test_an_epoch_is_a_handful_of_dispatches_on_accelerators(monkeypatch):
    assert parallel.batches_in_dispatch(170) == 1
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    for batches in (1, 2, 3, 4, 5, 170):
        length = parallel.batches_in_dispatch(batches)
        assert -(-batches // length) <= 4


def test_only_the_first_process_speaks(monkeypatch, capsys):
    processes.say("a line")
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    processes.say("another line")
    assert capsys.readouterr().out == "a line\n"


def test_the_cpu_computes_in_float32_and_others_in_bfloat16(monkeypatch):
    assert parallel.compute_dtype() == np.float32
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert parallel.compute_dtype().dtype.name == "bfloat16"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc than glibc's")
def test_memory_once_used_is_used_again_without_new_pages():
    program = """
import resource
from ds_jax.runtime import processes

def faults(size):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = bytearray(b"x") * size
    del block
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

processes.start()
faults(2**26)
print(faults(2**25) * resource.getpagesize() / 2**25)
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert float(run.stdout) < 0.1  # other threads may have taken some of it
