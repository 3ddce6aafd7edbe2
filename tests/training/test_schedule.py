"""A fixed number of epochs: the average after the last, or after a chosen one, is the model."""

import dataclasses
import shutil

import jax
import numpy as np
import optax
import pytest
import tiny
from one_fold import ended_by, killed_after, outcome, sigterm_after
from refusals import refused_field

from ds_jax.models.create import create_network
from ds_jax.runtime import shutdown
from ds_jax.systems import base as systems
from ds_jax.systems import network as saved_networks
from ds_jax.training import fold, input_pipeline, parallel
from ds_jax.training import step as step_module
from ds_jax.training.checkpoints import CARD, read_card
from ds_jax.training.fold import FoldState
from ds_jax.training.parallel import ONE_MODEL

pytestmark = pytest.mark.usefixtures("narrow")

FIXED = tiny.fold(range(14), range(0), range(14, 16))  # two steps an epoch


@pytest.fixture(scope="module")
def setup(narrow):
    config, _ = tiny.make("ds_am_statistics")
    config.train.epochs = 3
    return tiny.setup(config, tiny.timelines(tiny.corpus(16)))


@pytest.fixture(scope="module")
def undisturbed(setup, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed")
    return outcome(setup, workdir, FIXED), workdir


def test_rates_rise_and_then_fall_as_optax_has_it():
    for steps in (10, 57, 200):
        rising = steps // 10
        falling = optax.cosine_decay_schedule(1.0, steps - rising)
        wanted = [(step + 1) / rising for step in range(rising)]
        wanted += [falling(step) for step in range(steps - rising)]
        found = [step_module.rate_share(np.int32(step), np.int32(steps)) for step in range(steps)]
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert float(step_module.rate_share(np.int32(0), np.int32(1))) == 1


def test_classes_weigh_equally():
    labels = np.asarray([0, 0, 0, 2, 2, 5])
    weights = step_module.class_weights(labels, 7)
    np.testing.assert_allclose(np.bincount(labels, weights[labels]), [2, 0, 2, 0, 0, 2], rtol=1e-6)
    assert weights[labels].mean() == pytest.approx(1)
    assert weights[[1, 3, 4, 6]].tolist() == [0, 0, 0, 0]


def state_of(setup, steps, labels):
    return step_module.create_state(
        create_network(setup.config),
        setup.optimiser,
        setup.pretrained,
        jax.random.key(0),
        create_network(setup.config).scaling(setup.measured, np.arange(14)),
        steps,
        step_module.class_weights(labels, 7),
    )


def take_step(setup, state, rows, number=1):
    """Takes a step on a batch of at most eight rows."""
    step, inputs = setup.steps_for(ONE_MODEL)[0], setup.inputs
    rows, mask, counts = ONE_MODEL.spread([[np.asarray(rows, np.int32)]], 1, 8)
    state, losses = step(
        ONE_MODEL.place([state]),
        np.int32(number),
        np.float32(1),
        inputs.corpus,
        inputs.labels,
        rows,
        mask,
        counts,
    )
    return jax.tree.map(np.array, state), float(losses[0])


def test_a_step_moves_by_its_share_of_the_rate_and_the_average_follows(setup):
    labels, rows = setup.corpus.labels[:14], np.arange(8)
    moved = {}
    for steps in (10, 40):  # which rise in one step and in four
        before = jax.tree.map(np.array, state_of(setup, steps, labels))
        after, _ = take_step(setup, before, rows)
        moved[steps] = jax.tree.map(np.subtract, after.params, before.params)
        for average, old, new in zip(
            *map(jax.tree.leaves, (after.schedule.average, before.params, after.params)),
            strict=True,
        ):
            np.testing.assert_allclose(average, 0.1 * old + 0.9 * new, atol=1e-6)
    for whole, quarter in zip(*map(jax.tree.leaves, moved.values()), strict=True):
        np.testing.assert_allclose(whole, 4 * quarter, atol=1e-5)


def test_losses_are_balanced_and_smoothed(setup):
    rows = np.arange(8)
    plain, balanced = (
        take_step(setup, state_of(setup, 10, labels), rows)[1]
        for labels in (np.arange(7).repeat(2), np.asarray([0] * 8 + [1, 2, 3, 4, 5, 6]))
    )
    assert plain != balanced
    config = setup.config.copy_and_resolve_references()
    config.train.label_smoothing = 0.0
    other = dataclasses.replace(setup, config=config, steps={})
    assert take_step(other, state_of(other, 10, np.arange(7).repeat(2)), rows)[1] != plain


def test_the_seed_of_augmentation_changes_a_step_and_nothing_else_does(setup):
    config = setup.config.copy_and_resolve_references()
    config.seeds.augmentation = 5
    other = dataclasses.replace(setup, config=config, steps={})
    labels, rows = setup.corpus.labels[:14], np.arange(8)
    losses = [take_step(each, state_of(each, 10, labels), rows)[1] for each in (setup, other)]
    assert losses[0] != losses[1]
    assert take_step(setup, state_of(setup, 10, labels), rows)[1] == losses[0]
    assert take_step(setup, state_of(setup, 10, labels), rows, number=2)[1] != losses[0]


def test_each_row_is_mixed_with_the_next_and_so_are_their_losses(setup, monkeypatch):
    config = setup.config.copy_and_resolve_references()
    config.train.mixup, config.train.label_smoothing, config.model.dropout = 0.3, 0.0, 0.0
    monkeypatch.setattr(jax.random, "beta", lambda key, a, b: jax.numpy.float32(a - b + 0.25))
    mixing = dataclasses.replace(setup, config=config, steps={})
    state, rows = state_of(mixing, 10, setup.corpus.labels[:14]), np.arange(8)
    network, classes = create_network(config), setup.corpus.labels[rows]
    key = jax.random.key(config.seeds.augmentation)
    for number in (step_module.AUGMENTATION, 1, 0):  # the stream, the fold and the step
        key = jax.random.fold_in(key, number)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, rows)
    x = network.augment(step_module.take(setup.inputs.corpus, rows), keys)
    following = np.roll(rows, -1)
    others = jax.tree.map(lambda x: x[following], x)
    mixed = network.mix(x, others, np.full(8, 0.25, np.float32))
    outputs, _ = network.apply(
        state.variables,
        mixed,
        np.ones(8, np.float32),
        True,
        keys,
        method="upper",
        mutable=["batch_stats"],
    )
    weights = state.schedule.class_weights[classes]
    losses = [
        weights * outputs.losses(classes),
        weights[following] * outputs.losses(classes[following]),
    ]
    wanted = np.mean(0.25 * losses[0] + 0.75 * losses[1])
    np.testing.assert_allclose(take_step(mixing, state, rows)[1], wanted, rtol=1e-4)


