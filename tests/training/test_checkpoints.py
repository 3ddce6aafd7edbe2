"""Which epochs are kept, what they hold, and that nothing left behind disturbs."""

import shutil

import jax
import numpy as np
import pytest
import tiny

from ds_jax.data.corpus import LABELS
from ds_jax.training import checkpoints as checkpoints_module
from ds_jax.training.checkpoints import Checkpoints


def tree(epoch):
    rng = np.random.default_rng(epoch)
    kernel = rng.normal(size=(3, 4)).astype(np.float32)
    kernel[0, :3] = [np.nan, -0.0, np.float32(1e-42)]  # bits that arithmetic would change
    return {"params": {"vgg16": {"block1_conv1": {"kernel": kernel}}}, "batch_stats": {}}


def optimiser(epoch):
    return {"step": np.int32(epoch * 10), "opt_state": (np.ones(2), ())}


def save(checkpoints, losses):
    for epoch, loss in losses.items():
        checkpoints.save(
            epoch, tree(epoch), optimiser(epoch), loss, {"seed": 3}, {"history": [{"a": 1.5}]}, "f"
        )


def kept(directory):
    return sorted(int(path.name) for path in directory.iterdir())


def load(checkpoints, epoch):
    like = {"variables": tree(0), "optimizer": optimiser(0)}
    return checkpoints.load(epoch, **like)


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def test_the_best_and_the_latest_are_kept(tmp_path):
    with Checkpoints(tmp_path / "new" / "fold", trains=True) as checkpoints:
        assert checkpoints.latest is None
        save(checkpoints, {1: 1.5, 2: 0.5, 3: 0.75, 4: 0.6})
        assert (checkpoints.best, checkpoints.latest) == (2, 4)
    assert kept(tmp_path / "new" / "fold") == [2, 4]


def test_reopening_forgets_nothing(tmp_path):
    with Checkpoints(tmp_path, trains=True) as checkpoints:
        save(checkpoints, {1: 1.5, 2: 0.5, 3: 0.75})
    with Checkpoints(tmp_path, trains=True) as checkpoints:
        assert (checkpoints.best, checkpoints.latest) == (2, 3)
        save(checkpoints, {4: 0.7})
        assert (checkpoints.best, checkpoints.latest) == (2, 4)
        save(checkpoints, {5: 0.4, 6: 0.45})
    with Checkpoints(tmp_path, trains=True) as checkpoints:
        assert (checkpoints.best, checkpoints.latest) == (5, 6)
    assert kept(tmp_path) == [5, 6]


def test_of_equal_losses_the_first_is_best(tmp_path):
    """As the report has it, which reads the history and not the checkpoints."""
    with Checkpoints(tmp_path, trains=True) as checkpoints:
        save(checkpoints, {1: 1.0, 2: 0.5, 3: 0.5, 4: 0.5, 5: 0.5})
        assert (checkpoints.best, checkpoints.latest) == (2, 5)


def test_trees_come_back_bit_for_bit_on_the_host(tmp_path):
    with Checkpoints(tmp_path, trains=True) as checkpoints:
        save(checkpoints, {1: 0.5, 2: 0.75})
    with Checkpoints(tmp_path, trains=True) as checkpoints:
        for epoch in (1, 2):
            loaded = load(checkpoints, epoch)
            assert bits(loaded) == bits({"variables": tree(epoch), "optimizer": optimiser(epoch)})
            leaves = zip(
                jax.tree.leaves(loaded["variables"]), jax.tree.leaves(tree(0)), strict=True
            )
            assert all(type(a) is np.ndarray and a.dtype == b.dtype for a, b in leaves)
            assert jax.tree.structure(loaded["optimizer"]) == jax.tree.structure(optimiser(0))
        assert list(checkpoints.load(1, variables=tree(0))) == ["variables"]


@pytest.mark.parametrize(
    "other",
    [
        {"params": {"vgg16": {"block1_conv1": {"kernel": np.zeros((2, 4))}}}, "batch_stats": {}},
        {"params": {"vgg16": {"block1_conv2": {"kernel": np.zeros((3, 4))}}}, "batch_stats": {}},
        {"params": {"vgg16": {}}, "batch_stats": {}},
    ],
)
def test_another_network_is_refused(tmp_path, other):
    with Checkpoints(tmp_path, trains=True) as checkpoints:
        save(checkpoints, {1: 0.5})
        with pytest.raises(ValueError, match=f"epoch 1 in {tmp_path} is of another network"):
            checkpoints.load(1, variables=other)


def test_metadata_come_back(tmp_path):
    with Checkpoints(tmp_path, trains=True) as checkpoints:
        save(checkpoints, {1: 0.5})
    with Checkpoints(tmp_path, trains=True) as checkpoints:
        metadata = checkpoints.metadata(1)
    assert metadata == {
        "config": {"seed": 3},
        "labels": list(LABELS),
        "progress": {"history": [{"a": 1.5}]},
        "fold": "f",
    }


def test_another_label_set_is_refused(tmp_path, monkeypatch):
    with Checkpoints(tmp_path, trains=True) as checkpoints:
        save(checkpoints, {1: 0.5})
    monkeypatch.setattr(checkpoints_module, "LABELS", ("ANGER", "BOREDOM"))
    with (
        Checkpoints(tmp_path, trains=True) as checkpoints,
        pytest.raises(ValueError, match="not ANGER, BOREDOM"),
    ):
        checkpoints.metadata(1)


def test_without_a_checkpoint_there_is_no_best(tmp_path):
    refused = pytest.raises(FileNotFoundError, match=f"no checkpoint in {tmp_path}")
    with Checkpoints(tmp_path, trains=True) as checkpoints, refused:
        _ = checkpoints.best


def test_what_a_killed_save_leaves_behind_does_not_matter(tmp_path):
    with Checkpoints(tmp_path, trains=True) as checkpoints:
        save(checkpoints, {1: 0.5})
    half = tmp_path / "2.orbax-checkpoint-tmp" / "variables.orbax-checkpoint-tmp"
    half.mkdir(parents=True)
    (half / "array").write_bytes(b"half")
    with Checkpoints(tmp_path, trains=True) as checkpoints:
        assert (checkpoints.best, checkpoints.latest) == (1, 1)
        save(checkpoints, {2: 0.25})
        assert (checkpoints.best, checkpoints.latest) == (2, 2)
        assert bits(load(checkpoints, 2)["variables"]) == bits(tree(2))
    assert kept(tmp_path) == [1, 2]


def test_a_checkpoint_of_an_earlier_version_is_told(run, tmp_path):
    fold = shutil.copytree(run / "fold_00", tmp_path / "fold_00")
    (path,) = fold.glob("checkpoints/[0-9]*/_CHECKPOINT_METADATA")
    tiny.tamper(path, lambda content: content["custom_metadata"].pop("fold"))
    with (
        Checkpoints(fold / "checkpoints") as checkpoints,
        pytest.raises(ValueError, match="of an earlier version of this program"),
    ):
        checkpoints.metadata(checkpoints.latest)
