"""What is kept comes back bit for bit or is refused, and nothing left behind disturbs."""

import contextlib
import resource
import sys
import types

import jax
import numpy as np
import pytest
import tiny
from absl import logging

from ds_jax.runtime.workdir import PREDICTIONS
from ds_jax.training.checkpoints import (
    CARD,
    MODEL,
    Damaged,
    flatten,
    load_variables,
    read_card,
    save_model,
    unflatten,
)
from ds_jax.training.epochs import Epochs, report_errors_once

CARD_OF = {
    "config": {"seed": 3},
    "fold": "12ab",
    "trained": ["JOY"],
    "epoch": 4,
    "history": [{"a": 1}],
}


def variables(number=0):
    rng = np.random.default_rng(number)
    kernel = rng.normal(size=(3, 4)).astype(np.float32)
    kernel[0, :3] = [np.nan, -0.0, np.float32(1e-42)]  # bits that arithmetic would change
    return {
        "params": {"vgg16": {"block1_conv1": {"kernel": kernel, "bias": kernel[:2].T}}},
        "batch_stats": {},
    }


def state(number=0):
    """A tree with tuples, scalars, and parts without leaves."""
    return {"step": np.int32(number), "opt_state": (variables(number), (), np.ones(2))}


def bits(tree):
    return [(np.asarray(x).dtype, np.asarray(x).shape, x.tobytes()) for x in jax.tree.leaves(tree)]


def opened(directory):
    return contextlib.closing(Epochs(directory))


def save(saved, losses, broken_off=(), after=0):
    """Saves epochs by their losses; each selects the best one so far."""
    for epoch in range(after + 1, len(losses) + 1):
        complete = {e: loss for e, loss in losses.items() if e <= epoch and e not in broken_off}
        best = min(complete, key=complete.get, default=0)
        saved.save(epoch, state(epoch), {"losses": [losses[epoch], float("nan")]}, best)


def restored(saved, epoch):
    return bits(unflatten(saved.restore(epoch)[0], state(), saved.directory))


def kept(directory):
    return sorted(path.name for path in directory.iterdir())


def test_leaves_are_named_by_their_paths():
    named = flatten(variables())
    assert set(named) == {f"params/vgg16/block1_conv1/{name}" for name in ("bias", "kernel")}
    assert bits(unflatten(flatten(state()), state(1), "here")) == bits(state())


@pytest.mark.parametrize(
    "other",
    [
        {"params": {"vgg16": {"block1_conv1": {"kernel": np.zeros((2, 4))}}}, "batch_stats": {}},
        {"params": {"vgg16": {"block1_conv2": {"kernel": np.zeros((3, 4))}}}, "batch_stats": {}},
        {"params": {"vgg16": {}}, "batch_stats": {}},
        variables() | {"more": np.zeros(2)},
    ],
)
def test_a_model_of_another_network_is_refused(tmp_path, other):
    save_model(tmp_path, variables(), CARD_OF)
    with pytest.raises(ValueError, match=f"{tmp_path / MODEL} is of another network"):
        load_variables(tmp_path, other)


def test_a_model_comes_back_with_its_card(tmp_path):
    save_model(tmp_path / "new", variables(), CARD_OF)
    assert kept(tmp_path / "new") == sorted([CARD, MODEL])
    loaded = load_variables(tmp_path / "new", variables(1))
    assert bits(loaded) == bits(variables())
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(loaded))
    card = read_card(tmp_path / "new")
    assert card | CARD_OF == card


@pytest.mark.parametrize("names", [[], [MODEL]])
def test_without_a_card_there_is_no_model(tmp_path, names):
    for name in names:
        (tmp_path / name).write_bytes(b"")
    for read in (read_card, lambda directory: load_variables(directory, variables())):
        with pytest.raises(FileNotFoundError, match=str(tmp_path / CARD)):
            read(tmp_path)


