"""Training learns, stops, goes on to the bit, and changes nothing that it should not."""

import contextlib
import dataclasses
import itertools
import shutil

import jax
import numpy as np
import pytest
import tiny
from one_fold import (
    FOLD,
    bits,
    changed,
    die,
    ended_by,
    history,
    killed_after,
    outcome,
    predict,
    sigterm_after,
    stepping,
)

from ds_jax.models.backbones import BACKBONES
from ds_jax.runtime import shutdown
from ds_jax.systems import network as saved_networks
from ds_jax.training import epochs as epochs_module
from ds_jax.training import loop
from ds_jax.training.checkpoints import CARD, MODEL, read_card
from ds_jax.training.epochs import Epochs
from ds_jax.training.fold import FoldState
from ds_jax.training.parallel import ONE_MODEL

pytestmark = pytest.mark.usefixtures("narrow")


@pytest.fixture(scope="module")
def setup(narrow):
    return tiny.setup(tiny.config())


@pytest.fixture(scope="module")
def long(setup):
    return changed(setup, epochs=3)


@pytest.fixture(scope="module")
def undisturbed(long, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed")
    return outcome(long, workdir), workdir


@pytest.mark.slow
def test_noise_is_learnt_by_heart(setup, tmp_path, monkeypatch):
    states, finish = [], FoldState.finish
    monkeypatch.setattr(
        FoldState, "finish", lambda self, state: states.append(state) or finish(self, state)
    )
    long = changed(setup, epochs=15, stop_patience=99, plateau_patience=99)
    tiny.train_fold(long, 0, tiny.fold(range(14), range(14, 15), range(15, 16)), tmp_path)
    rows = history(tmp_path)
    assert rows[0]["train_loss"] > 2  # 1.8 times the cross-entropy of seven equal chances is 3.5
    assert rows[-1]["train_loss"] < 0.3 * rows[0]["train_loss"]
    assert [row["epoch"] for row in rows] == list(range(1, 16))
    assert rows[-1]["step"] == 30
    predicted = predict(setup, states[0].variables, *range(14))
    assert (predicted.probabilities.argmax(axis=1) == setup.corpus.labels[:14]).all()


def test_the_finished_model_is_that_of_the_best_epoch_and_not_of_the_last(
    long, tmp_path, monkeypatch
):
    """The steps of the third epoch are far too long."""
    states, save, train_step = {}, Epochs.save, long.steps_for(ONE_MODEL)[0]

    def overshooting(state, number, scale, *rest):
        return train_step(state, number, scale * np.float32(1 if state.step < 4 else 300), *rest)

    def watched(self, epoch, state, *rest):
        states[epoch] = state
        save(self, epoch, state, *rest)

    monkeypatch.setattr(Epochs, "save", watched)
    predicted = tiny.train_fold(stepping(long, overshooting), 1, FOLD, tmp_path)
    best = 1 + np.argmin([row["dev_loss"] for row in history(tmp_path)])
    assert best < 3 == len(states)
    _, _, variables = saved_networks.load(tmp_path / "fold_01" / "checkpoints")
    of_best, of_last = (dict(states[epoch].variables) for epoch in (best, 3))
    assert bits(variables) == bits(of_best) != bits(of_last)
    assert bits(predicted) == bits(predict(long, of_best, 14, 15))
    assert bits(predicted) != bits(predict(long, of_last, 14, 15))


def test_reopening_a_fold_forgets_nothing(long, tmp_path, monkeypatch):
    """It is broken off after a step of its third epoch."""
    folds, save = [], FoldState.save

    def watched(fold, state):
        folds.append(fold)
        save(fold, state)

    monkeypatch.setattr(FoldState, "save", watched)
    ended_by(shutdown.Interrupted, long, tmp_path, *sigterm_after(2 * 5 + 1))
    left = folds[-1]
    assert (left.epoch, len(left.losses)) == (2, 1)
    for _ in range(2):
        again = FoldState(long.config, long.corpus, 1, FOLD, tmp_path, shared=True)
        state = again.restore(long.first_state(ONE_MODEL, again))
        again.close()
        assert state.step == 5
        for name in ("history", "seconds", "epoch", "best_epoch", "learning_rate_scale"):
            assert getattr(again, name) == getattr(left, name), name
        assert again.losses.dtype == np.float32
        np.testing.assert_array_equal(again.losses, left.losses)


def test_the_folds_after_one_without_a_test_split_are_trained(setup, tmp_path):
    folds = {0: tiny.fold(range(11), range(11, 14), range(0)), 1: FOLD}
    trained = loop.train_folds(changed(setup, epochs=1), folds, tmp_path)
    given = list(itertools.islice(trained, 3))
    assert [(number, predicted is None) for number, predicted in given] == [(0, True), (1, False)]
    assert saved_networks.load(tmp_path / "fold_00" / "checkpoints")  # for other corpora


@pytest.mark.parametrize("name", ["restore", "batches", "end_epoch", "finish"])
def test_an_error_in_a_fold_ends_the_loop_and_lets_go_of_its_folder(
    setup, tmp_path, monkeypatch, name
):
    closed, close = [], Epochs.close

    def watched(self):
        closed.append(self.directory)
        close(self)

    monkeypatch.setattr(Epochs, "close", watched)

    def spoilt(*arguments):
        raise ZeroDivisionError

    monkeypatch.setattr(FoldState, name, spoilt)
    trained = loop.train_folds(changed(setup, epochs=1), {0: FOLD, 1: FOLD}, tmp_path)
    with pytest.raises(ZeroDivisionError):
        next(trained)
    assert next(trained, None) is None
    assert set(closed) == {tmp_path / "fold_00" / "checkpoints"}


def test_a_normal_run_prints_its_own_lines_alone(setup, tmp_path, capfd, caplog):
    tiny.train_fold(setup, 1, FOLD, tmp_path)
    printed, errors = capfd.readouterr()
    assert errors == ""
    lines = [line for line in printed.splitlines() if not line.startswith("learning curves: ")]
    assert [line[:12] for line in lines] == ["fold 1 epoch"] * 2
    assert not caplog.records


def epochs_in(folder):
    return sorted(int(path.name) for path in folder.glob("[0-9]*"))


def test_a_finished_fold_keeps_its_best_model_and_what_training_can_go_on_from(undisturbed):
    (_, rows, _), workdir = undisturbed
    folder = workdir / "fold_01" / "checkpoints"
    best = 1 + int(np.argmin([row["dev_loss"] for row in rows]))
    assert read_card(folder)["epoch"] == best
    assert read_card(folder)["kept"] == epochs_in(folder) == [len(rows)]
    assert {path.name for path in folder.iterdir()} == {CARD, MODEL, str(len(rows))}


@pytest.mark.parametrize("steps", [1, 5])
def test_going_on_after_being_killed_gives_the_same_bits(
    long, undisturbed, tmp_path, capsys, steps
):
    with pytest.raises(KeyboardInterrupt):
        tiny.train_fold(killed_after(long, steps), 1, FOLD, tmp_path)
    assert outcome(long, tmp_path) == undisturbed[0]
    assert (f"going on after epoch {steps // 2}" in capsys.readouterr().out) == (steps > 1)


@pytest.mark.parametrize(
    "checks",
    [pytest.param(n, marks=[] if n == 15 else pytest.mark.slow) for n in range(16)],
)
def test_going_on_after_sigterm_gives_the_same_bits(long, undisturbed, tmp_path, capsys, checks):
    """SIGTERM is looked for before each of the three epochs, after each of their two steps and
    before dev and a tenth of train are predicted; and before test is predicted."""
    ended_by(shutdown.Interrupted, long, tmp_path, *sigterm_after(checks))
    epochs, steps = divmod(checks, 5)
    steps = min(steps, 2)
    saved = f"is saved after epoch {epochs} and {steps} steps"
    assert (saved in capsys.readouterr().out) == (steps > 0)
    assert outcome(long, tmp_path) == undisturbed[0]
    going_on = f"going on after epoch {epochs}" + (f" and {steps} steps" if steps else "")
    assert (going_on in capsys.readouterr().out) == (checks > 0)


@pytest.mark.slow
def test_stopped_again_and_again_at_every_moment_it_ends_with_the_same_bits(
    long, undisturbed, tmp_path, monkeypatch
):
    found, stops = None, 0
    while found is None:
        with monkeypatch.context() as patch, contextlib.suppress(shutdown.Interrupted):
            patch.setattr(*sigterm_after(1 + stops % 3))
            found = outcome(long, tmp_path)
        stops += 1
    assert stops > 6
    assert found == undisturbed[0]


def die_in_the_third_epoch(fold):
    if fold.epoch == 3:
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("patched", "has_model"),
    [
        ((epochs_module, "save_model", die), False),
        ((epochs_module, "_delete_epochs", die), True),
        ((FoldState, "log", die_in_the_third_epoch), False),  # after its checkpoint
    ],
    ids=lambda case: case[1] if isinstance(case, tuple) else "",
)
def test_being_killed_between_two_files_loses_nothing(
    long, undisturbed, tmp_path, patched, has_model
):
    ended_by(KeyboardInterrupt, long, tmp_path, *patched)
    folder = tmp_path / "fold_01" / "checkpoints"
    assert (folder / CARD).exists() == has_model
    assert list(folder.glob("[0-9]"))
    assert outcome(long, tmp_path) == undisturbed[0]
    assert epochs_in(folder) == read_card(folder)["kept"]


