"""Training learns, stops, resumes to the bit, and changes nothing that it should not."""

import dataclasses
import json
import math

import jax
import numpy as np
import optax
import pytest
import tiny

from ds_jax import devices, inference, train
from ds_jax.checkpoints import Checkpoints

pytestmark = pytest.mark.usefixtures("narrow")

FOLD = tiny.fold(range(11), range(11, 14), range(14, 16))
ROWS = np.asarray([3, 1, 5, 7, 2, 9, 4, 6], np.int32)  # the steps are compiled for eight


@pytest.fixture(scope="module")
def experiment(narrow):
    return tiny.experiment(tiny.config())


def longer(experiment, **changes):
    """The same experiment, steps and all, with other fields of `config.train`."""
    config = experiment.config.copy_and_resolve_references()
    config.train.update(changes)
    return dataclasses.replace(experiment, config=config)


def history(directory):
    """The rows of metrics.jsonl without what a clock has measured."""
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    timed = ("seconds", "inputs_per_second")
    return [{k: v for k, v in json.loads(line).items() if k not in timed} for line in lines]


def checkpoint(directory):
    """Everything that the latest and the best epoch have saved, but for what a clock measured."""
    with Checkpoints(directory / "checkpoints") as checkpoints:
        found = {}
        for epoch in (checkpoints.latest, checkpoints.best):
            parts = checkpoints._checkpointer.load_checkpointables(epoch)
            found[epoch] = jax.tree.map(lambda x: np.asarray(x).tobytes(), parts)
        return found


def fresh_state(experiment, optimiser=None):
    optimiser = optimiser or train.create_optimiser(experiment.network, experiment.config.train)
    state = train.create_state(
        experiment.network, optimiser, experiment.pretrained, jax.random.key(0), {}
    )
    return devices.replicate(state)


def take_step(experiment, state, rows, mask, scale=1.0, step=None, inputs=None, labels=None):
    """One step; `state` is used up."""
    return (step or experiment.train_step)(
        state,
        experiment.inputs if inputs is None else inputs,
        experiment.labels if labels is None else labels,
        devices.replicate(np.float32(scale)),
        devices.replicate(jax.random.key(1)),
        np.asarray(rows, np.int32)[None],
        np.asarray(mask, np.float32)[None],
    )


def host(tree):
    return jax.tree.map(np.array, tree)


def changed(before, after):
    """Names of the layers that differ in any bit."""
    names = set()
    before = jax.tree_util.tree_leaves_with_path(before)
    for (path, old), new in zip(before, jax.tree.leaves(after), strict=True):
        if old.tobytes() != new.tobytes():
            names.add(path[-2].key)
    return names


def test_noise_is_learnt_by_heart(experiment, tmp_path):
    long = longer(experiment, epochs=25, stop_patience=99, plateau_patience=99)
    judgement = train.train_fold(long, 0, tiny.fold(range(8), range(8), range(8)), tmp_path)
    rows = history(tmp_path)
    assert rows[0]["train_loss"] > 2  # 1.8 times the cross-entropy of seven equal chances is 3.5
    assert rows[-1]["train_loss"] < 0.1 * rows[0]["train_loss"]
    assert [row["epoch"] for row in rows] == list(range(1, 26))
    assert rows[-1]["step"] == 25
    labels = experiment.corpus.labels[:8]
    assert (judgement.probabilities.argmax(axis=1) == labels).all()


def test_learnt_weights_are_the_ones_that_were_saved(experiment, tmp_path):
    judgement = train.train_fold(longer(experiment, epochs=3), 0, FOLD, tmp_path)
    _, network, variables = inference.load(tmp_path / "checkpoints")
    rows = np.asarray([14, 15], np.int32)
    step = inference.create_predict_step(network)
    again = inference.judge(step, variables, experiment.inputs, rows, 8)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), again, judgement)


