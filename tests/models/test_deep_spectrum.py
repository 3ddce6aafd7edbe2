"""How heads are merged, what freezing leaves out, and dropout."""

import dataclasses
import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from ds_jax.data.labels import LABELS
from ds_jax.models.backbones import BACKBONES
from ds_jax.models.create import abstract_variables, create_network
from ds_jax.models.deep_spectrum import FullyConnectedHead
from ds_jax.models.vgg16_layers import Trunk

BACKBONE = tiny.NARROW
TARGETS = jnp.asarray([0, 3, 6, 1], jnp.int32)


@pytest.fixture(scope="module")
def pictures():
    return jnp.asarray(tiny.corpus(4).inputs)


def create(system="ds_am", backbone=BACKBONE, dtype=jnp.float32, **changes):
    config = tiny.config(system)
    config.model.update(changes)
    with mock.patch.dict(BACKBONES, vgg16=backbone):
        return create_network(config, dtype=dtype)


def fill(network):
    """Random variables of a network, without compiling their initialisation."""
    rng = np.random.default_rng(0)
    shapes = abstract_variables(network)
    variables = jax.tree.map(
        lambda leaf: jnp.asarray(rng.uniform(0.02, 0.1, leaf.shape), leaf.dtype), shapes
    )
    trunk = tiny.pretrained()
    variables["params"]["vgg16"] = {name: trunk[name] for name in variables["params"]["vgg16"]}
    for name, layer in variables["params"]["head"].items():
        if name.endswith("logits"):
            layer["kernel"] = jnp.asarray(rng.normal(size=layer["kernel"].shape), jnp.float32)
    return variables


@functools.partial(jax.jit, static_argnums=(0, 3))
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
        terms = outputs.loss_terms[merging == "early_fusion" :]  # the first is of all together
        return jnp.sum(outputs.replace(loss_terms=terms).losses(TARGETS))

    gradients = jax.jit(jax.grad(head_terms))(variables["params"])
    below = [gradients["vgg16"]["block4_conv1"], gradients["vgg16"]["block5_conv1"]]
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
    split = jax.jit(lambda x: network.apply(variables, x, jnp.ones(4), method="upper"))(x)
    whole = run(network, variables, pictures)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), split, whole)


def test_frozen_layers_are_named_and_get_no_gradient(pictures):
    network = create(freeze="block4")
    variables = fill(network)
    frozen = network.frozen_layers("vgg16")
    assert frozen == {f"block{block}_conv1" for block in range(1, 5)}
    assert network.frozen_layers("head") == set()
    x = network.apply(variables, pictures, method="lower")

    def loss(params):
        together = {**variables, "params": params}
        return jnp.sum(network.apply(together, x, jnp.ones(4), method="upper").losses(TARGETS))

    for name, layer in jax.jit(jax.grad(loss))(variables["params"])["vgg16"].items():
        assert np.any(layer["kernel"]) == (name not in frozen), name


def test_layers_above_the_highest_gate_are_cut_off():
    network = create(gates=("block3_pool", "block4_pool"))
    assert list(abstract_variables(network)["params"]["vgg16"]) == [
        f"block{block}_conv1" for block in range(1, 5)
    ]


@pytest.mark.parametrize("freeze", ["", "block5"])
def test_gap_classifies_the_mean_over_positions(pictures, freeze):
    network = create("ds_fc", freeze=freeze)
    variables = fill(network)
    dense = jax.tree.map(np.asarray, variables["params"]["head"]["classifier"])
    x = create().apply({}, pictures, method="lower")
    trunk = jax.jit(Trunk(BACKBONE.blocks).apply)
    top = trunk({"params": variables["params"]["vgg16"]}, x)["block5_pool"]
    wanted = np.asarray(top).mean(axis=(1, 2)) @ dense["kernel"] + dense["bias"]
    outputs = run(network, variables, pictures, train=True)
    np.testing.assert_allclose(outputs.logits, wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(outputs.losses(TARGETS), cross_entropy(wanted), rtol=1e-3)
    assert outputs.gates == outputs.head_logits == {}


@pytest.fixture(scope="module")
def head():
    """A head of kind `fc` on a block5_pool of 2 x 2, with its variables and six rows."""
    rng = np.random.default_rng(1)
    head = FullyConnectedHead(BACKBONE, "fc", 0.5, 7)
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
    none = FullyConnectedHead(BACKBONE, "fc", 0.0, 7).apply(
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
    network = create(freeze="block3", dtype=jnp.bfloat16)
    variables = fill(network)
    assert network.apply(variables, pictures, method="lower").dtype == jnp.bfloat16
    half = run(network, variables, pictures)
    whole = run(create(freeze="block3"), variables, pictures)
    assert half.logits.dtype == half.gates["block4_pool"].dtype == jnp.float32
    assert half.losses(TARGETS).dtype == jnp.float32
    error = float(jnp.abs(half.logits - whole.logits).max())
    assert 0 < error < 0.1 * float(jnp.abs(whole.logits).max())


def test_fc_at_full_size_is_allowed_and_ported():
    network = create("ds_fc", head="fc")
    assert network.head.kind == "fc"
    ported = network.port(tiny.pretrained())
    assert ported["head"]["fully_connected"].keys() == {"fc1", "fc2"}
    assert {*ported["vgg16"]} == {f"block{block}_conv1" for block in range(1, 6)}


def test_a_backbone_of_another_name_has_a_module_of_that_name():
    """As a second backbone would have: trees of parameters name the one that they are of."""
    other = dataclasses.replace(BACKBONE, name="other")
    network = create(backbone=other, freeze="block1")
    assert abstract_variables(network)["params"].keys() == {"other", "head"}
    assert network.port(tiny.pretrained()).keys() == {"other"}
    assert network.frozen_layers("other") == {"block1_conv1"}