@pytest.fixture(scope="module")
def known(setup, tmp_path_factory):
    """A setup whose recordings have digests, a finished fold, and one that SIGTERM broke off."""
    known = changed(dataclasses.replace(setup, corpus=tiny.with_digests(setup.corpus)), epochs=1)
    finished, begun = (tmp_path_factory.mktemp(name) for name in ("finished", "begun"))
    tiny.train_fold(known, 1, FOLD, finished)
    ended_by(shutdown.Interrupted, known, begun, *sigterm_after(1))
    return known, (finished, begun)


def test_checkpoints_of_another_experiment_are_refused(known):
    setup, workdirs = known
    for workdir in workdirs:
        with pytest.raises(ValueError, match=r"train\.batch_size is \d there and 5 now"):
            tiny.train_fold(changed(setup, batch_size=5), 1, FOLD, workdir)


@pytest.mark.parametrize(
    ("number", "fold", "others"),
    [
        (2, FOLD, ()),
        (1, tiny.fold(range(10), range(10, 14), range(14, 16)), ()),
        (1, tiny.fold(range(11), range(11, 14), range(14, 15)), ()),
        (1, FOLD, ("u03",)),
        (1, FOLD, ("u15",)),
    ],
    ids=["number", "dev", "test", "trained recording", "tested recording"],
)
def test_checkpoints_of_another_fold_are_refused(known, tmp_path, number, fold, others):
    """Be they copied, or their folds or recordings changed."""
    setup, workdirs = known
    other = dataclasses.replace(setup, corpus=tiny.with_digests(setup.corpus, *others))
    for workdir in workdirs:
        here = tmp_path / workdir.name
        shutil.copytree(workdir / "fold_01", here / f"fold_{number:02}")
        with pytest.raises(ValueError, match=f"fold_{number:02}/checkpoints is of another fold"):
            tiny.train_fold(other, number, fold, here)
        shutil.copytree(workdir, here / "same")
        assert tiny.train_fold(setup, 1, FOLD, here / "same") is not None


