"""VGG16 in Flax against VGG16 in Keras, layer by layer, and its shapes and counts."""

import math

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
import tiny

from ds_jax.models.vgg16 import UNITS, VGG16
from ds_jax.models.vgg16_layers import FullyConnected, Trunk

POOLS = list(VGG16.outputs)


@pytest.fixture(scope="module")
def model():
    return keras.applications.VGG16(include_top=False, weights=None, input_shape=(64, 64, 3))


@pytest.fixture(scope="module")
def params(model):
    return tiny.he_scaled(model.layers)


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(1).normal(size=(2, 64, 64, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def pooled(params, pictures):
    return jax.jit(Trunk(VGG16.blocks).apply)({"params": params}, pictures)


def test_each_block_equals_keras(model, pooled, pictures):
    outputs = [model.get_layer(name).output for name in POOLS]
    wanted = keras.Model(model.input, outputs)(pictures)
    assert list(pooled) == POOLS
    for name, reference in zip(POOLS, wanted, strict=True):
        reference = np.asarray(reference)
        assert reference.std() > 0.1  # the signal did not die on the way
        np.testing.assert_allclose(
            pooled[name], reference, rtol=1e-4, atol=1e-4 * reference.std(), err_msg=name
        )


def test_keras_names_and_shapes_the_parameters_alike(params):
    variables = jax.eval_shape(
        Trunk(VGG16.blocks).init, jax.random.key(0), jnp.zeros((1, 32, 32, 3))
    )
    ours = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), variables["params"])
    assert ours == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), params)


@pytest.mark.parametrize("cut", [2, 4])
def test_running_in_two_parts_equals_running_at_once(params, pictures, pooled, cut):
    below = Trunk(VGG16.blocks).apply({"params": params}, pictures, last=cut)
    x = below[f"block{cut}_pool"]
    above = Trunk(VGG16.blocks).apply({"params": params}, x, first=cut + 1)
    assert list(below) == POOLS[:cut]
    assert list(above) == POOLS[cut - 1 :]
    np.testing.assert_array_equal(above[f"block{cut}_pool"], x)
    np.testing.assert_allclose(above["block5_pool"], pooled["block5_pool"], rtol=1e-5, atol=1e-5)


def test_odd_sides_are_halved_downwards(params):
    x = jnp.zeros((1, 227, 35, 3))
    shapes = jax.eval_shape(Trunk(VGG16.blocks).apply, {"params": params}, x)
    assert [shapes[name].shape for name in POOLS] == [
        (1, 113, 17, 64),
        (1, 56, 8, 128),
        (1, 28, 4, 256),
        (1, 14, 2, 512),
        (1, 7, 1, 512),
    ]


def test_bfloat16_computes_in_bfloat16_on_float32_parameters(params, pictures, pooled):
    trunk = Trunk(VGG16.blocks, jnp.bfloat16)
    variables = jax.eval_shape(trunk.init, jax.random.key(0), pictures)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    out = trunk.apply({"params": params}, pictures, last=2)["block2_pool"]
    assert out.dtype == jnp.bfloat16
    reference = np.asarray(pooled["block2_pool"])
    difference = np.abs(np.asarray(out, np.float32) - reference).max()
    assert 0 < difference < 0.05 * reference.max()


@pytest.mark.parametrize(("first", "last"), [(0, 5), (1, 6), (3, 2)])
def test_blocks_that_are_not_there_are_refused(pictures, first, last):
    with pytest.raises(ValueError, match=f"blocks 1 to 5, not {first} to {last}"):
        Trunk(VGG16.blocks).apply({"params": {}}, pictures, first, last)


def test_pictures_too_small_are_refused():
    with pytest.raises(ValueError, match="at least 32 x 32, not 40 x 31"):
        Trunk(VGG16.blocks).apply({"params": {}}, jnp.zeros((1, 40, 31, 3)))


def test_fully_connected_layers_equal_keras():
    """The input is not square, so that its flattening matters."""
    model = keras.Sequential(
        [
            keras.layers.Input((2, 3, 5)),
            keras.layers.Flatten(),
            keras.layers.Dense(4096, activation="relu", name="fc1"),
            keras.layers.Dense(4096, activation="relu", name="fc2"),
        ]
    )
    params = tiny.he_scaled(model.layers)
    x = np.random.default_rng(2).normal(size=(4, 2, 3, 5)).astype(np.float32)
    out = FullyConnected(UNITS).apply({"params": params}, x)
    assert out.shape == (4, 4096)
    with jax.numpy_rank_promotion("allow"):  # Keras adds a bias of rank 1
        reference = np.asarray(model(x))
    np.testing.assert_allclose(out, reference, rtol=1e-4, atol=1e-5)


def test_fully_connected_layers_count_as_published():
    shapes = VGG16.shapes(full=True)
    counts = {name: sum(map(math.prod, shapes[name].values())) for name in VGG16.top_layers}
    assert counts == {"fc1": 102_764_544, "fc2": 16_781_312}
