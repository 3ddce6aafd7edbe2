"""The comparison with peers: its arithmetic, its refusals, and a run on tiny pictures."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import peer_ds_jax, peers

ROOT = Path(__file__).parents[2]


class Fake:
    """Stands for a worker of one variant."""

    def __init__(self, parameters: int, loss: float):
        self.answers = {"parameters": parameters, "loss": loss}

    def ask(self, variant: str, task: str) -> float:
        return self.answers[task]


def test_a_ratio_is_of_seconds_in_the_same_round():
    times = {"features": {"ds_jax": [1.0, 2.0, 4.0], "Keras": [3.0, 2.0, 8.0]}}
    summary = peers.summarise(times)["features"]
    assert summary["Keras"] == {
        "seconds": 3.0,
        "fastest_seconds": 2.0,
        "ratio": 2.0,  # of 3, 1 and 2
        "ratio_min": 1.0,
        "ratio_max": 3.0,
    }
    assert summary["ds_jax"]["ratio"] == summary["ds_jax"]["ratio_max"] == 1.0


@pytest.mark.parametrize(("parameters", "loss"), [(101, 2.0), (100, 2.01), (100, float("nan"))])
def test_another_network_is_refused(parameters, loss):
    asked = {"ds_jax": (Fake(100, 2.0), "ds_jax"), "other": (Fake(parameters, loss), "other")}
    with pytest.raises(ValueError, match="other is another network"):
        peers.check_same(asked, cuda=False)


@pytest.mark.parametrize(
    ("name", "loss", "cuda"),
    [("other", 2.001, False), ("PyTorch bfloat16", 2.05, False), ("other", 2.05, True)],
)
def test_the_same_network_is_accepted(name, loss, cuda):
    peers.check_same({"ds_jax": (Fake(100, 2.0), "ds_jax"), name: (Fake(100, loss), name)}, cuda)


def test_seconds_are_those_of_the_given_clock():
    ticks = iter((1.0, 7.0))
    called = []
    assert peers.seconds(lambda: called.append(1), 3, lambda: next(ticks)) == 2.0
    assert len(called) == 3


@pytest.mark.slow
def test_the_network_here_learns_and_leaves_what_peers_need(tmp_path):
    trial = peer_ds_jax.create(tmp_path, size=32, batch=2, threads=1, cuda=False)["ds_jax"]
    losses = [trial["training step"]() for _ in range(3)]
    assert losses[-1] < losses[0]
    assert trial["features"]()["block5_pool"].shape == (2, 512)
    logits = trial["forward"]()[0]
    assert logits.shape == (1, 2, 7)
    assert np.isfinite(logits).all()
    with np.load(tmp_path / "network.npz") as left:
        numbers = {name: left[name].size for name in left.files}
    assert (numbers.pop("pictures"), numbers.pop("labels")) == (2 * 32 * 32 * 3, 2)
    assert sum(numbers.values()) == trial["parameters"]


@pytest.mark.slow
def test_a_run_on_tiny_pictures(tmp_path):
    pytest.importorskip("torch", reason="PyTorch is in benchmarks/requirements.txt alone")
    output = tmp_path / "results" / "peers.json"
    script = ["-m", "benchmarks.peers"]
    flags = ["--size=32", "--batch=2", "--rounds=1", "--threads=1", f"--output={output}"]
    run = subprocess.run(
        [sys.executable, *script, *flags], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    written = json.loads(output.read_text())
    assert written["settings"] == {"size": 32, "batch": 2, "threads": 1, "cuda": False}
    for task in peers.TASKS:
        torch = {"PyTorch NCHW", "PyTorch channels_last", "PyTorch channels_last bfloat16"}
        assert {"ds_jax", *torch} <= set(written["summary"][task])
        for name, row in written["summary"][task].items():
            assert row["seconds"] == written["seconds"][task][name][0] > 0
            assert name in run.stdout