def test_the_ported_weights_survive_training(experiment, tmp_path):
    """The step takes the memory of the state it is given: never that of the weights."""
    train.train_fold(experiment, 0, FOLD, tmp_path)
    before = jax.tree.map(np.asarray, tiny.pretrained())
    jax.tree.map(np.testing.assert_array_equal, experiment.pretrained, before)


@pytest.fixture(scope="module")
def undisturbed(experiment, tmp_path_factory):
    directory = tmp_path_factory.mktemp("undisturbed")
    judgement = train.train_fold(longer(experiment, epochs=4), 1, FOLD, directory)
    return judgement, history(directory), checkpoint(directory)


def test_training_again_gives_the_same_bits(experiment, undisturbed, tmp_path):
    judgement = train.train_fold(longer(experiment, epochs=4), 1, FOLD, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, judgement, undisturbed[0])
    assert history(tmp_path) == undisturbed[1]
    assert checkpoint(tmp_path) == undisturbed[2]


def test_going_on_after_two_epochs_gives_the_same_bits(experiment, undisturbed, tmp_path, capsys):
    train.train_fold(longer(experiment, epochs=2), 1, FOLD, tmp_path)
    assert len(history(tmp_path)) == 2
    judgement = train.train_fold(longer(experiment, epochs=4), 1, FOLD, tmp_path)
    assert "going on after epoch 2" in capsys.readouterr().out
    jax.tree.map(np.testing.assert_array_equal, judgement, undisturbed[0])
    assert history(tmp_path) == undisturbed[1]
    assert checkpoint(tmp_path) == undisturbed[2]


@pytest.mark.parametrize("steps", [1, 7])
def test_going_on_after_being_killed_in_an_epoch_gives_the_same_bits(
    experiment, undisturbed, tmp_path, steps
):
    left = iter(range(steps))

    def dying_step(*arguments):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return experiment.train_step(*arguments)

    long = longer(experiment, epochs=4)
    with pytest.raises(KeyboardInterrupt):
        train.train_fold(dataclasses.replace(long, train_step=dying_step), 1, FOLD, tmp_path)
    judgement = train.train_fold(long, 1, FOLD, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, judgement, undisturbed[0])
    assert history(tmp_path) == undisturbed[1]
    assert checkpoint(tmp_path) == undisturbed[2]


def test_being_killed_between_checkpoint_and_metrics_loses_no_metrics(
    experiment, undisturbed, tmp_path, monkeypatch
):
    def dying_log(writer, directory, progress):
        if len(progress.history) == 4:
            raise KeyboardInterrupt

    long = longer(experiment, epochs=4)
    with monkeypatch.context() as patch:
        patch.setattr(train, "_log", dying_log)
        with pytest.raises(KeyboardInterrupt):
            train.train_fold(long, 1, FOLD, tmp_path)
    judgement = train.train_fold(long, 1, FOLD, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, judgement, undisturbed[0])
    assert history(tmp_path) == undisturbed[1]


def test_each_epoch_sees_every_picture_once_in_an_order_of_its_own(experiment, tmp_path):
    seen = []

    def watched(state, inputs, labels, scale, rng, rows, mask):
        seen.extend(rows[mask > 0].tolist())
        return experiment.train_step(state, inputs, labels, scale, rng, rows, mask)

    watching = dataclasses.replace(experiment, train_step=watched)
    for number in range(2):
        train.train_fold(watching, number, FOLD, tmp_path / str(number))
    orders = [tuple(order) for order in np.reshape(seen, (4, 11)).tolist()]
    assert all(sorted(order) == list(range(11)) for order in orders)
    assert len(set(orders)) == 4


def test_folds_differ_by_number(experiment, undisturbed, tmp_path):
    train.train_fold(longer(experiment, epochs=1), 2, FOLD, tmp_path)
    assert history(tmp_path)[0]["train_loss"] != undisturbed[1][0]["train_loss"]