@pytest.mark.parametrize("name", [MODEL, CARD])
def test_a_damaged_model_is_named_and_put_aside(tmp_path, name):
    save_model(tmp_path, variables(), CARD_OF)
    whole = (tmp_path / name).read_bytes()
    for content in (b"", whole[:-2], whole[:40] + bytes([whole[40] ^ 8]) + whole[41:]):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(Damaged, match=str(tmp_path / name)):
            load_variables(tmp_path, variables())
    with opened(tmp_path) as saved:
        assert str(tmp_path / name) in saved.notice
        assert not saved.finished
    assert kept(tmp_path) == [f"{CARD}.damaged", f"{MODEL}.damaged"]


@pytest.mark.parametrize("reopened", [False, True])
def test_the_best_and_the_latest_epochs_are_kept(tmp_path, reopened):
    folder, losses = tmp_path / "new" / "fold", {1: 1.5, 2: 0.5, 3: 0.75, 4: 0.6, 5: 0.55}
    saved = Epochs(folder)
    for epoch in losses:
        assert saved.latest == (epoch - 1 or None)
        save(saved, {e: losses[e] for e in range(1, epoch + 1)}, after=epoch - 1)
        if reopened:
            saved.close()
            saved = Epochs(folder)
    saved.close()
    assert kept(folder) == ["2", "4", "5"]
    with opened(folder) as saved:
        assert saved.restore(5)[1]["best"] == 2
        assert restored(saved, 2) == bits(state(2))


def test_epochs_come_back_bit_for_bit_on_the_host(tmp_path):
    with opened(tmp_path) as saved:
        save(saved, {1: 0.5, 2: 0.75})
    with opened(tmp_path) as saved:
        assert (saved.latest, saved.notice, saved.finished) == (2, "", False)
        for epoch, loss in ((1, 0.5), (2, 0.75)):
            arrays, progress = saved.restore(epoch)
            assert restored(saved, epoch) == bits(state(epoch))
            assert all(type(array) is np.ndarray for array in arrays.values())
            assert progress["losses"][0] == loss


def test_an_epoch_takes_the_place_of_the_same_that_was_broken_off(tmp_path):
    with opened(tmp_path) as saved:
        save(saved, {1: 1.0, 2: 0.9}, broken_off=(2,))
    with opened(tmp_path) as saved:
        assert saved.restore(2)[1]["best"] == 1
        saved.save(2, state(20), {}, 2)
    with opened(tmp_path) as saved:
        assert saved.restore(2)[1]["best"] == 2
        assert restored(saved, 2) == bits(state(20))
    assert kept(tmp_path) == ["1", "2"]


def test_what_a_killed_save_leaves_behind_does_not_matter(tmp_path):
    with opened(tmp_path) as saved:
        save(saved, {1: 0.5})
    half = tmp_path / "2.orbax-checkpoint-tmp" / "state.orbax-checkpoint-tmp"
    half.mkdir(parents=True)
    (half / "array").write_bytes(b"half")
    with opened(tmp_path) as saved:
        assert (saved.latest, saved.notice) == (1, "")
        save(saved, {1: 0.5, 2: 0.25}, after=1)
        assert restored(saved, 2) == bits(state(2))
    assert kept(tmp_path) == ["1", "2"]


def test_finishing_leaves_the_model_alone(tmp_path):
    with opened(tmp_path) as saved:
        save(saved, {1: 0.5, 2: 0.75})
        saved.finish(variables(), CARD_OF)
    assert kept(tmp_path) == sorted([CARD, MODEL])
    with opened(tmp_path) as saved:
        assert (saved.finished, saved.latest, saved.notice) == (True, None, "")


