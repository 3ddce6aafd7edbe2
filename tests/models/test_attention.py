"""The attention head against its formulae in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ds_jax.models.attention import AttentionHead


def reference_head(variables, x, rows=None):
    """Gorriz et al.'s formulae in float64; `rows` gives the batch whose statistics are used."""
    p = jax.tree.map(np.float64, variables["params"])
    x = x.astype(np.float64)
    if rows is None:
        mean, variance = map(np.float64, variables["batch_stats"]["batch_norm"].values())
    else:
        mean, variance = x[rows].mean(axis=(0, 1, 2)), x[rows].var(axis=(0, 1, 2))
    b = (x - mean) / np.sqrt(variance + 1e-3) * p["batch_norm"]["scale"] + p["batch_norm"]["bias"]
    hidden = np.maximum(b @ p["conv1"]["kernel"][0, 0] + p["conv1"]["bias"], 0)
    hidden = np.maximum(hidden @ p["conv2"]["kernel"][0, 0] + p["conv2"]["bias"], 0)
    gate = np.empty(x.shape[:3])
    features = np.empty((len(x), x.shape[3]))
    for row in range(len(x)):
        for i in range(x.shape[1]):
            for j in range(x.shape[2]):
                own = hidden[row, i, j] @ p["gate"]["kernel"][i, j] + p["gate"]["bias"][i, j]
                gate[row, i, j] = 1 / (1 + np.exp(-own))
        for channel in range(x.shape[3]):
            features[row, channel] = np.mean(gate[row] * b[row, ..., channel]) / gate[row].mean()
    return features, gate


@pytest.fixture(scope="module")
def head_variables(rng, x):
    """A head's variables, none of them at its initial value."""
    variables = AttentionHead().init(jax.random.key(0), x, jnp.ones(16), False)
    variables = jax.tree.map(
        lambda leaf: leaf + rng.normal(0, 0.3, leaf.shape).astype(np.float32), variables
    )
    stats = {"mean": jnp.float32([0, 3, -1, 10, 100]), "variance": jnp.float32([1, 4, 0.1, 25, 1])}
    return {**variables, "batch_stats": {"batch_norm": stats}}


@pytest.mark.parametrize("train", [False, True])
def test_head_equals_the_formulae(head_variables, x, train):
    mask = jnp.asarray([1.0] * 10 + [0.0] * 6)
    (features, gate), _ = AttentionHead().apply(
        head_variables, x, mask, train, mutable=["batch_stats"]
    )
    rows = slice(10) if train else None
    wanted_features, wanted_gate = reference_head(head_variables, x, rows)
    assert wanted_gate.std() > 0.05  # open here, closed there
    np.testing.assert_allclose(gate, wanted_gate, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(features, wanted_features, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("side", "count"), [(14, 38_228), (7, 35_729)])
def test_parameter_counts_are_the_published_ones(side, count):
    x = jax.ShapeDtypeStruct((1, side, side, 512), jnp.float32)
    mask = jax.ShapeDtypeStruct((1,), jnp.float32)
    variables = jax.eval_shape(
        lambda x, mask: AttentionHead().init(jax.random.key(0), x, mask, False), x, mask
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == count


def test_half_precision_changes_a_head_by_its_rounding(head_variables, x):
    x = x.astype(jnp.bfloat16)

    def step(dtype):
        def loss(params):
            variables = {**head_variables, "params": params}
            features, gate = AttentionHead(dtype=dtype).apply(variables, x, jnp.ones(16), False)
            assert features.dtype == gate.dtype == jnp.float32
            return jnp.sum(jnp.square(features)), (features, gate)

        return jax.value_and_grad(loss, has_aux=True)(head_variables["params"])

    found, wanted = (step(dtype) for dtype in (jnp.bfloat16, jnp.float32))
    for ours, exact in zip(*map(jax.tree.leaves, (found, wanted)), strict=True):
        assert ours.dtype == jnp.float32
        # The rounding moves a few values across the bend of a ReLU.
        assert jnp.linalg.norm(ours - exact) <= 0.1 * jnp.linalg.norm(exact)