def test_each_epoch_sees_every_picture_once_in_an_order_of_its_own(setup, tmp_path):
    seen, train_step = [], setup.steps_for(ONE_MODEL)[0]

    def watched(state, number, scale, corpus, labels, rows, mask, counts):
        seen.extend(rows[mask > 0].tolist())
        return train_step(state, number, scale, corpus, labels, rows, mask, counts)

    watching = stepping(setup, watched)
    for number in range(2):
        tiny.train_fold(watching, number, FOLD, tmp_path / str(number))
    orders = [tuple(order) for order in np.reshape(seen, (4, 11)).tolist()]
    assert all(sorted(order) == list(range(11)) for order in orders)
    assert len(set(orders)) == 4
    first, second = (history(tmp_path / str(number))[0]["train_loss"] for number in range(2))
    assert first != second  # new layers are drawn by the fold's number, too


def test_metrics_and_events_are_written(undisturbed):
    (_, rows, _), workdir = undisturbed
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["step"] for row in rows] == [2, 4, 6]  # 11 utterances by 8
    scores = {"train_loss", "train_tenth_loss", "dev_loss", "dev_accuracy", "dev_uar"}
    assert set(rows[0]) == scores | {"epoch", "step", "learning_rate_scale"}
    (events,) = (workdir / "fold_01" / "tensorboard").iterdir()
    content = events.read_bytes()
    assert all(name.encode() in content for name in scores | {"step"})


def test_the_scores_are_those_of_the_predictions(setup, tmp_path):
    """Where the test split itself selects the epoch, and its predictions are returned."""
    config = setup.config.copy_and_resolve_references()
    config.select_on, config.train.epochs = "test", 1
    fold = tiny.fold(range(8), range(0), range(8, 16))
    predicted = tiny.train_fold(dataclasses.replace(setup, config=config), 0, fold, tmp_path)
    (row,) = history(tmp_path)
    labels = setup.corpus.labels[8:16]
    right = predicted.probabilities[np.arange(8), labels]
    guesses = predicted.probabilities.argmax(axis=1)
    recalls = [np.mean(guesses[labels == label] == label) for label in set(labels.tolist())]
    assert row["test_loss"] == pytest.approx(-np.log(right).mean())
    assert row["test_accuracy"] == pytest.approx(np.mean(guesses == labels))
    assert row["test_uar"] == pytest.approx(np.mean(recalls))
    assert not any(name.startswith("dev") for name in row)