def test_metrics_and_events_are_written(undisturbed, experiment, tmp_path):
    _, rows, _ = undisturbed
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert [row["step"] for row in rows] == [2, 4, 6, 8]  # 11 utterances by 8
    names = {"epoch", "step", "train_loss", "dev_loss", "dev_accuracy", "dev_uar"}
    assert set(rows[0]) == names | {"learning_rate_scale"}
    train.train_fold(longer(experiment, epochs=1), 0, FOLD, tmp_path)
    (events,) = (tmp_path / "tensorboard").iterdir()
    content = events.read_bytes()
    assert all(name.encode() in content for name in names - {"epoch"})


def test_the_scores_are_those_of_the_judgement(experiment, tmp_path):
    """Judged on the test side itself, whose judgement is returned."""
    config = experiment.config.copy_and_resolve_references()
    config.select_on, config.train.epochs = "test", 1
    fold = tiny.fold(range(8), range(0), range(8, 16))
    changed = dataclasses.replace(experiment, config=config)
    judgement = train.train_fold(changed, 0, fold, tmp_path)
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
    judgement = train.train_fold(
        tiny.experiment(config, corpus), 0, tiny.fold(range(5), range(5, 6), range(6, 8)), tmp_path
    )
    assert judgement.probabilities.shape == (2, 7)
    assert history(tmp_path)[-1]["step"] == 2 * 2  # 15 pictures by 8, twice


def test_without_a_test_side_nothing_is_judged(experiment, tmp_path):
    fold = tiny.fold(range(11), range(11, 14), range(0))
    assert train.train_fold(longer(experiment, epochs=1), 0, fold, tmp_path) is None
    assert len(history(tmp_path)) == 1


@pytest.mark.parametrize(("spoilt_step", "named"), [(5, 6), (6, 6)])
def test_a_loss_that_is_not_finite_ends_training_and_names_its_step(
    experiment, tmp_path, spoilt_step, named
):
    """The second case spoils an epoch's last step, whose own loss is still good."""
    train.train_fold(experiment, 0, FOLD, tmp_path)  # two epochs, steps 1 to 4

    def step(state, inputs, labels, scale, *rest):
        bad = int(state.step) + 1 == spoilt_step
        return experiment.train_step(state, inputs, labels, scale * (np.nan if bad else 1), *rest)

    spoilt = dataclasses.replace(longer(experiment, epochs=5), train_step=step)
    match = rf"step {named} is nan; .* epoch 2 in {tmp_path}/checkpoints"
    with pytest.raises(FloatingPointError, match=match):
        train.train_fold(spoilt, 0, FOLD, tmp_path)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.latest == 2
    train.train_fold(longer(experiment, epochs=3), 0, FOLD, tmp_path)  # goes on from there
    assert len(history(tmp_path)) == 3


def test_a_network_that_cannot_be_trained_says_so_at_once(experiment, tmp_path):
    spoilt = jax.tree.map(np.array, tiny.pretrained())
    spoilt["block3_conv1"]["bias"][0] = np.nan
    spoilt = dataclasses.replace(experiment, pretrained=spoilt)
    with pytest.raises(FloatingPointError, match=r"step 1 is nan; .*none was saved yet"):
        train.train_fold(spoilt, 0, FOLD, tmp_path)


def test_plateaus_lower_the_rates_and_gains_start_the_count_again():
    progress = train.Progress()
    scales, waits = [], []
    for epoch, loss in enumerate([3.0, 2.0, 2.0, 2.5, 1.0, 1.1, 1.2, 1.3, 1.4]):
        progress.record({"epoch": epoch}, loss, plateau_patience=2)
        scales.append(progress.learning_rate_scale)
        waits.append(progress.epochs_without_gain)
    assert waits == [0, 0, 1, 2, 0, 1, 2, 3, 4]
    np.testing.assert_allclose(scales, [1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.001], rtol=1e-12)
    assert progress.best_loss == 1.0
    assert progress.history == [{"epoch": epoch} for epoch in range(9)]
    assert train.Progress().best_loss == math.inf


