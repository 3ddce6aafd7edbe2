"""A step moves what it should, by what it should, and nothing else."""

import dataclasses
import gc
import weakref

import jax
import numpy as np
import optax
import pytest
import tiny

from ds_jax.models import deep_spectrum
from ds_jax.models.backbones import BACKBONES
from ds_jax.models.create import abstract_variables, create_network
from ds_jax.training import parallel
from ds_jax.training import step as step_module
from ds_jax.training.parallel import ONE_MODEL

pytestmark = pytest.mark.usefixtures("narrow")

ROWS = np.asarray([3, 1, 5, 7, 2, 9, 4, 6], np.int32)  # the steps are compiled for eight


@pytest.fixture(scope="module")
def setup(narrow):
    return tiny.setup(tiny.config())


def take_step(setup, rows, mask, scale=1.0, step=None, state=None, **other):
    """One step from a fresh state, or another."""
    inputs = dataclasses.replace(setup.inputs, **other)
    step = step or setup.steps_for(ONE_MODEL)[0]
    placed = ONE_MODEL.place([state or tiny.state(setup)])
    rows, mask = np.asarray(rows, np.int32)[None, None], np.asarray(mask, np.float32)[None, None]
    number, scale, counts = np.int32(1), np.float32(scale), np.ones(1, np.int32)
    state, losses = step(placed, number, scale, inputs.corpus, inputs.labels, rows, mask, counts)
    return state, losses[0]


@pytest.mark.parametrize("kind", ["train", "predict"])
def test_a_step_holds_no_corpus(setup, kind):
    """JAX keeps steps as long as the process runs."""
    inputs = dataclasses.replace(setup.inputs)
    network, held = create_network(setup.config), weakref.ref(inputs)
    if kind == "train":
        given = network, setup.optimiser, inputs, ONE_MODEL, setup.config.seeds
        step = step_module.create_train_step(*given)
    else:
        given = network, inputs, ONE_MODEL
        step = step_module.create_predict_step(*given)
    del inputs, given
    gc.collect()
    assert step
    assert held() is None


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


def test_masked_rows_leave_the_step_as_it_is(setup):
    """Neither another row in their place nor another label or picture of theirs is felt."""
    mask = [1] * 7 + [0]
    wanted = host(take_step(setup, ROWS, mask))
    other_row = host(take_step(setup, [*ROWS[:7], 12], mask))
    jax.tree.map(np.testing.assert_array_equal, other_row, wanted)
    labels, corpus = np.array(setup.inputs.labels), np.array(setup.inputs.corpus)
    labels[6] = (labels[6] + 1) % 7
    corpus[6] = 255 - corpus[6]
    other = {"labels": parallel.replicate(labels), "corpus": parallel.replicate(corpus)}
    masked = host(take_step(setup, ROWS, mask, **other))
    jax.tree.map(np.testing.assert_array_equal, masked, wanted)
    seen = host(take_step(setup, ROWS, [1] * 8, **other))
    assert changed(seen[0].params, wanted[0].params)


def test_a_padded_batch_has_the_gradient_of_its_rows():
    config = tiny.config()
    config.model.freeze = "block4"
    setup, optimiser = tiny.setup(config), optax.sgd(1.0)
    network = create_network(config, ONE_MODEL.axis_name)
    step = step_module.create_train_step(network, optimiser, setup.inputs, ONE_MODEL, config.seeds)

    def after(rows, mask):
        state = tiny.state(dataclasses.replace(setup, optimiser=optimiser))
        return host(take_step(setup, rows, mask, step=step, state=state))

    padded, padded_loss = after([*ROWS[:5], 0, 0, 0], [1] * 5 + [0] * 3)
    plain, loss = after(ROWS[:5], [1] * 5)
    assert changed(fresh_host(setup), plain.variables["params"])
    np.testing.assert_allclose(padded_loss, loss, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * np.abs(b).max()),
        padded.params,
        plain.params,
    )


def fresh_host(setup):
    return host(tiny.state(setup).variables["params"])


@pytest.mark.parametrize(
    ("freeze", "pretrained_rate", "new_rate"),
    [("", 1e-3, 1e-2), ("block3", 0.0, 1e-2), ("block4", 1e-3, 0.0)],
)
def test_each_group_of_layers_has_its_own_rate(setup, freeze, pretrained_rate, new_rate):
    if freeze:
        config = tiny.config()
        config.model.freeze = freeze
        config.train.pretrained_learning_rate = pretrained_rate
        config.train.new_learning_rate = new_rate
        setup = tiny.setup(config)
    before = fresh_host(setup)
    state, _ = take_step(setup, ROWS, [1] * 8)
    after = host(state.variables["params"])
    trunk, head = changed(before["vgg16"], after["vgg16"]), changed(before["head"], after["head"])
    free = {name for name in before["vgg16"] if not freeze or name[:6] > freeze}
    assert trunk == (free if pretrained_rate else set())
    new = {"batch_norm", "conv1", "conv2", "gate", "block4_pool_logits", "block5_pool_logits"}
    assert head == (new if new_rate else set())
    # Adam's first step is the rate itself wherever there is a gradient.
    for rate, tree in ((pretrained_rate, "vgg16"), (new_rate, "head")):
        steps = jax.tree.map(lambda a, b: np.abs(a - b).max(), after[tree], before[tree])
        assert max(jax.tree.leaves(steps)) == pytest.approx(rate, rel=0.01)