def test_the_loss_after_an_epoch_is_measured_alike_on_a_tenth_of_training(
    setup, tmp_path, monkeypatch
):
    folds, finish = [], FoldState.finish
    monkeypatch.setattr(FoldState, "finish", lambda *given: folds.append(given) or finish(*given))
    tiny.train_fold(changed(setup, epochs=1), 0, FOLD, tmp_path)
    ((state, trained),) = folds
    rows = state.measured_rows
    assert len(rows) == 2  # a tenth of 11, rounded up
    assert {*rows.tolist()} < {*range(11)}
    predicted = predict(setup, trained.variables, *rows)
    right = predicted.probabilities[np.arange(2), setup.corpus.labels[rows]]
    assert history(tmp_path)[0]["train_tenth_loss"] == pytest.approx(-np.log(right).mean())


def test_windows_are_trained_one_by_one_and_tested_together(narrow, tmp_path):
    config = tiny.config("ds_fc")
    config.model.freeze = "block5"
    windows = tiny.setup(config, tiny.corpus(8, windows=3))
    fold = tiny.fold(range(5), range(5, 6), range(6, 8))
    assert tiny.train_fold(windows, 0, fold, tmp_path).probabilities.shape == (2, 7)
    assert history(tmp_path)[-1]["step"] == 2 * 2  # 15 pictures by 8, twice


@pytest.mark.parametrize(("spoilt_step", "named"), [(5, 6), (6, 6)])
def test_a_loss_that_is_not_finite_ends_training_and_names_its_step(
    setup, tmp_path, spoilt_step, named
):
    """The second case spoils an epoch's last step, whose own loss is still good."""
    long, train_step = changed(setup, epochs=3), setup.steps_for(ONE_MODEL)[0]

    def step(state, number, scale, *rest):
        bad = int(state.step) + 1 == spoilt_step
        return train_step(state, number, scale * np.float32(np.nan if bad else 1), *rest)

    match = rf"step {named} is nan; .* epoch 2 in {tmp_path}/fold_00/checkpoints"
    with pytest.raises(FloatingPointError, match=match):
        tiny.train_fold(stepping(long, step), 0, FOLD, tmp_path)
    with contextlib.closing(Epochs(tmp_path / "fold_00" / "checkpoints")) as saved:
        assert saved.latest == 2
    tiny.train_fold(long, 0, FOLD, tmp_path)  # goes on from there
    assert len(history(tmp_path)) == 3


def test_a_network_that_cannot_be_trained_says_so_at_once(setup, tmp_path):
    spoilt = jax.tree.map(np.array, tiny.pretrained())
    spoilt["block3_conv1"]["bias"][0] = np.nan
    with pytest.raises(FloatingPointError, match="step 1 is nan"):
        tiny.train_fold(dataclasses.replace(setup, pretrained=spoilt), 0, FOLD, tmp_path)


def test_training_stops_when_nothing_is_gained(tmp_path):
    """At rates of zero DS-FC's loss stays what it is, and the first epoch is the best."""
    config = tiny.config("ds_fc")
    config.model.freeze = "block5"
    config.train.update(epochs=30, new_learning_rate=0.0, plateau_patience=2, stop_patience=5)
    stuck = tiny.setup(config)
    tiny.train_fold(stuck, 0, FOLD, tmp_path)
    rows = history(tmp_path)
    assert len(rows) == 1 + 5
    scales = [row["learning_rate_scale"] for row in rows]
    np.testing.assert_allclose(scales, [1, 1, 1, 0.1, 0.1, 0.01], rtol=1e-12)
    assert read_card(tmp_path / "fold_00" / "checkpoints")["epoch"] == 1
    tiny.train_fold(stuck, 0, FOLD, tmp_path)  # and does not start again
    assert history(tmp_path) == rows


def test_what_frozen_blocks_make_of_a_corpus_is_kept_for_their_backbone_alone(monkeypatch):
    monkeypatch.setitem(BACKBONES, "other", dataclasses.replace(tiny.NARROW, name="other"))
    corpus, config, maps = tiny.corpus(), tiny.config(), []
    config.model.freeze = "block3"
    for seed, name in enumerate(("vgg16", "other", "other")):
        config.model.backbone = name
        maps.append(loop.create_setup(config, corpus, tiny.pretrained(seed=seed)).inputs.corpus)
    assert not np.array_equal(maps[0], maps[1])
    assert maps[2] is maps[1]
