"""Training learns, stops, resumes to the bit, and changes nothing that it should not."""

import dataclasses
import itertools
import json
import math
import shutil

import jax
import numpy as np
import pytest
import tiny

from ds_jax.models.create import abstract_variables, create_network
from ds_jax.runtime import shutdown
from ds_jax.systems import network as saved_networks
from ds_jax.training import inference
from ds_jax.training.checkpoints import Checkpoints
from ds_jax.training.fold import FoldTraining, Progress
from ds_jax.training.parallel import BATCH

pytestmark = pytest.mark.usefixtures("narrow")

FOLD = tiny.fold(range(11), range(11, 14), range(14, 16))


@pytest.fixture(scope="module")
def experiment(narrow):
    return tiny.experiment(tiny.config())


def longer(experiment, **changes):
    """The same experiment, compiled steps and all, with other fields of `config.train`."""
    config = experiment.config.copy_and_resolve_references()
    config.train.update(changes)
    return dataclasses.replace(experiment, config=config)


def stepping(experiment, train_step):
    """The same experiment with another step of training."""
    programs = dataclasses.replace(experiment.programs_for(BATCH), train_step=train_step)
    return dataclasses.replace(experiment, programs={BATCH: programs})


def history(directory):
    """The rows of the one fold's metrics.jsonl without what a clock has measured."""
    (path,) = directory.glob("fold_*/metrics.jsonl")
    lines = path.read_text().splitlines()
    timed = ("seconds", "inputs_per_second")
    return [{k: v for k, v in json.loads(line).items() if k not in timed} for line in lines]


def checkpoint(directory):
    """The bytes of everything that the latest and the best epoch have saved."""
    paths = directory.glob("fold_*/checkpoints/*/*/*.safetensors")
    return {path.relative_to(directory): path.read_bytes() for path in paths}


def test_noise_is_learnt_by_heart(experiment, tmp_path):
    long = longer(experiment, epochs=25, stop_patience=99, plateau_patience=99)
    tiny.train_fold(long, 0, tiny.fold(range(8), range(8, 12), range(12, 16)), tmp_path)
    rows = history(tmp_path)
    assert rows[0]["train_loss"] > 2  # 1.8 times the cross-entropy of seven equal chances is 3.5
    assert rows[-1]["train_loss"] < 0.1 * rows[0]["train_loss"]
    assert [row["epoch"] for row in rows] == list(range(1, 26))
    assert rows[-1]["step"] == 25
    network = create_network(long.config)
    with Checkpoints(tmp_path / "fold_00" / "checkpoints") as saved:
        latest = saved.load(saved.latest, variables=abstract_variables(network))["variables"]
    step = inference.create_predict_step(network, experiment.inputs, BATCH)
    learnt = np.arange(8, dtype=np.int32)
    placed = BATCH.place([latest])
    (judgement,) = inference.predict(step, placed, experiment.inputs, BATCH, [learnt], 8, 1)
    assert (judgement.probabilities.argmax(axis=1) == experiment.corpus.labels[:8]).all()


def test_learnt_weights_are_the_ones_that_were_saved(experiment, tmp_path):
    judgement = tiny.train_fold(longer(experiment, epochs=3), 0, FOLD, tmp_path)
    _, network, variables = saved_networks.load(tmp_path / "fold_00" / "checkpoints")
    rows = np.asarray([14, 15], np.int32)
    step = inference.create_predict_step(network, experiment.inputs, BATCH)
    placed = BATCH.place([variables])
    (again,) = inference.predict(step, placed, experiment.inputs, BATCH, [rows], 8, 1)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), again, judgement)


def test_the_ported_weights_survive_training(experiment, tmp_path):
    """The step takes the memory of the state it is given: never that of the weights."""
    tiny.train_fold(experiment, 0, FOLD, tmp_path)
    before = jax.tree.map(np.asarray, tiny.pretrained())
    jax.tree.map(np.testing.assert_array_equal, experiment.pretrained, before)


@pytest.fixture(scope="module")
def undisturbed(experiment, tmp_path_factory):
    directory = tmp_path_factory.mktemp("undisturbed")
    judgement = tiny.train_fold(longer(experiment, epochs=4), 1, FOLD, directory)
    return judgement, history(directory), checkpoint(directory)


def test_training_again_gives_the_same_bits(experiment, undisturbed, tmp_path):
    judgement = tiny.train_fold(longer(experiment, epochs=4), 1, FOLD, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, judgement, undisturbed[0])
    assert history(tmp_path) == undisturbed[1]
    assert checkpoint(tmp_path) == undisturbed[2]


