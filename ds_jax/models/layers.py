"""Dropout that does not depend on how a batch is spread over devices."""

import jax
import jax.numpy as jnp


def drop(x: jax.Array, rate: float, rngs: jax.Array | None, layer: int) -> jax.Array:
    """Drops units of each row by the row's own key, and scales up the others.

    Args:
        x: float [batch, ...].
        rate: Share of the units that are dropped, 0 to below 1.
        rngs: A random key for each row; None outside of training, when nothing is dropped.
        layer: Tells the network's dropouts apart.
    """
    if rngs is None or not rate:
        return x

    def kept(rng):
        return jax.random.bernoulli(jax.random.fold_in(rng, layer), 1 - rate, x.shape[1:])

    return jnp.where(jax.vmap(kept)(rngs), x / (1 - rate), 0)
