"""How heads are merged, what freezing leaves out, dropout, and what a config must not say."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from ds_jax.data.corpus import LABELS
from ds_jax.features.spectrogram import PictureSettings
from ds_jax.models import deep_spectrum, vgg16
from ds_jax.models.create import abstract_variables

pytestmark = pytest.mark.usefixtures("narrow")

PICTURE = PictureSettings(canvas=48, size=64)
DS_AM = tiny.config().model.to_dict()
DS_FC = tiny.config("ds_fc").model.to_dict()
TARGETS = jnp.asarray([0, 3, 6, 1], jnp.int32)


@pytest.fixture(scope="module")
def pictures():
    return jnp.asarray(tiny.corpus(4).inputs)


def create(system="ds_am", picture=PICTURE, **changes):
    return deep_spectrum.create(system, (DS_AM if system == "ds_am" else DS_FC) | changes, picture)


def fill(network):
    """Random variables of a network, without compiling their initialisation."""
    rng = np.random.default_rng(0)
    shapes = abstract_variables(network)
    variables = jax.tree.map(
        lambda leaf: jnp.asarray(rng.uniform(0.1, 0.3, leaf.shape), leaf.dtype), shapes
    )
    trunk = tiny.pretrained()
    variables["params"]["vgg16"] = {name: trunk[name] for name in variables["params"]["vgg16"]}
    for name, layer in variables["params"]["head"].items():
        if name.endswith("logits"):
            layer["kernel"] = jnp.asarray(rng.normal(size=layer["kernel"].shape), jnp.float32)
    return variables


def run(network, variables, pictures, train=False):
    out = network.apply(variables, pictures, jnp.ones(4), train, mutable=["batch_stats"])
    return out[0]


def cross_entropy(logits):
    logits = np.asarray(logits, np.float64)
    rows = np.arange(len(logits))
    return np.log(np.exp(logits).sum(axis=1)) - logits[rows, np.asarray(TARGETS)]


def test_multi_loss_predicts_by_the_mean_of_its_heads(pictures):
    network = create()
    outputs = run(network, fill(network), pictures)
    lower, upper = outputs.head_logits["block4_pool"], outputs.head_logits["block5_pool"]
    assert outputs.logits.shape == (4, len(LABELS))
    assert not np.allclose(lower, upper, atol=0.01)
    np.testing.assert_allclose(outputs.logits, (lower + upper) / 2, rtol=1e-5)
    wanted = cross_entropy(lower) + 0.8 * cross_entropy(upper)
    np.testing.assert_allclose(outputs.losses(TARGETS), wanted, rtol=1e-4)
    assert {name: gate.shape for name, gate in outputs.gates.items()} == {
        "block4_pool": (4, 4, 4),
        "block5_pool": (4, 2, 2),
    }


def test_loss_weights_are_the_configs(pictures):
    network = create(loss_weights=(0.25, 2.0))
    outputs = run(network, fill(network), pictures)
    lower, upper = outputs.head_logits.values()
    wanted = 0.25 * cross_entropy(lower) + 2 * cross_entropy(upper)
    np.testing.assert_allclose(outputs.losses(TARGETS), wanted, rtol=1e-4)


def test_early_fusion_classifies_all_features_together(pictures):
    network = create(merging="early_fusion")
    variables = fill(network)
    outputs = run(network, variables, pictures)
    assert variables["params"]["head"]["fusion"]["kernel"].shape == (16 + 16, 256)
    mean = sum(outputs.head_logits.values()) / 2
    assert not np.allclose(outputs.logits, mean, atol=0.01)
    lower, upper = outputs.head_logits.values()
    wanted = cross_entropy(outputs.logits) + cross_entropy(lower) + 0.8 * cross_entropy(upper)
    np.testing.assert_allclose(outputs.losses(TARGETS), wanted, rtol=1e-4)


@pytest.mark.parametrize("merging", ["multi_loss", "early_fusion"])
def test_onlooking_heads_send_no_gradient_into_the_features(pictures, merging):
    """Under early fusion the heads' terms of the loss train the heads' classifiers only."""
    network = create(merging=merging, freeze="block3")
    variables = fill(network)
    x = network.apply(variables, pictures, method="lower")

    def head_terms(params):
        together = {**variables, "params": params}
        outputs, _ = network.apply(
            together, x, jnp.ones(4), True, method="upper", mutable=["batch_stats"]
        )
        terms = [term for term in outputs.loss_terms if term[1] is not outputs.logits]
        return jnp.sum(outputs.replace(loss_terms=tuple(terms)).losses(TARGETS))

    gradients = jax.grad(head_terms)(variables["params"])
    below = [gradients["vgg16"]["block4_conv1"], gradients["vgg16"]["block5_conv3"]]
    below += [layer for name, layer in gradients["head"].items() if "attention" in name]
    reached = [np.any(leaf) for leaf in jax.tree.leaves(below)]
    assert not any(reached) if merging == "early_fusion" else all(reached)
    for name in ("block4_pool_logits", "block5_pool_logits"):
        assert np.any(gradients["head"][name]["kernel"])


@pytest.mark.parametrize("freeze", ["", "block1", "block4"])
def test_lower_and_upper_make_the_whole(pictures, freeze):
    network = create(freeze=freeze)
    variables = fill(network)
    x = network.apply(variables, pictures, method="lower")
    split = network.apply(variables, x, jnp.ones(4), method="upper")
    whole = network.apply(variables, pictures, jnp.ones(4))
    jax.tree.map(np.testing.assert_array_equal, split, whole)
    unfrozen = create().apply(variables, pictures, jnp.ones(4))
    np.testing.assert_allclose(whole.logits, unfrozen.logits, rtol=1e-5)


def test_frozen_layers_are_named_and_get_no_gradient(pictures):
    network = create(freeze="block4")
    variables = fill(network)
    frozen = network.frozen_layers("vgg16")
    assert frozen == {name for name in tiny.pretrained() if name[:6] in ("block1", "block2")} | {
        f"block{block}_conv{index}" for block in (3, 4) for index in (1, 2, 3)
    }
    x = network.apply(variables, pictures, method="lower")

    def loss(params):
        together = {**variables, "params": params}
        return jnp.sum(network.apply(together, x, jnp.ones(4), method="upper").losses(TARGETS))

    for name, layer in jax.grad(loss)(variables["params"])["vgg16"].items():
        assert np.any(layer["kernel"]) == (name not in frozen), name


def test_layers_above_the_highest_gate_are_cut_off():
    network = create(gates=("block3_pool", "block4_pool"))
    layers = abstract_variables(network)["params"]["vgg16"]
    assert "block4_conv3" in layers
    assert not any(name.startswith("block5") for name in layers)


@pytest.mark.parametrize("freeze", ["", "block5"])
def test_gap_classifies_the_mean_over_positions(pictures, freeze):
    network = create("ds_fc", freeze=freeze)
    variables = fill(network)
    dense = jax.tree.map(np.asarray, variables["params"]["head"]["classifier"])
    top = vgg16.VGG16().apply(
        {"params": variables["params"]["vgg16"]},
        create().apply(fill(create()), pictures, method="lower"),
    )["block5_pool"]
    wanted = np.asarray(top).mean(axis=(1, 2)) @ dense["kernel"] + dense["bias"]
    outputs = run(network, variables, pictures, train=True)
    np.testing.assert_allclose(outputs.logits, wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(outputs.losses(TARGETS), cross_entropy(wanted), rtol=1e-3)
    assert outputs.gates == outputs.head_logits == {}


@pytest.fixture(scope="module")
def head(narrow):
    """A head of kind `fc` on a block5_pool of 2 x 2, with its variables and six rows."""
    rng = np.random.default_rng(1)
    head = deep_spectrum.FullyConnectedHead("fc", 0.5)
    pools = {"block5_pool": jnp.asarray(rng.uniform(size=(6, 2, 2, 16)), jnp.float32)}
    variables = jax.jit(head.init, static_argnums=3)(
        jax.random.key(0), pools, jnp.ones(6), False, None
    )
    return head, variables, pools


def keys(count):
    return jax.random.split(jax.random.key(5), count)


def test_fc_is_fc1_and_fc2_and_seven_classes(head):
    head, variables, pools = head
    p = jax.tree.map(np.asarray, variables["params"])
    x = np.asarray(pools["block5_pool"]).reshape(6, -1)
    for name in ("fc1", "fc2"):
        layer = p["fully_connected"][name]
        x = np.maximum(x @ layer["kernel"] + layer["bias"], 0)
    wanted = x @ p["classifier"]["kernel"] + p["classifier"]["bias"]
    out = head.apply(variables, pools, jnp.ones(6), False, keys(6))  # evaluation drops nothing
    np.testing.assert_allclose(out.logits, wanted, rtol=1e-4, atol=1e-5)
    none = deep_spectrum.FullyConnectedHead("fc", 0.0).apply(
        variables, pools, jnp.ones(6), True, keys(6)
    )
    np.testing.assert_allclose(none.logits, wanted, rtol=1e-4, atol=1e-5)
    dropped = head.apply(variables, pools, jnp.ones(6), True, keys(6))
    assert not np.allclose(dropped.logits, wanted, rtol=0.01)


def test_dropout_follows_the_rows_keys_however_they_are_batched(head):
    head, variables, pools = head
    rngs = keys(6)

    def logits(rows):
        part = {"block5_pool": pools["block5_pool"][rows]}
        return head.apply(variables, part, jnp.ones(len(rows)), True, rngs[rows]).logits

    whole = logits(np.arange(6))
    parts = np.concatenate([logits(np.arange(2)), logits(np.arange(2, 6))])
    np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-6)


def test_bfloat16_networks_give_float32_logits(pictures):
    network = deep_spectrum.create(
        "ds_am", DS_AM | {"freeze": "block3"}, PICTURE, dtype=jnp.bfloat16
    )
    variables = fill(network)
    assert network.apply(variables, pictures, method="lower").dtype == jnp.bfloat16
    half = run(network, variables, pictures)
    whole = run(create(freeze="block3"), variables, pictures)
    assert half.logits.dtype == half.gates["block4_pool"].dtype == jnp.float32
    assert half.losses(TARGETS).dtype == jnp.float32
    error = float(jnp.abs(half.logits - whole.logits).max())
    assert 0 < error < 0.1 * float(jnp.abs(whole.logits).max())


def test_outputs_are_scored_by_optax_cross_entropy():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(4, 7)), jnp.float32)
    outputs = deep_spectrum.Outputs(logits, {}, {}, ((2.0, logits),))
    wanted = 2 * optax.losses.softmax_cross_entropy(logits, jax.nn.one_hot(TARGETS, 7))
    np.testing.assert_allclose(outputs.losses(TARGETS), wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("system", "changes", "message"),
    [
        ("ds_cnn", {}, "system='ds_cnn' is not one of 'ds_am', 'ds_fc'"),
        ("ds_am", {"freeze": "block6"}, "model.freeze='block6' is not one of '', 'block1'"),
        ("ds_am", {"gates": ("block4",)}, "model.gates='block4' is not one of 'block1_pool'"),
        ("ds_am", {"gates": ()}, r"model.gates=\(\) must name"),
        ("ds_am", {"gates": ("block5_pool", "block4_pool")}, "lower ones first"),
        ("ds_am", {"gates": ("block4_pool", "block4_pool")}, "once each"),
        ("ds_am", {"freeze": "block5"}, "model.freeze='block5' lies above .* block4_pool"),
        ("ds_am", {"merging": "late"}, "model.merging='late' is not one of 'multi_loss'"),
        ("ds_am", {"loss_weights": (1.0,)}, r"model.loss_weights=\(1.0,\) needs .* 2 gates"),
        ("ds_fc", {"head": "mlp"}, "model.head='mlp' is not one of 'fc', 'gap'"),
        ("ds_fc", {"dropout": 1.0}, "model.dropout=1.0 must"),
        ("ds_fc", {"dropout": -0.1}, "model.dropout=-0.1 must"),
        ("ds_fc", {"head": "fc"}, "model.head='fc' needs picture.size=224, not 64"),
        ("ds_fc", {"freeze": "block9"}, "model.freeze='block9'"),
    ],
)
def test_impossible_fields_are_named(system, changes, message):
    with pytest.raises(ValueError, match=message):
        create(system, **changes)


def test_an_unknown_colour_map_is_named():
    with pytest.raises(ValueError, match=r"picture\.colour_map='virdis'"):
        create(picture=PictureSettings(colour_map="virdis"))


def test_fc_at_full_size_is_allowed():
    assert create("ds_fc", PictureSettings(), head="fc").head.kind == "fc"


@pytest.mark.parametrize(("system", "needed"), [("ds_am", "gates"), ("ds_fc", "head")])
def test_a_system_with_the_fields_of_the_other_is_refused(system, needed):
    config = tiny.config("ds_fc" if system == "ds_am" else "ds_am")
    with pytest.raises(ValueError, match=needed):
        deep_spectrum.create(system, config.model, PictureSettings())