def test_training_stops_when_nothing_is_gained(tmp_path):
    """At rates of zero DS-FC's loss stays what it is, and the first epoch is the best."""
    config = tiny.config("ds_fc")
    config.model.freeze = "block5"
    config.train.update(epochs=30, new_learning_rate=0.0, plateau_patience=2, stop_patience=5)
    stuck = tiny.experiment(config)
    train.train_fold(stuck, 0, FOLD, tmp_path)
    rows = history(tmp_path)
    assert len(rows) == 1 + 5
    scales = [row["learning_rate_scale"] for row in rows]
    np.testing.assert_allclose(scales, [1, 1, 1, 0.1, 0.1, 0.01], rtol=1e-12)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert (checkpoints.best, checkpoints.latest) == (1, 6)
    train.train_fold(stuck, 0, FOLD, tmp_path)  # and does not start again
    assert history(tmp_path) == rows


def test_masked_rows_leave_the_step_as_it_is(experiment):
    """Neither another row in their place nor another label or picture of theirs is felt."""
    mask = [1] * 7 + [0]
    wanted = host(take_step(experiment, fresh_state(experiment), ROWS, mask))
    other_row = host(take_step(experiment, fresh_state(experiment), [*ROWS[:7], 12], mask))
    jax.tree.map(np.testing.assert_array_equal, other_row, wanted)
    labels = np.array(experiment.labels)
    labels[6] = (labels[6] + 1) % 7
    inputs = np.array(experiment.inputs)
    inputs[6] = 255 - inputs[6]
    other = {"labels": devices.replicate(labels), "inputs": devices.replicate(inputs)}
    masked = host(take_step(experiment, fresh_state(experiment), ROWS, mask, **other))
    jax.tree.map(np.testing.assert_array_equal, masked, wanted)
    seen = host(take_step(experiment, fresh_state(experiment), ROWS, [1] * 8, **other))
    assert changed(seen[0].params, wanted[0].params)


def test_a_padded_batch_has_the_gradient_of_its_rows():
    config = tiny.config()
    config.model.freeze = "block4"
    experiment, optimiser = tiny.experiment(config), optax.sgd(1.0)
    step = train.create_train_step(experiment.network, optimiser)

    def after(rows, mask):
        state = fresh_state(experiment, optimiser)
        return host(take_step(experiment, state, rows, mask, step=step))

    padded, padded_loss = after([*ROWS[:5], 0, 0, 0], [1] * 5 + [0] * 3)
    plain, loss = after(ROWS[:5], [1] * 5)
    assert changed(fresh_host(experiment), plain.params)
    np.testing.assert_allclose(padded_loss, loss, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * np.abs(b).max()),
        padded.params,
        plain.params,
    )


def fresh_host(experiment):
    return host(fresh_state(experiment).params)


@pytest.mark.parametrize(
    ("freeze", "pretrained_rate", "new_rate"),
    [("", 1e-3, 1e-2), ("block3", 1e-3, 1e-2), ("block4", 0.0, 1e-2), ("block4", 1e-3, 0.0)],
)
def test_each_group_of_layers_has_its_own_rate(experiment, freeze, pretrained_rate, new_rate):
    if freeze:
        config = tiny.config()
        config.model.freeze = freeze
        config.train.pretrained_learning_rate = pretrained_rate
        config.train.new_learning_rate = new_rate
        experiment = tiny.experiment(config)
    before = fresh_host(experiment)
    state, _ = take_step(experiment, fresh_state(experiment), ROWS, [1] * 8)
    after = host(state.params)
    trunk, head = changed(before["vgg16"], after["vgg16"]), changed(before["head"], after["head"])
    free = {name for name in before["vgg16"] if not freeze or name[:6] > freeze}
    assert trunk == (free if pretrained_rate else set())
    new = {"batch_norm", "conv1", "conv2", "gate", "block4_pool_logits", "block5_pool_logits"}
    assert head == (new if new_rate else set())
    # Adam's first step is the rate itself wherever there is a gradient.
    for rate, tree in ((pretrained_rate, "vgg16"), (new_rate, "head")):
        steps = jax.tree.map(lambda a, b: np.abs(a - b).max(), after[tree], before[tree])
        assert max(jax.tree.leaves(steps)) == pytest.approx(rate, rel=0.01)