def killed_after(experiment, steps):
    """The same experiment, whose training is killed when it begins another step."""
    left = iter(range(steps))

    def dying_step(*arguments):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return train_step(*arguments)

    train_step = experiment.programs_for(BATCH).train_step
    return stepping(experiment, dying_step)


@pytest.mark.parametrize("steps", [1, 4, 7])
def test_going_on_after_being_killed_gives_the_same_bits(
    experiment, undisturbed, tmp_path, capsys, steps
):
    """Two steps are an epoch."""
    long = longer(experiment, epochs=4)
    with pytest.raises(KeyboardInterrupt):
        tiny.train_fold(killed_after(long, steps), 1, FOLD, tmp_path)
    judgement = tiny.train_fold(long, 1, FOLD, tmp_path)
    assert (f"going on after epoch {steps // 2}" in capsys.readouterr().out) == (steps > 1)
    jax.tree.map(np.testing.assert_array_equal, judgement, undisturbed[0])
    assert history(tmp_path) == undisturbed[1]
    assert checkpoint(tmp_path) == undisturbed[2]


def test_checkpoints_of_another_experiment_are_refused(experiment, tmp_path):
    tiny.train_fold(longer(experiment, epochs=2), 1, FOLD, tmp_path)
    with pytest.raises(ValueError, match=r"train\.epochs is 2 there and 4 now"):
        tiny.train_fold(longer(experiment, epochs=4), 1, FOLD, tmp_path)
    assert len(history(tmp_path)) == 2


def with_digests(corpus, *others):
    """The corpus with digests of its recordings; some have another one."""
    utterances = tuple(
        dataclasses.replace(u, digest=("another " if u.name in others else "") + u.name)
        for u in corpus.utterances
    )
    return dataclasses.replace(corpus, utterances=utterances)


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
def test_checkpoints_of_another_fold_are_refused(
    experiment, tmp_path, capsys, monkeypatch, number, fold, others
):
    """Be they copied, or their folds or recordings changed; what SIGTERM left is begun anew."""
    corpus = experiment.corpus
    known = dataclasses.replace(experiment, corpus=with_digests(corpus))
    changed = dataclasses.replace(experiment, corpus=with_digests(corpus, *others))
    tiny.train_fold(known, 1, FOLD, tmp_path / "there")
    shutil.copytree(tmp_path / "there" / "fold_01", tmp_path / "here" / f"fold_{number:02}")
    with pytest.raises(ValueError, match=f"fold_{number:02}/checkpoints is of another fold"):
        tiny.train_fold(changed, number, fold, tmp_path / "here")
    assert tiny.train_fold(known, 1, FOLD, tmp_path / "there") is not None

    answers = itertools.chain([False], itertools.repeat(True))
    with monkeypatch.context() as patch:
        patch.setattr(shutdown, "sigterm_received", lambda: next(answers))
        with pytest.raises(shutdown.Interrupted):
            tiny.train_fold(known, 1, FOLD, tmp_path / "begun")
    (tmp_path / "begun" / "fold_01").rename(tmp_path / "begun" / f"fold_{number:02}")
    capsys.readouterr()
    tiny.train_fold(changed, number, fold, tmp_path / "begun")
    said = capsys.readouterr().out
    assert f"fold_{number:02}/unfinished is of another fold" in said
    assert "the epoch starts anew" in said
    assert "going on" not in said


@pytest.mark.parametrize("asked", range(17))
def test_going_on_after_sigterm_gives_the_same_bits(
    experiment, undisturbed, tmp_path, capsys, monkeypatch, asked
):
    """It is asked for before each of the four epochs, after each of their two steps and before the
    judging of dev; and before the judging of test."""
    answers = itertools.chain([False] * asked, itertools.repeat(True))
    long = longer(experiment, epochs=4)
    with monkeypatch.context() as patch:
        patch.setattr(shutdown, "sigterm_received", lambda: next(answers))
        with pytest.raises(shutdown.Interrupted):
            tiny.train_fold(long, 1, FOLD, tmp_path)
    epochs, steps = divmod(asked, 4)
    steps = min(steps, 2)
    saved = f"is saved after epoch {epochs} and {steps} steps"
    assert (saved in capsys.readouterr().out) == (steps > 0)
    judgement = tiny.train_fold(long, 1, FOLD, tmp_path)
    going_on = f"going on after epoch {epochs}" + (f" and {steps} steps" if steps else "")
    assert (going_on in capsys.readouterr().out) == (asked > 0)
    jax.tree.map(np.testing.assert_array_equal, judgement, undisturbed[0])
    assert history(tmp_path) == undisturbed[1]
    assert checkpoint(tmp_path) == undisturbed[2]
    assert not list(tmp_path.glob("fold_01/unfinished"))