def test_what_training_can_go_on_from_stays_until_it_is_damaged(tmp_path):
    with opened(tmp_path) as saved:
        save(saved, {1: 0.5, 2: 0.9, 3: 0.75})
        saved.finish(variables(), CARD_OF | {"kept": [1, 3]})
    assert kept(tmp_path) == sorted(["1", "3", CARD, MODEL])
    with opened(tmp_path) as saved:
        assert (saved.finished, saved.latest, saved.notice) == (True, 3, "")
        saved.reopen()
        assert not saved.finished
        assert restored(saved, 3) == bits(state(3))
        save(saved, {1: 0.5, 2: 0.9, 3: 0.75, 4: 0.25}, after=3)
        saved.finish(variables(1), CARD_OF | {"kept": []})
    assert kept(tmp_path) == sorted([CARD, MODEL])
    assert bits(load_variables(tmp_path, variables())) == bits(variables(1))


def of_earlier_version(directory):
    """Leaves in a `checkpoints` folder what version 0.1.0 did."""
    for part in ("variables", "optimizer", "metrics"):
        (directory / "1" / part).mkdir(parents=True)
    (directory / "1" / "_CHECKPOINT_METADATA").write_text("{}")


def test_epochs_of_an_earlier_version_are_put_aside(tmp_path):
    of_earlier_version(tmp_path)
    with opened(tmp_path) as saved:
        assert f"{tmp_path / '1'} is of an earlier version" in saved.notice
        assert saved.latest is None
    assert kept(tmp_path) == ["1.damaged"]


@pytest.mark.parametrize(
    ("name", "why"),
    [("1", "earlier version"), ("classifier.json", "earlier version"), (MODEL, "was deleted")],
)
def test_a_finished_fold_without_a_card_is_not_said_to_be_unfinished(tmp_path, name, why):
    folder = tmp_path / "fold_00" / "checkpoints"
    if name == "1":
        of_earlier_version(folder)
    else:
        folder.mkdir(parents=True)
        (folder / name).write_text("")
    with pytest.raises(FileNotFoundError, match="train this fold to its end first"):
        read_card(folder)
    (folder.parent / PREDICTIONS).write_text("")
    for read in (read_card, lambda directory: load_variables(directory, variables())):
        with pytest.raises(FileNotFoundError) as raised:
            read(folder)
        assert str(folder / CARD) in str(raised.value)
        assert why in str(raised.value)
        assert f"delete the fold's {PREDICTIONS} and start the training again" in str(raised.value)
        assert "to its end" not in str(raised.value)


def test_importing_this_program_changes_nothing_in_the_process():
    hook = sys.unraisablehook
    assert not getattr(hook, "func", hook).__module__.startswith("ds_jax")
    assert not logging.get_absl_logger().filters


@contextlib.contextmanager
def files_of_at_most(size):
    """Lets no file of this process grow over a size, as if the disk were full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))  # Python ignores SIGXFSZ
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("once", [False, True])
def test_an_error_of_writing_is_a_sentence_and_may_be_reported_once(
    tmp_path, monkeypatch, caplog, once
):
    logger, dropped = logging.get_absl_logger(), []
    monkeypatch.setattr(logger, "filters", [])
    monkeypatch.setattr(sys, "unraisablehook", dropped.append)
    if once:
        report_errors_once()
    large = {"a": np.random.default_rng(0).normal(size=50_000)}
    with (
        files_of_at_most(100_000),
        pytest.raises(OSError, match=rf"{tmp_path} cannot be written \(File too large\)"),
        opened(tmp_path) as saved,
    ):
        saved.save(1, large, {}, 1)
    assert bool(caplog.records) != once
    dropped.clear()
    errors = [RuntimeError("Event loop is closed"), RuntimeError("another")]
    for error in errors:
        sys.unraisablehook(types.SimpleNamespace(exc_value=error))
    assert [each.exc_value for each in dropped] == errors[once:]


def test_finished_models_of_earlier_formats_are_refused(tmp_path):
    save_model(tmp_path, variables(), CARD_OF)
    tiny.tamper(tmp_path / CARD, lambda card: card.pop("fold"))
    with pytest.raises(ValueError, match="fold"):
        read_card(tmp_path)