def test_fc1_and_fc2_move_at_the_ported_layers_rate():
    config = tiny.config("ds_fc")
    network = dataclasses.replace(
        inference.create_network(config), head=inference.models.FullyConnectedHead("fc", 0.5)
    )
    params = inference.abstract_variables(network)["params"]
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), params)
    optimiser = train.create_optimiser(network, config.train)
    gradients = jax.tree.map(np.ones_like, params)
    updates, _ = optimiser.update(gradients, optimiser.init(params), params)
    for name, rate in (("fully_connected", 1e-3), ("classifier", 1e-2)):
        for leaf in jax.tree.leaves(updates["head"][name]):
            np.testing.assert_allclose(leaf, -rate, rtol=1e-3)


def test_dropout_is_trained_from_ported_fc_layers(monkeypatch):
    """At 64 pixels, where `create` would refuse `fc`: the ported layers here fit that side."""
    monkeypatch.setattr(inference.models, "FULL_SIZE", 64)
    config = tiny.config("ds_fc")
    config.model.head, config.model.freeze = "fc", "block5"
    experiment = tiny.experiment(config)
    before = fresh_host(experiment)
    fc1 = before["head"]["fully_connected"]["fc1"]["kernel"]
    np.testing.assert_array_equal(fc1, tiny.pretrained()["fc1"]["kernel"])
    (first, loss), (again, same_loss) = (
        host(take_step(experiment, fresh_state(experiment), ROWS, [1] * 8)) for _ in range(2)
    )
    assert loss == same_loss
    assert changed(before, first.params) >= {"fc1", "fc2", "classifier"}
    jax.tree.map(np.testing.assert_array_equal, first, again)
    state = fresh_state(experiment)
    later = host(take_step(experiment, state.replace(step=state.step + 1), ROWS, [1] * 8))
    assert later[1] != loss  # other units are dropped in another step


def test_the_scale_multiplies_a_step(experiment):
    before = fresh_host(experiment)
    still, _ = take_step(experiment, fresh_state(experiment), ROWS, [1] * 8, scale=0.0)
    assert not changed(before, host(still.params))
    whole, tenth = (
        host(take_step(experiment, fresh_state(experiment), ROWS, [1] * 8, scale=scale)[0].params)
        for scale in (1.0, 0.1)
    )
    jax.tree.map(
        lambda old, a, b: np.testing.assert_allclose(b - old, (a - old) / 10, atol=1e-6),
        before,
        whole,
        tenth,
    )


def test_new_layers_are_drawn_by_seed_and_ported_ones_are_not(experiment):
    optimiser = train.create_optimiser(experiment.network, experiment.config.train)
    one, same, other = (
        host(train.create_state(experiment.network, optimiser, tiny.pretrained(), key, {}).params)
        for key in map(jax.random.key, (0, 0, 1))
    )
    assert not changed(one, same)
    assert changed(one["head"], other["head"]) >= {"conv1", "conv2", "gate", "block4_pool_logits"}
    assert not changed(one["vgg16"], other["vgg16"])
    assert not changed(one["vgg16"], {n: tiny.pretrained()[n] for n in sorted(one["vgg16"])})


def test_a_new_experiment_compiles_nothing_for_a_second_fold(experiment, tmp_path):
    names = []

    def note(event, seconds, fun_name="", **rest):
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(fun_name)

    short = longer(experiment, epochs=1)
    train.train_fold(short, 0, FOLD, tmp_path / "0")
    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        train.train_fold(short, 1, FOLD, tmp_path / "1")
        assert names == []
        jax.jit(lambda x: x * 3 + 1)(np.ones(3))
        assert names  # it would have been heard
    finally:
        jax.monitoring.unregister_event_duration_listener(note)