def test_no_row_is_mixed_with_what_is_not_in_the_batch(setup):
    """Padding is row 0, here of a recording that is as short as any, and then of its own length."""
    config = setup.config.copy_and_resolve_references()
    config.train.mixup = 0.5
    losses, labels = [], setup.corpus.labels[:14]
    for end in (64, 208):
        pictures = setup.corpus.inputs.copy()
        pictures[0, :, end:] = 0
        corpus = dataclasses.replace(setup.corpus, inputs=pictures)
        mixing = dataclasses.replace(tiny.setup(config, corpus), measured=setup.measured)
        losses.append(take_step(mixing, state_of(mixing, 10, labels), np.arange(5, 10))[1])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_the_last_epoch_counts_and_its_average_is_the_model(setup, tmp_path, monkeypatch):
    states, finish = [], FoldState.finish
    monkeypatch.setattr(
        FoldState, "finish", lambda self, state: states.append(state) or finish(self, state)
    )
    tiny.train_fold(setup, 1, FIXED, tmp_path)
    folder = tmp_path / "fold_01" / "checkpoints"
    assert read_card(folder)["epoch"] == 3
    _, _, variables = saved_networks.load(folder)
    wanted = states[0].model["params"]["head"]
    for found, average in zip(
        *map(jax.tree.leaves, (variables["params"]["head"], wanted)), strict=True
    ):
        np.testing.assert_array_equal(found, average)
    trained = jax.tree.leaves(states[0].params["head"])
    averages = jax.tree.leaves(states[0].schedule.average["head"])
    assert any((a != b).any() for a, b in zip(trained, averages, strict=True))


def test_a_model_that_is_older_than_the_choice_of_augmentation_is_read(undisturbed, tmp_path):
    folder = shutil.copytree(undisturbed[1] / "fold_01" / "checkpoints", tmp_path / "older")
    for field in ("least_share", "most_hidden", "mixup"):
        tiny.tamper(folder / CARD, lambda card, field=field: card["config"]["train"].pop(field))
    config, network, _ = saved_networks.load(folder)
    assert (network.least_share, network.most_hidden, config.train.mixup) == (0.6, 0.3, 0.0)
    assert systems.load_config([folder]) == config


def test_development_utterances_choose_an_epoch_and_change_no_rate(setup, tmp_path, monkeypatch):
    config = setup.config.copy_and_resolve_references()
    config.select_on, config.train.epochs = "dev", 4
    systems.check(config)
    chosen = tiny.fold(range(12), range(12, 14), range(14, 16))
    dev_losses, averages, end_epoch = iter([2.0, 1.0, 3.0, 4.0]), [], FoldState.end_epoch

    def scores(predicted, corpus, rows):
        return {"loss": next(dev_losses) if 12 in rows else 0.5, "uar": 0.5}

    def ended(self, state, *predicted):
        averages.append(jax.tree.leaves(state.model["params"]["head"]))
        end_epoch(self, state, *predicted)

    monkeypatch.setattr(fold, "_scores", scores)
    monkeypatch.setattr(FoldState, "end_epoch", ended)
    _, rows, _ = outcome(dataclasses.replace(setup, config=config, steps={}), tmp_path, chosen)
    assert [row["learning_rate_scale"] for row in rows] == [1, 1, 1, 1]
    folder = tmp_path / "fold_01" / "checkpoints"
    assert read_card(folder)["epoch"] == 2
    found = jax.tree.leaves(saved_networks.load(folder)[2]["params"]["head"])
    for one, wanted in zip(found, averages[1], strict=True):
        np.testing.assert_array_equal(one, wanted)
    assert any((a != b).any() for a, b in zip(found, averages[3], strict=True))


