"""Convolution and pooling, as each kind of device computes them, against XLA's own."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from ds_jax.models import pairs, winograd
from ds_jax.models.backbones import BACKBONES
from ds_jax.models.create import create_network
from ds_jax.training import step as train_state
from ds_jax.training.parallel import ONE_MODEL

# Batch, height, width, channels in and out. TILES_AT_ONCE is 256.
SHAPES = [
    (2, 4, 4, 32, 32),
    (1, 20, 20, 32, 32),  # a single map
    (2, 5, 7, 33, 40),
    (2, 4, 37, 64, 32),
    (3, 16, 16, 32, 64),
    (19, 16, 16, 32, 32),  # 304 tiles: two pieces of ten maps, one of them zeros
    (2, 68, 66, 32, 32),  # 289 tiles a map: two pieces of nine rows, where seventeen are needed
]
PLAIN_SHAPES = [
    (1, 1, 1, 32, 32),
    (2, 3, 9, 32, 32),  # less than a tile high
    (1, 2, 2, 3, 4),
    (2, 20, 12, 3, 64),
    (2, 8, 8, 64, 7),
]
LEAST_TILES = winograd.LEAST_TILES


@pytest.fixture(autouse=True)
def _few_tiles(monkeypatch):
    """Winograd's convolutions of maps that are too small to gain by them."""
    monkeypatch.setattr(winograd, "LEAST_TILES", 1)


