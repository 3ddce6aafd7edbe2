"""Batch normalisation against Flax's, masks, dropout by keys of rows, and losses."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ds_jax.models.layers import BatchNorm, Outputs, drop


@pytest.fixture(scope="module")
def norm_variables(rng):
    params = {"scale": rng.normal(size=5), "bias": rng.normal(size=5)}
    stats = {"mean": rng.normal(size=5), "variance": rng.uniform(0.5, 2, 5)}
    return jax.tree.map(jnp.float32, {"params": params, "batch_stats": stats})


def normalise(variables, x, mask):
    return BatchNorm().apply(variables, x, mask, True, mutable=["batch_stats"])


def test_batch_norm_equals_flax_in_training_and_evaluation(norm_variables, x):
    reference = nn.BatchNorm(momentum=0.9, epsilon=1e-3, use_fast_variance=False)
    stats = norm_variables["batch_stats"]
    theirs = {
        "params": norm_variables["params"],
        "batch_stats": {"mean": stats["mean"], "var": stats["variance"]},
    }
    ours = norm_variables
    for _ in range(2):
        out, updated = normalise(ours, x, jnp.ones(16))
        wanted, wanted_updated = reference.apply(
            theirs, x, use_running_average=False, mutable=["batch_stats"]
        )
        np.testing.assert_allclose(out, wanted, rtol=1e-4, atol=1e-4)
        ours = {**ours, **updated}
        theirs = {**theirs, **wanted_updated}
        stats = ours["batch_stats"]
        np.testing.assert_allclose(stats["mean"], theirs["batch_stats"]["mean"], rtol=1e-5)
        np.testing.assert_allclose(stats["variance"], theirs["batch_stats"]["var"], rtol=1e-5)
    out = BatchNorm().apply(ours, x, jnp.ones(16), False)
    wanted = reference.apply(theirs, x, use_running_average=True)
    np.testing.assert_allclose(out, wanted, rtol=1e-4, atol=1e-4)


def test_masked_rows_have_no_influence_at_all(norm_variables, rng, x):
    """What padding holds changes no bit; that it is there changes rounding at most."""
    mask = jnp.asarray([1.0] * 11 + [0.0] * 5)
    weights = rng.normal(size=x.shape).astype(np.float32)

    def outcome(x, mask, weights):
        def loss(params, x):
            variables = {**norm_variables, "params": params}
            out, updated = normalise(variables, x, mask)
            return jnp.sum(out * weights * mask[:, None, None, None]), (out, updated)

        gradient = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
        (_, (out, updated)), (params, inputs) = gradient(norm_variables["params"], x)
        return out[:11], updated, params, inputs

    other = x.copy()
    other[11:] = rng.normal(1000, 300, x[11:].shape)
    padded, unlike = outcome(x, mask, weights), outcome(other, mask, weights)
    jax.tree.map(np.testing.assert_array_equal, padded, unlike)
    assert not np.any(padded[-1][11:])
    assert np.any(padded[-1][:11])
    out, updated, params, inputs = padded
    alone = outcome(x[:11], mask[:11], weights[:11])
    near = (out, updated, params, inputs[:11])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), near, alone)


@pytest.mark.parametrize("parts", [1, 4, 8])
def test_statistics_do_not_depend_on_how_the_batch_is_spread(norm_variables, x, parts):
    """`vmap` gives its axis the name that a device axis has; parts hold unequal row counts."""
    mask = np.ones(16, np.float32)
    mask[[1, 2, 3, 8, 9, 13]] = 0
    assert parts == 1 or len(set(mask.reshape(parts, -1).sum(axis=1))) > 1
    wanted, wanted_stats = normalise(norm_variables, x, mask)

    def part(x, mask):
        return BatchNorm("batch").apply(norm_variables, x, mask, True, mutable=["batch_stats"])

    spread = x.reshape(parts, -1, *x.shape[1:]), mask.reshape(parts, -1)
    out, stats = jax.vmap(part, axis_name="batch")(*spread)
    np.testing.assert_allclose(out.reshape(x.shape), wanted, rtol=1e-4, atol=1e-4)
    for name, value in wanted_stats["batch_stats"].items():
        for each in stats["batch_stats"][name]:
            np.testing.assert_allclose(each, value, rtol=1e-5)


def test_dropout_keeps_the_expectation_and_differs_by_row_and_layer():
    x, rngs = jnp.full((300, 40), 2.0), jax.random.split(jax.random.key(0), 300)
    first, second = (np.asarray(drop(x, 0.3, rngs, layer)) for layer in (0, 1))
    np.testing.assert_allclose(np.unique(first), [0, 2 / 0.7], rtol=1e-6)
    spread = 2 * np.sqrt(0.3 / 0.7 / first.size)  # of the mean, were it 2
    assert abs(first.mean() - 2) < 4 * spread
    assert len(np.unique(first, axis=0)) == 300
    assert not np.array_equal(first, second)


def test_without_keys_nothing_is_dropped():
    x = jnp.ones((4, 100))
    np.testing.assert_array_equal(drop(x, 0.25, None, 0), x)
    np.testing.assert_array_equal(drop(x, 0.0, jax.random.split(jax.random.key(0), 4), 0), x)


def test_outputs_are_scored_by_cross_entropy():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(4, 7)), jnp.float32)
    labels = jnp.asarray([0, 3, 6, 1], jnp.int32)
    outputs = Outputs(logits, {}, {}, ((2.0, logits),))
    wanted = 2 * optax.losses.softmax_cross_entropy(logits, jax.nn.one_hot(labels, 7))
    np.testing.assert_allclose(outputs.losses(labels), wanted, rtol=1e-5)