def test_nothing_but_training_utterances_is_seen(setup, undisturbed, tmp_path):
    """Other test pictures change the predictions of the test alone, and no model."""
    inputs = setup.corpus.inputs.copy()
    inputs[14:] = np.maximum(1, 255 - inputs[14:]) * (inputs[14:] > 0)
    corpus = dataclasses.replace(setup.corpus, inputs=inputs)
    (bits, rows, model), _ = undisturbed
    other = tiny.setup(setup.config, corpus)
    found = outcome(other, tmp_path, FIXED)
    assert found[0] != bits
    assert found[1:] == (rows, model)
    assert not any(key.startswith(("dev", "test")) for row in rows for key in row)


def test_batches_are_full(setup, tmp_path, monkeypatch):
    seen, order = [], FoldState.order
    monkeypatch.setattr(FoldState, "order", lambda self: seen.append(order(self)) or seen[-1])
    tiny.train_fold(setup, 1, FIXED, tmp_path)
    assert len(seen) == 3
    for rows in seen:
        assert len(rows) == 16
        assert sorted(rows[:14]) == list(range(14))


@pytest.mark.parametrize(
    "checks",
    [2, 12, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 1, 3, 6))],
)
def test_going_on_after_sigterm_gives_the_same_bits(setup, undisturbed, tmp_path, checks):
    """SIGTERM is looked for before each of three epochs, after each of their two steps and before
    the epoch ends; and before test is predicted."""
    ended_by(shutdown.Interrupted, setup, tmp_path, *sigterm_after(checks), fold=FIXED)
    assert outcome(setup, tmp_path, FIXED) == undisturbed[0]


def test_another_number_of_epochs_is_another_experiment(setup, undisturbed):
    """A run that chooses its epoch can be given more; here they make the rate of each step."""
    config = setup.config.copy_and_resolve_references()
    config.train.epochs = 5
    with pytest.raises(ValueError, match=r"train\.epochs is 3 there and 5"):
        tiny.train_fold(dataclasses.replace(setup, config=config), 1, FIXED, undisturbed[1])


def test_going_on_after_being_killed_gives_the_same_bits(setup, undisturbed, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        tiny.train_fold(killed_after(setup, 3), 1, FIXED, tmp_path)
    assert outcome(setup, tmp_path, FIXED) == undisturbed[0]


@pytest.mark.parametrize("freeze", ["block4", "block2"])
def test_maps_computed_beforehand_are_those_of_each_timeline(freeze, monkeypatch):
    monkeypatch.setattr(parallel, "WIDTH", 6)
    corpus = tiny.timelines(tiny.corpus(16))
    config, _ = tiny.make("ds_am_statistics")
    config.model.freeze = freeze
    network = create_network(config)
    params = network.port(tiny.pretrained())
    made = input_pipeline.create_inputs(network, params, corpus.inputs, corpus.labels)
    wanted = jax.jit(lambda x: network.apply({"params": params}, x, method="lower"))(corpus.inputs)
    assert set(made.corpus) == set(wanted)
    found = step_module.take(made.corpus, np.arange(16))
    for name, value in wanted.items():
        scale, columns = float(np.abs(value).max()), (..., *[slice(None)] * (value.ndim - 1))
        if value.ndim > 2:
            columns = slice(None), slice(None), slice(value.shape[2])
        np.testing.assert_allclose(found[name][columns], value, rtol=1e-4, atol=1e-5 * scale)


def test_streamed_timelines_train_the_same_model(setup, undisturbed, tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "fits", lambda size: False)
    streamed = tiny.setup(setup.config, dataclasses.replace(setup.corpus))
    assert streamed.inputs.streamed
    for name, moments in setup.measured.items():
        for found, wanted in zip(streamed.measured[name], moments, strict=True):
            np.testing.assert_allclose(found[:16], wanted[:16], rtol=1e-4, atol=1e-3)
    (_, rows, _), _ = undisturbed
    losses = [row["train_loss"] for row in outcome(streamed, tmp_path, FIXED)[1]]
    np.testing.assert_allclose(losses, [row["train_loss"] for row in rows], rtol=1e-2)


@pytest.mark.parametrize(
    ("system", "select_on"),
    [("ds_am_statistics", "test"), ("ds_am", "none"), ("svc", "none")],
)
def test_a_choice_that_the_training_does_not_make_is_refused(system, select_on):
    config, _ = tiny.make(system)
    config.select_on = select_on
    assert refused_field(systems.check, config) == "select_on"