def draw(shape, seed=0):
    """An input with a constant and a silent area, a kernel, a bias and a gradient."""
    batch, height, width, channels, out = shape
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(batch, height, width, channels)).astype(np.float32)
    x[:, : height // 2, : width // 3] = 0
    x[:, height // 2 :, : width // 3] = 0.7
    kernel = rng.normal(0, np.sqrt(2 / (9 * channels)), (3, 3, channels, out)).astype(np.float32)
    bias = rng.normal(0, 0.5, out).astype(np.float32)
    gradient = rng.normal(size=(batch, height, width, out)).astype(np.float32)
    return x, kernel, bias, gradient


def plain(x, kernel, bias):
    layout = ("NHWC", "HWIO", "NHWC")
    x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)
    return x + bias[None, None, None]


def assert_close(value, reference, tolerance=5e-5):
    """Checks a difference as a share of the largest value."""
    reference = np.asarray(reference)
    assert value.shape == reference.shape
    largest = np.abs(reference).max()
    assert largest > 0
    np.testing.assert_allclose(value, reference, rtol=0, atol=tolerance * largest)


@pytest.mark.parametrize("shape", SHAPES + PLAIN_SHAPES)
def test_a_convolution_and_its_gradients_equal_the_plain_ones(shape):
    x, kernel, bias, gradient = draw(shape)
    before = plain(x, kernel, bias)
    # Rounding may move a value over zero, where the ReLU's gradient jumps.
    gradient = jnp.where(jnp.abs(before) > 1e-3, gradient, 0)
    wanted, wanted_pull = jax.vjp(lambda *args: nn.relu(plain(*args)), x, kernel, bias)
    value, pull = jax.vjp(jax.jit(winograd.relu_convolution), x, kernel, bias)
    assert_close(value, wanted)
    for ours, reference in zip(pull(gradient), wanted_pull(gradient), strict=True):
        assert_close(ours, reference)


def program(shape, platform, dtype=jnp.float32):
    """What a convolution and its gradients are lowered to."""
    x, kernel, bias, gradient = (jnp.asarray(value, dtype) for value in draw(shape))

    def step(x, kernel, bias, gradient):
        value, pull = jax.vjp(winograd.relu_convolution, x, kernel, bias)
        return value, pull(gradient)

    return jax.jit(step).trace(x, kernel, bias, gradient).lower(lowering_platforms=(platform,))


@pytest.mark.parametrize("platform", ["cuda", "rocm", "tpu"])
def test_accelerators_keep_the_plain_operation(platform):
    text = program(SHAPES[0], platform).as_text()
    assert text.count("stablehlo.convolution") == 3  # itself and two gradients
    assert "stablehlo.dot_general" not in text
    assert "stablehlo.while" not in text


def test_the_cpu_multiplies_matrices():
    text = program(SHAPES[0], "cpu").as_text()
    assert "stablehlo.convolution" not in text
    assert text.count("stablehlo.dot_general") >= 3


@pytest.mark.parametrize("shape", PLAIN_SHAPES)
def test_the_cpu_keeps_the_plain_operation_for_small_maps_and_few_channels(shape):
    text = program(shape, "cpu").as_text()
    assert text.count("stablehlo.convolution") == 3


@pytest.mark.parametrize("missing", [0, 1])
def test_the_cpu_keeps_the_plain_operation_for_few_tiles(monkeypatch, missing):
    monkeypatch.setattr(winograd, "LEAST_TILES", LEAST_TILES)
    text = program((LEAST_TILES - missing, 4, 4, 32, 32), "cpu").as_text()
    assert text.count("stablehlo.convolution") == 3 * missing


def test_the_cpu_keeps_the_plain_operation_for_bfloat16():
    text = program(SHAPES[0], "cpu", jnp.bfloat16).as_text()
    assert text.count("stablehlo.convolution") == 3


def test_no_gradient_is_computed_for_an_input_that_needs_none():
    """As block1_conv1's picture, and what frozen blocks have computed."""
    arguments = draw(SHAPES[0])[:3]

    def products(*of):
        loss = jax.grad(lambda *args: jnp.sum(winograd.relu_convolution(*args)), of)
        return jax.jit(loss).lower(*arguments).compile().as_text().count(" dot(")

    assert products(1, 2) < products(0, 1, 2)


def test_a_loop_gives_what_single_steps_give():
    x, kernel, bias, _ = draw((2, 12, 12, 32, 32))

    def step(x, _):
        return winograd.relu_convolution(x, kernel, bias), None

    looped = jax.jit(lambda x: jax.lax.scan(step, x, length=3)[0])(x)
    wanted = x
    for _ in range(3):
        wanted = nn.relu(plain(wanted, kernel, bias))
    assert_close(looped, wanted)


def pictures(kind, height, width):
    rng = np.random.default_rng(0)
    shape = (2, height, width, 3)
    if kind == "noise":
        return rng.normal(size=shape).astype(np.float32)
    if kind == "ties":
        return rng.integers(0, 3, shape).astype(np.float32)
    return np.full(shape, {"silence": 0.0, "constant": 1.5}[kind], np.float32)


@pytest.mark.parametrize("kind", ["noise", "ties", "silence", "constant"])
@pytest.mark.parametrize(("height", "width"), [(2, 2), (8, 6), (3, 5), (7, 4), (2, 9)])
def test_a_pool_and_its_gradient_equal_the_plain_ones(kind, height, width):
    x = pictures(kind, height, width)
    wanted, wanted_pull = jax.vjp(lambda x: nn.max_pool(x, (2, 2), strides=(2, 2)), x)
    gradient = np.random.default_rng(1).normal(size=wanted.shape).astype(np.float32)
    value, pull = jax.vjp(jax.jit(winograd.max_pool), x)
    np.testing.assert_array_equal(value, wanted)
    np.testing.assert_array_equal(pull(gradient)[0], wanted_pull(gradient)[0])


@pytest.mark.parametrize(("platform", "there"), [("cpu", False), ("cuda", False), ("tpu", True)])
def test_tpus_keep_the_plain_pool(platform, there):
    x = pictures("noise", 8, 8)
    step = jax.jit(jax.value_and_grad(lambda x: jnp.sum(winograd.max_pool(x))))
    text = step.trace(x).lower(lowering_platforms=(platform,)).as_text()
    assert ("stablehlo.reduce_window" in text) == there
    assert ("stablehlo.select_and_scatter" in text) == there


def pooled(function, shape, dtype=jnp.float32):
    """A pooled convolution and its gradients; a last row or column without a partner is left."""
    x, kernel, bias, gradient = (jnp.asarray(value, dtype) for value in draw(shape))

    def step(x, kernel, bias, gradient):
        value, pull = jax.vjp(function, x, kernel, bias)
        return value, *pull(gradient[:, : value.shape[1], : value.shape[2]])

    return jax.device_get(jax.jit(step)(x, kernel, bias, gradient))


def one_by_one(x, kernel, bias):
    return winograd.max_pool(winograd.relu_convolution(x, kernel, bias))


@pytest.mark.parametrize("shape", [(2, 5, 7, 33, 40), (2, 8, 8, 64, 7)])
def test_the_cpu_pools_what_it_has_convolved(shape):
    found, wanted = (pooled(each, shape) for each in (winograd.pooled_relu_convolution, one_by_one))
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("shape", [(2, 5, 7, 33, 40), (2, 8, 8, 64, 7)])
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_bias_and_relu_may_follow_the_maxima(monkeypatch, platform, shape, dtype):
    def reference(x, kernel, bias):
        return nn.max_pool(nn.relu(plain(x, kernel, bias)), (2, 2), strides=(2, 2))

    reference = pooled(reference, shape, dtype)
    tiny.compute_as_on(platform, monkeypatch)
    found = pooled(winograd.pooled_relu_convolution, shape, dtype)
    # In bfloat16 the sum with the bias makes ties, of which another may receive the gradient.
    tolerance = 1e-5 if dtype == jnp.float32 else 0.05
    for ours, wanted in zip(found, reference, strict=True):
        wanted = np.asarray(wanted, np.float32)
        difference = np.linalg.norm(np.asarray(ours, np.float32) - wanted)
        assert difference <= tolerance * np.linalg.norm(wanted)


@pytest.mark.parametrize("channels", [(3, 40), (32, 40), (33, 65), (65, 40)])
@pytest.mark.parametrize("function", ["relu_convolution", "pooled_relu_convolution"])
@pytest.mark.parametrize("at_once", [3, pairs.PICTURES_AT_ONCE])
def test_two_narrow_pictures_may_be_one(monkeypatch, at_once, function, channels):
    """On TPUs, whose lanes they fill; if one fills them itself a few of a batch are apart."""
    function, shape = getattr(winograd, function), (10, 6, 8, *channels)
    monkeypatch.setattr(pairs, "MAPS_AT_ONCE", 2)  # of the five in each half
    monkeypatch.setattr(pairs, "PICTURES_AT_ONCE", at_once)
    tiny.compute_as_on("tpu", monkeypatch)
    wanted = pooled(function, shape)
    found = pooled(functools.partial(pairs.by_pairs, function), shape)
    jax.tree.map(assert_close, found, wanted)


def test_both_halves_of_a_large_batch_are_read_in_as_many_parts():
    for count, sizes in ((256, [256]), (257, [257]), (258, 2 * [65, 64]), (300, 4 * [75])):
        parts = pairs.parts_of_pictures(jnp.arange(count))
        assert [len(part) for part in parts] == sizes
        assert jnp.concatenate(parts).tolist() == [*range(count)]


@pytest.mark.parametrize(
    ("batch", "channels", "platform", "there"),
    [(2, 64, "tpu", True), (3, 64, "tpu", False), (2, 65, "tpu", False), (2, 64, "cuda", False)],
)
def test_pictures_are_joined_where_they_pair_up_and_have_few_channels(
    batch, channels, platform, there
):
    arguments = draw((batch, 4, 4, channels, 64))[:3]
    function = functools.partial(pairs.by_pairs, winograd.relu_convolution)
    text = jax.jit(function).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()
    assert (f"<1x4x4x{2 * channels}xf32>" in text) == there


@pytest.mark.parametrize(("platform", "whole"), [("cpu", True), ("cuda", False), ("tpu", False)])
def test_accelerators_pass_no_gradient_through_a_relu_of_the_whole_map(platform, whole):
    arguments = draw((3, 16, 16, 32, 64))[:3]
    step = jax.grad(lambda *args: jnp.sum(winograd.pooled_relu_convolution(*args)), (0, 1, 2))
    text = jax.jit(step).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()
    assert ("stablehlo.sign" in text or "x16x16x64xi1>" in text) == whole


def trained(monkeypatch, least_channels):
    """Losses and parameters after two steps of gradient descent on the tiny corpus."""
    monkeypatch.setattr(winograd, "LEAST_CHANNELS", least_channels)
    monkeypatch.setitem(BACKBONES, "vgg16", tiny.NARROW)
    experiment = tiny.setup(tiny.config())
    optimiser = optax.sgd(1e-2)
    # Biases of 0 under silent channels would put values on the very bend of the ReLU.
    biases = np.random.default_rng(0)
    pretrained = {
        name: layer | {"bias": biases.normal(0, 0.1, layer["bias"].shape).astype(np.float32)}
        for name, layer in tiny.pretrained().items()
    }
    network = create_network(experiment.config, ONE_MODEL.axis_name)
    state = train_state.create_state(network, optimiser, pretrained, jax.random.key(0), {})
    inputs, seeds = experiment.inputs, experiment.config.seeds
    step = train_state.create_train_step(network, optimiser, inputs, ONE_MODEL, seeds)
    state, losses = ONE_MODEL.place([state]), []
    for chunk in inputs.chunks(ONE_MODEL, [[np.arange(8)] * 2], 1, ONE_MODEL.width(8)):
        state, loss = step(state, np.int32(0), np.float32(1), *chunk)
        losses.append(float(loss[0]))
    return losses, jax.device_get(state.params)


def test_a_training_step_equals_the_plain_one(monkeypatch):
    losses, params = trained(monkeypatch, least_channels=4)
    plain_losses, plain_params = trained(monkeypatch, least_channels=10**6)
    assert losses != plain_losses  # two ways indeed
    assert abs(losses[0] - losses[1]) > 1e-3  # the step did move something
    np.testing.assert_allclose(losses, plain_losses, rtol=1e-4)
    for name in ("vgg16", "head"):
        jax.tree.map(
            lambda ours, reference: assert_close(ours, reference, tolerance=1e-3),
            params[name],
            plain_params[name],
        )