def test_a_damaged_unfinished_epoch_starts_anew(
    experiment, undisturbed, tmp_path, capsys, monkeypatch
):
    answers = itertools.chain([False] * 5, itertools.repeat(True))
    long = longer(experiment, epochs=4)
    with monkeypatch.context() as patch:
        patch.setattr(shutdown, "sigterm_received", lambda: next(answers))
        with pytest.raises(shutdown.Interrupted):
            tiny.train_fold(long, 1, FOLD, tmp_path)
    (path,) = tmp_path.glob("fold_01/unfinished/*.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    judgement = tiny.train_fold(long, 1, FOLD, tmp_path)
    said = capsys.readouterr().out
    assert f"{path} is damaged: it is not as it was written: the epoch starts anew" in said
    assert "going on after epoch 1 from" in said
    jax.tree.map(np.testing.assert_array_equal, judgement, undisturbed[0])


def test_being_killed_between_checkpoint_and_metrics_loses_no_metrics(
    experiment, undisturbed, tmp_path, monkeypatch
):
    def dying_log(training):
        if training.epoch == 4:
            raise KeyboardInterrupt

    long = longer(experiment, epochs=4)
    with monkeypatch.context() as patch:
        patch.setattr(FoldTraining, "log", dying_log)
        with pytest.raises(KeyboardInterrupt):
            tiny.train_fold(long, 1, FOLD, tmp_path)
    judgement = tiny.train_fold(long, 1, FOLD, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, judgement, undisturbed[0])
    assert history(tmp_path) == undisturbed[1]


def test_each_epoch_sees_every_picture_once_in_an_order_of_its_own(experiment, tmp_path):
    seen = []

    def watched(state, number, scale, corpus, labels, rows, mask, counts):
        seen.extend(rows[mask > 0].tolist())
        return train_step(state, number, scale, corpus, labels, rows, mask, counts)

    train_step = experiment.programs_for(BATCH).train_step
    watching = stepping(experiment, watched)
    for number in range(2):
        tiny.train_fold(watching, number, FOLD, tmp_path / str(number))
    orders = [tuple(order) for order in np.reshape(seen, (4, 11)).tolist()]
    assert all(sorted(order) == list(range(11)) for order in orders)
    assert len(set(orders)) == 4


def test_folds_differ_by_number(experiment, undisturbed, tmp_path):
    tiny.train_fold(longer(experiment, epochs=1), 2, FOLD, tmp_path)
    assert history(tmp_path)[0]["train_loss"] != undisturbed[1][0]["train_loss"]


def test_metrics_and_events_are_written(undisturbed, experiment, tmp_path):
    _, rows, _ = undisturbed
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert [row["step"] for row in rows] == [2, 4, 6, 8]  # 11 utterances by 8
    names = {"epoch", "step", "train_loss", "dev_loss", "dev_accuracy", "dev_uar"}
    assert set(rows[0]) == names | {"learning_rate_scale"}
    tiny.train_fold(longer(experiment, epochs=1), 0, FOLD, tmp_path)
    (events,) = (tmp_path / "fold_00" / "tensorboard").iterdir()
    content = events.read_bytes()
    assert all(name.encode() in content for name in names - {"epoch"})


def test_the_scores_are_those_of_the_judgement(experiment, tmp_path):
    """Judged on the test side itself, whose judgement is returned."""
    config = experiment.config.copy_and_resolve_references()
    config.select_on, config.train.epochs = "test", 1
    fold = tiny.fold(range(8), range(0), range(8, 16))
    changed = dataclasses.replace(experiment, config=config)
    judgement = tiny.train_fold(changed, 0, fold, tmp_path)
    (row,) = history(tmp_path)
    labels = experiment.corpus.labels[8:16]
    right = judgement.probabilities[np.arange(8), labels]
    guesses = judgement.probabilities.argmax(axis=1)
    recalls = [np.mean(guesses[labels == label] == label) for label in set(labels.tolist())]
    assert row["test_loss"] == pytest.approx(-np.log(right).mean())
    assert row["test_accuracy"] == pytest.approx(np.mean(guesses == labels))
    assert row["test_uar"] == pytest.approx(np.mean(recalls))
    assert not any(name.startswith("dev") for name in row)


def test_windows_are_trained_one_by_one_and_tested_together(narrow, tmp_path):
    config = tiny.config("ds_fc")
    config.model.freeze = "block5"
    corpus = tiny.corpus(8, windows=3)
    judgement = tiny.train_fold(
        tiny.experiment(config, corpus), 0, tiny.fold(range(5), range(5, 6), range(6, 8)), tmp_path
    )
    assert judgement.probabilities.shape == (2, 7)
    assert history(tmp_path)[-1]["step"] == 2 * 2  # 15 pictures by 8, twice


def test_without_a_test_side_nothing_is_judged(experiment, tmp_path):
    fold = tiny.fold(range(11), range(11, 14), range(0))
    assert tiny.train_fold(longer(experiment, epochs=1), 0, fold, tmp_path) is None
    assert len(history(tmp_path)) == 1


@pytest.mark.parametrize(("spoilt_step", "named"), [(5, 6), (6, 6)])
def test_a_loss_that_is_not_finite_ends_training_and_names_its_step(
    experiment, tmp_path, spoilt_step, named
):
    """The second case spoils an epoch's last step, whose own loss is still good."""
    long = longer(experiment, epochs=3)
    with pytest.raises(KeyboardInterrupt):
        tiny.train_fold(killed_after(long, 4), 0, FOLD, tmp_path)  # two epochs, steps 1 to 4

    def step(state, number, scale, *rest):
        bad = int(state.step) + 1 == spoilt_step
        return train_step(state, number, scale * np.float32(np.nan if bad else 1), *rest)

    train_step = experiment.programs_for(BATCH).train_step
    spoilt = stepping(long, step)
    match = rf"step {named} is nan; .* epoch 2 in {tmp_path}/fold_00/checkpoints"
    with pytest.raises(FloatingPointError, match=match):
        tiny.train_fold(spoilt, 0, FOLD, tmp_path)
    with Checkpoints(tmp_path / "fold_00" / "checkpoints") as checkpoints:
        assert checkpoints.latest == 2
    tiny.train_fold(long, 0, FOLD, tmp_path)  # goes on from there
    assert len(history(tmp_path)) == 3


def test_a_network_that_cannot_be_trained_says_so_at_once(experiment, tmp_path):
    spoilt = jax.tree.map(np.array, tiny.pretrained())
    spoilt["block3_conv1"]["bias"][0] = np.nan
    spoilt = dataclasses.replace(experiment, pretrained=spoilt)
    with pytest.raises(FloatingPointError, match=r"step 1 is nan; .*none was saved yet"):
        tiny.train_fold(spoilt, 0, FOLD, tmp_path)


def test_plateaus_lower_the_rates_and_gains_start_the_count_again():
    progress = Progress()
    scales, waits = [], []
    for epoch, loss in enumerate([3.0, 2.0, 2.0, 2.5, 1.0, 1.1, 1.2, 1.3, 1.4]):
        progress.record({"epoch": epoch}, loss, plateau_patience=2)
        scales.append(progress.learning_rate_scale)
        waits.append(progress.epochs_without_gain)
    assert waits == [0, 0, 1, 2, 0, 1, 2, 3, 4]
    np.testing.assert_allclose(scales, [1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.001], rtol=1e-12)
    assert progress.best_loss == 1.0
    assert progress.history == [{"epoch": epoch} for epoch in range(9)]
    assert Progress().best_loss == math.inf


def test_training_stops_when_nothing_is_gained(tmp_path):
    """At rates of zero DS-FC's loss stays what it is, and the first epoch is the best."""
    config = tiny.config("ds_fc")
    config.model.freeze = "block5"
    config.train.update(epochs=30, new_learning_rate=0.0, plateau_patience=2, stop_patience=5)
    stuck = tiny.experiment(config)
    tiny.train_fold(stuck, 0, FOLD, tmp_path)
    rows = history(tmp_path)
    assert len(rows) == 1 + 5
    scales = [row["learning_rate_scale"] for row in rows]
    np.testing.assert_allclose(scales, [1, 1, 1, 0.1, 0.1, 0.01], rtol=1e-12)
    with Checkpoints(tmp_path / "fold_00" / "checkpoints") as checkpoints:
        assert (checkpoints.best, checkpoints.latest) == (1, 6)
    tiny.train_fold(stuck, 0, FOLD, tmp_path)  # and does not start again
    assert history(tmp_path) == rows


def test_a_new_experiment_compiles_nothing_for_a_second_fold(experiment, tmp_path):
    names = []

    def note(event, seconds, fun_name="", **rest):
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(fun_name)

    short = longer(experiment, epochs=1)
    tiny.train_fold(short, 0, FOLD, tmp_path / "0")
    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        tiny.train_fold(short, 1, FOLD, tmp_path / "1")
        assert names == []
        jax.jit(lambda x: x * 3 + 1)(np.ones(3))
        assert names  # it would have been heard
    finally:
        jax.monitoring.unregister_event_duration_listener(note)
