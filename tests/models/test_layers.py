"""Dropout by keys of rows."""

import jax
import jax.numpy as jnp
import numpy as np

from ds_jax.models.layers import drop


def test_it_keeps_the_expectation_and_differs_by_row_and_layer():
    x, rngs = jnp.full((300, 40), 2.0), jax.random.split(jax.random.key(0), 300)
    first, second = (np.asarray(drop(x, 0.3, rngs, layer)) for layer in (0, 1))
    np.testing.assert_allclose(np.unique(first), [0, 2 / 0.7], rtol=1e-6)
    spread = 2 * np.sqrt(0.3 / 0.7 / first.size)  # of the mean, were it 2
    assert abs(first.mean() - 2) < 4 * spread
    assert len(np.unique(first, axis=0)) == 300
    assert not np.array_equal(first, second)


def test_a_row_s_key_alone_says_what_is_dropped():
    x, rngs = jnp.ones((4, 100)), jax.random.split(jax.random.key(0), 4)
    whole = drop(x, 0.25, rngs, 0)
    np.testing.assert_array_equal(whole[2:], drop(x[2:], 0.25, rngs[2:], 0))


def test_without_keys_nothing_is_dropped():
    x = jnp.ones((4, 100))
    np.testing.assert_array_equal(drop(x, 0.25, None, 0), x)
    np.testing.assert_array_equal(drop(x, 0.0, jax.random.split(jax.random.key(0), 4), 0), x)