def test_a_fixed_number_of_epochs_has_both_rates_and_its_decay():
    config, _ = tiny.make("ds_am_statistics")
    params = {"vgg16": {"block4_conv1": np.ones(2)}, "head": {"logits": np.ones(2)}}
    ported = {"vgg16": params["vgg16"]}
    optimiser = step_module.create_optimiser(config.train, ported)
    gradients = jax.tree.map(np.zeros_like, params)  # the decay alone is left
    updates, _ = optimiser.update(gradients, optimiser.init(params), params)
    found = updates["vgg16"]["block4_conv1"][0], updates["head"]["logits"][0]
    np.testing.assert_allclose(found, (-1e-4 * 0.01, -4e-3 * 0.01), rtol=1e-5)


def test_fc1_and_fc2_move_at_the_ported_layers_rate():
    config = tiny.config("ds_fc")
    network = dataclasses.replace(
        create_network(config), head=deep_spectrum.FullyConnectedHead(tiny.NARROW, "fc", 0.5, 7)
    )
    params = abstract_variables(network)["params"]
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), params)
    optimiser = step_module.create_optimiser(config.train, network.port(tiny.pretrained()))
    gradients = jax.tree.map(np.ones_like, params)
    step = jax.jit(lambda gradients: optimiser.update(gradients, optimiser.init(params), params))
    updates, _ = step(gradients)
    for name, rate in (("fully_connected", 1e-3), ("classifier", 1e-2)):
        for leaf in jax.tree.leaves(updates["head"][name]):
            np.testing.assert_allclose(leaf, -rate, rtol=1e-3)


def test_dropout_is_trained_from_ported_fc_layers(monkeypatch):
    """At 64 pixels, which the ported layers here fit."""
    monkeypatch.setitem(BACKBONES, "vgg16", dataclasses.replace(tiny.NARROW, size=64))
    config = tiny.config("ds_fc")
    config.model.head, config.model.freeze = "fc", "block5"
    setup = tiny.setup(config)
    before = fresh_host(setup)
    fc1 = before["head"]["fully_connected"]["fc1"]["kernel"]
    np.testing.assert_array_equal(fc1, tiny.pretrained()["fc1"]["kernel"])
    (first, loss), (again, same_loss) = (host(take_step(setup, ROWS, [1] * 8)) for _ in range(2))
    assert loss == same_loss
    assert changed(before, first.variables["params"]) >= {"fc1", "fc2", "classifier"}
    jax.tree.map(np.testing.assert_array_equal, first, again)
    state = tiny.state(setup)
    later = host(take_step(setup, ROWS, [1] * 8, state=state.replace(step=state.step + 1)))
    assert later[1] != loss  # other units are dropped in another step


def test_the_scale_multiplies_a_step(setup):
    before = fresh_host(setup)
    still, _ = take_step(setup, ROWS, [1] * 8, scale=0.0)
    assert not changed(before, host(still.params))
    whole, tenth = (
        host(take_step(setup, ROWS, [1] * 8, scale=scale)[0].params) for scale in (1.0, 0.1)
    )
    jax.tree.map(
        lambda old, a, b: np.testing.assert_allclose(b - old, (a - old) / 10, atol=1e-6),
        before,
        whole,
        tenth,
    )


def test_new_layers_are_drawn_by_seed_and_ported_ones_are_not(setup):
    one, same, other = (host(tiny.state(setup, seed).params) for seed in (0, 0, 1))
    assert not changed(one, same)
    assert changed(one["head"], other["head"]) >= {"conv1", "conv2", "gate", "block4_pool_logits"}
    assert not changed(one["vgg16"], other["vgg16"])
    assert not changed(one["vgg16"], {n: tiny.pretrained()[n] for n in sorted(one["vgg16"])})


def test_an_augmentation_changes_what_is_trained_on_by_a_seed_of_its_own(monkeypatch):
    """Here it is noise, on what the frozen blocks made."""
    config = tiny.config("ds_fc")
    config.model.freeze = "block5"
    setup = tiny.setup(config)
    network = create_network(config)

    def loss(**seeds):
        changed_seeds = config.copy_and_resolve_references().seeds
        changed_seeds.update(seeds)
        step = step_module.create_train_step(
            network, setup.optimiser, setup.inputs, ONE_MODEL, changed_seeds
        )
        return float(take_step(setup, ROWS, [1] * 8, step=step)[1])

    def noise(network, batch, rng):
        assert rng.shape == batch.shape[:1]  # a key for each row
        drawn = jax.vmap(lambda key, row: jax.random.normal(key, row.shape, row.dtype))
        return batch + drawn(rng, batch)

    plain = loss()
    monkeypatch.setattr(deep_spectrum.DeepSpectrumNetwork, "augments", True)
    monkeypatch.setattr(deep_spectrum.DeepSpectrumNetwork, "augment", noise, raising=False)
    noisy = loss()
    assert noisy != plain
    assert loss(dropout=1) == noisy
    assert loss(augmentation=1) not in (noisy, plain)
