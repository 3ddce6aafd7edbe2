"""DS-AM's second form: padding changes nothing, and a head is what the formulas say."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from refusals import refused_field

from ds_jax.models import timeline
from ds_jax.models.create import create_network
from ds_jax.systems import base as systems

pytestmark = pytest.mark.usefixtures("narrow")

HEADS = ("block3_pool", "block4_pool")
WIDTHS = (64, 127, 155)


def create(**changes):
    config, _ = tiny.make("ds_am_statistics")
    config.model.update(changes)
    return create_network(config)


def drawn(widths=WIDTHS, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(1, 256, (32, width), np.uint8) for width in widths]


def padded(pictures, width):
    inputs = np.zeros((len(pictures), 32, width), np.uint8)
    for row, picture in zip(inputs, pictures, strict=True):
        row[:, : picture.shape[1]] = picture
    return inputs


@functools.cache
def variables(network):
    """Random parameters, a scaling that is not the identity, and a BatchNorm that has run."""
    made = jax.jit(network.init)(jax.random.key(0), padded(drawn(), 160), jnp.ones(3))
    made = {"params": {**made["params"], "vgg16": tiny.pretrained()}, **made}
    rng = np.random.default_rng(0)
    shift = jax.tree.map(
        lambda x: x + 0.3 * rng.random(x.shape).astype(np.float32), made["batch_stats"]
    )
    params = {**made["params"], "vgg16": {n: tiny.pretrained()[n] for n in made["params"]["vgg16"]}}
    return {"params": params, "batch_stats": shift}


@functools.cache
def compiled(network, method):
    """A function of variables and of what the method takes; operation by operation is slower."""
    return jax.jit(functools.partial(network.apply, method=method))


def lower_of(network, pictures):
    return dict(compiled(network, "lower")(variables(network), pictures))


# Without frozen blocks all of VGG16 is compiled twice.
LONG = [pytest.param(blocks, marks=pytest.mark.slow) for blocks in ("", "block2", "block3")]


@pytest.mark.parametrize("freeze", [*LONG, "block4"])
def test_a_padded_timeline_gives_the_numbers_of_an_unpadded_one(freeze):
    network = create(freeze=freeze)
    apply = functools.partial(compiled(network, "__call__"), variables(network))
    together = apply(padded(drawn(), 250), jnp.ones(3))
    for row, picture in enumerate(drawn()[1:], start=1):
        alone = apply(picture[None], jnp.ones(1))
        np.testing.assert_allclose(together.logits[row], alone.logits[0], rtol=1e-4, atol=1e-5)
        for name, gate in alone.gates.items():
            columns = picture.shape[1] // {"block3_pool": 8, "block4_pool": 16}[name]
            assert gate.shape[2] == columns
            wide = together.gates[name][row]
            np.testing.assert_allclose(wide[:, :columns], gate[0], rtol=1e-4, atol=1e-5)
            assert np.isnan(wide[:, columns:]).all()


@pytest.mark.slow
def test_what_lies_after_the_end_of_a_timeline_has_no_gradient():
    network = create(freeze="")
    x = lower_of(network, padded(drawn(), 160))

    def loss(picture):
        outputs = network.apply(
            variables(network), x | {"picture": picture}, jnp.ones(3), method="upper"
        )
        return jnp.sum(jnp.square(outputs.logits))

    gradient = np.asarray(jax.grad(loss)(x["picture"]))
    for row, width in enumerate(WIDTHS):
        assert gradient[row, :, : width // 16 * 16].any()
        assert not gradient[row, :, width:].any()


def test_blocks_that_are_frozen_hand_all_maps_with_heads_up():
    network = create()
    lower = lower_of(network, padded(drawn(), 160))
    assert {name: value.shape for name, value in lower.items()} == {
        "widths": (3,),
        "block3_pool": (3, 4, 20, 8),
        "block4_pool": (3, 2, 10, 16),
    }
    np.testing.assert_array_equal(lower["widths"], WIDTHS)
    network = create(freeze="block2")
    lower = lower_of(network, padded(drawn(), 160))
    assert set(lower) == {"widths", "block2_pool"}


def by_numpy(x, seen, params, gated):
    """The statistics of one map, position by position."""
    positions = []
    for row, column in np.argwhere(seen):
        value, weight = x[row, column], 1.0
        if gated:
            hidden = value
            for layer in ("dense1", "dense2"):
                hidden = hidden @ params[layer]["kernel"] + params[layer]["bias"]
                hidden = np.maximum(hidden, 0)
            logit = hidden @ params["gate_kernel"][row] + params["gate_bias"][row]
            weight = 1 / (1 + np.exp(-logit))
        positions.append((weight, value))
    weights = np.asarray([weight for weight, _ in positions])
    values = np.asarray([value for _, value in positions])
    mean = np.average(values, axis=0, weights=weights)
    variance = np.average((values - mean) ** 2, axis=0, weights=weights)
    return np.concatenate([mean, np.sqrt(variance + 1e-4)])


@pytest.mark.parametrize("gated", [True, False])
def test_a_head_is_what_the_formulas_say(gated):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(3, 4, 9, 5)).astype(np.float32)
    seen = (rng.random((3, 4, 9)) < 0.7).astype(np.float32)
    head = timeline.StatisticsHead(gated, 0.5, 7)
    made = head.init(jax.random.key(0), x, seen, jnp.ones(3), False, None)
    made = jax.tree.map(lambda leaf: leaf + 0.1 * rng.normal(size=leaf.shape), made)
    made = jax.tree.map(np.asarray, made)
    (logits, gate), params = head.apply(made, x, seen, jnp.ones(3), False, None), made["params"]
    statistics = np.asarray([by_numpy(*each, params, gated) for each in zip(x, seen, strict=True)])
    stored, norm = made["batch_stats"]["batch_norm"], params["batch_norm"]
    features = (statistics - stored["mean"]) / np.sqrt(stored["variance"] + 1e-3)
    features = features * norm["scale"] + norm["bias"]
    wanted = features @ params["logits"]["kernel"] + params["logits"]["bias"]
    np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-4)
    assert (gate is not None) == gated
    assert ("gate_kernel" in params) == gated


def test_the_prediction_is_the_mean_of_the_heads_whose_losses_are_weighted():
    network = create()
    inputs = padded(drawn(), 160), jnp.ones(3)
    outputs = compiled(network, "__call__")(variables(network), *inputs)
    heads = list(outputs.head_logits.values())
    assert list(outputs.head_logits) == list(HEADS)
    np.testing.assert_allclose(outputs.logits, (heads[0] + heads[1]) / 2, rtol=1e-6)
    assert [float(weight) for weight, _ in outputs.loss_terms] == pytest.approx([1.0, 0.8])
    assert set(outputs.gates) == set(HEADS)
    plain = create(gate=False)
    assert compiled(plain, "__call__")(variables(plain), *inputs).gates == {}


def test_scaling_is_measured_on_the_real_positions_of_the_rows_that_train():
    network = create()
    lower = lower_of(network, padded(drawn(), 160))
    moments = jax.device_get(compiled(network, "moments")(variables(network), lower))
    rows = np.asarray([0, 2])
    scaling = network.scaling(moments, rows)
    for name, pixels in (("block3_pool", 8), ("block4_pool", 16)):
        columns = [np.asarray(lower[name])[row, :, : WIDTHS[row] // pixels] for row in rows]
        values = np.concatenate([part.reshape(-1, part.shape[-1]) for part in columns])
        deviation = np.where(values.std(axis=0) > 0, values.std(axis=0), 1)
        found = scaling[f"standardise_{name}"]
        np.testing.assert_allclose(found["mean"], values.mean(axis=0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found["deviation"], deviation, rtol=1e-3)


def test_crops_are_real_and_no_more_than_asked_for_is_hidden():
    """Columns that hold their own number show where a crop was made."""
    network, count = create(), 200
    widths = np.resize([64, 90, 208, 400], count).astype(np.int32)
    x = {"widths": jnp.asarray(widths)}
    for name, pixels in (("block3_pool", 8), ("block4_pool", 16)):
        numbers = np.arange(400 // pixels, dtype=np.float32)
        shape = count, 32 // pixels, len(numbers), 1
        x[name] = jnp.asarray(np.broadcast_to(numbers[:, None], shape))
    keys = jax.random.split(jax.random.key(0), count)
    augment = jax.jit(network.augment)
    found = jax.tree.map(np.asarray, augment(x, keys))
    units, kept = widths // 16, found["widths"] // 16
    assert (found["widths"] % 16 == 0).all()
    assert (kept >= np.minimum(np.round(0.6 * units), 12)).all()
    assert (kept <= np.minimum(units, 12)).all()
    starts = found["block4_pool"][:, 0, 0, 0]
    assert (starts + kept <= units).all()
    assert len(np.unique(starts[widths == 400])) > 5
    for row in range(count):
        high, low = (found[name][row, 0, :, 0] for name in ("block4_pool", "block3_pool"))
        np.testing.assert_array_equal(high[: kept[row]], starts[row] + np.arange(kept[row]))
        wanted = 2 * starts[row] + np.arange(2 * kept[row])
        np.testing.assert_array_equal(low[: 2 * kept[row]], wanted)
    start, end, bottom, top = found["hidden"].T
    for first, last in ((start, end), (bottom, top)):
        assert ((first >= 0) & (last <= 1 + 1e-6) & (last - first <= 0.3 + 1e-6)).all()
        assert (last - first).max() > 0.25
    again = augment(jax.tree.map(lambda x: x[50:60], x), keys[50:60])
    np.testing.assert_array_equal(again["hidden"], found["hidden"][50:60])
    np.testing.assert_array_equal(again["block4_pool"], found["block4_pool"][50:60])


def test_augmentation_can_be_switched_off():
    network = create().clone(least_share=1.0, most_hidden=0.0)
    keys = jax.random.split(jax.random.key(0), 3)
    x = lower_of(network, padded(drawn((64, 160, 400)), 400))
    found = network.augment(x, keys)
    assert found["widths"].tolist() == [64, 160, 192]
    start, end, bottom, top = found["hidden"].T
    assert (start == end).all()
    assert (bottom == top).all()
    for name in ("block3_pool", "block4_pool"):
        whole = x[name].shape[2] * 160 // 400
        np.testing.assert_array_equal(found[name][1, :, :whole], x[name][1, :, :whole])


def test_no_map_is_hidden_whole():
    hidden = jnp.asarray([[0.0, 1.0, 0.0, 0.6], [0.0, 0.4, 0.0, 1.0]])
    seen = timeline.seen_positions((2, 4, 6, 1), jnp.asarray([5, 5]), hidden)
    np.testing.assert_array_equal(seen[0].any(1), [False, False, True, True])
    np.testing.assert_array_equal(seen[0].any(0), [True] * 5 + [False])
    np.testing.assert_array_equal(seen[1].all(0), [False, False, True, True, True, False])


def test_mixed_rows_last_as_long_as_both():
    network, names = create(), ("block3_pool", "block4_pool")
    x, others = (
        network.augment(lower_of(network, padded(drawn(seed=seed), 160)), keys)
        for seed, keys in enumerate(jax.random.split(jax.random.key(0), (2, 3)))
    )
    share = jnp.asarray([1.0, 0.0, 0.25])
    mixed = network.mix(x, others, share)
    np.testing.assert_array_equal(mixed["widths"], np.minimum(x["widths"], others["widths"]))
    np.testing.assert_array_equal(mixed["hidden"], x["hidden"])
    for name in names:
        np.testing.assert_array_equal(mixed[name][0], x[name][0])
        np.testing.assert_array_equal(mixed[name][1], others[name][1])
        wanted = 0.25 * x[name][2] + 0.75 * others[name][2]
        np.testing.assert_allclose(mixed[name][2], wanted, rtol=1e-6)


def test_what_is_hidden_does_not_count():
    network = create(gate=False)
    x = lower_of(network, padded(drawn((160,)), 160))
    apply = functools.partial(compiled(network, "upper"), variables(network), mask=jnp.ones(1))
    seen = apply(x | {"hidden": jnp.asarray([[0.0, 0.3, 0.0, 0.0]])})
    changed = dict(x)
    for name, hidden in (("block3_pool", 6), ("block4_pool", 3)):
        changed[name] = x[name].at[:, :, :hidden].set(100)
    other = apply(changed | {"hidden": jnp.asarray([[0.0, 0.3, 0.0, 0.0]])})
    np.testing.assert_array_equal(seen.logits, other.logits)
    assert np.abs(np.asarray(seen.logits - apply(x).logits)).max() > 1e-4


def test_rows_with_a_scaling_of_their_own_are_standardised_by_it():
    """As a network is whose variables are theirs; padding, crops and masks change nothing of it."""
    network, made, rng = create(), variables(create()), np.random.default_rng(2)
    apply = jax.jit(lambda variables, x: network.apply(variables, x, jnp.ones(1)))
    lower = lower_of(network, padded(drawn(), 250))
    own = {
        f"standardise_{name}": {
            "mean": rng.random((3, lower[name].shape[-1])).astype(np.float32),
            "deviation": 0.5 + rng.random((3, lower[name].shape[-1])).astype(np.float32),
        }
        for name in HEADS
    }
    pictures = {"pictures": jnp.asarray(padded(drawn(), 250)), **own}
    together = jax.jit(network.apply)(made, pictures, jnp.ones(3))
    keys = jax.random.split(jax.random.key(0), 3)
    cropped = jax.jit(network.augment)({**lower, **own}, keys)
    for name, scaling in own.items():
        jax.tree.map(np.testing.assert_array_equal, cropped[name], scaling)
    for row, picture in enumerate(drawn()[:2]):
        of_row = jax.tree.map(lambda x, row=row: x[row], own)
        theirs = {**made, "batch_stats": {**made["batch_stats"], **of_row}}
        alone = apply(theirs, picture[None])
        np.testing.assert_allclose(together.logits[row], alone.logits[0], rtol=1e-4, atol=1e-5)
        usual = apply(made, picture[None])
        assert np.abs(np.asarray(usual.logits - alone.logits)).max() > 1e-3


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"model.heads": ()}, "model.heads"),
        ({"model.heads": ("block4_pool", "block3_pool")}, "model.heads"),
        ({"model.heads": ("fc2",)}, "model.heads"),
        ({"model.loss_weights": (1.0,)}, "model.loss_weights"),
        ({"model.dropout": 1.0}, "model.dropout"),
        ({"model.freeze": "block5"}, "model.freeze"),
        ({"model.freeze": "block9"}, "model.freeze"),
        ({"adapt": "speaker", "model.freeze": "block3"}, "model.freeze"),  # a head is trained below
    ],
)
def test_impossible_fields_are_named(changes, field):
    config, _ = tiny.make("ds_am_statistics")
    config.adapt = changes.get("adapt", "none")
    systems.check(config)
    config.update_from_flattened_dict(changes)
    assert refused_field(systems.check, config) == field


def test_each_system_has_its_layout():
    for system, layout in (("ds_am_statistics", "plain"), ("ds_am", "timeline")):
        config, _ = tiny.make(system)
        config.picture.canvas, config.picture.size = 227, 224
        config.picture.layout = layout
        assert refused_field(systems.check, config) == "picture.layout"
