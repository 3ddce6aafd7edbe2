"""Convolutions of narrow layers as a TPU computes them fast: for two pictures at once.

A TPU multiplies the channels of a layer 128 by 128, so that fewer leave a part of it idle.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

LANES = 128  # channels that a TPU multiplies at a time
SUBLANES = 8  # of the few channels of pictures it keeps a multiple of this
MAPS_AT_ONCE = 16  # of VGG16's block2, which then stay in a TPU's cache from one layer to the next
PICTURES_AT_ONCE = LANES  # of each half: side by side they fill the lanes, and fit in the cache


def by_pairs(function: Callable, x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """Calls a convolution, on TPUs with two pictures in one where their channels fill the lanes.

    One half of the batch lies in the channels behind those of the other half, and zeros of the
    kernel keep them apart. Where a half fills the lanes each is convolved by itself. Both go a few
    maps at once. From such a layer to the next nothing is moved: XLA sees that one undoes the
    other. Large batches of pictures go in `parts_of_pictures`.
    """

    def halved(x, kernel, bias):
        if 2 * x.shape[-1] > LANES:
            halves = jnp.split(x, 2)
            maps = [function(part, kernel, bias) for half in halves for part in _parts(half)]
            return jnp.concatenate(maps)
        few = has_few_channels(x.shape[-1])
        parts = parts_of_pictures(x) if few else [x]
        if len(parts) == 1:  # so that XLA sees what the layer before has undone
            x = jnp.moveaxis(jnp.reshape(x, (2, -1, *x.shape[1:])), 0, 3)
            pairs = [jnp.reshape(x, (*x.shape[:3], -1))]
        else:
            couples = zip(parts[: len(parts) // 2], parts[len(parts) // 2 :], strict=True)
            pairs = [jnp.concatenate(couple, axis=-1) for couple in couples]
        none = jnp.zeros_like(kernel)

        def apart(kernel):
            return [jnp.concatenate(each, axis=-2) for each in ((kernel, none), (none, kernel))]

        if 2 * kernel.shape[-1] > LANES:
            # Each has kernels of its own, so that no gradient is computed of their zeros. What both
            # kernels share is divided once: its gradients are added before they are joined.
            maps = [part for x in pairs for part in _parts(x)]
            return jnp.concatenate([function(x, k, bias) for k in apart(kernel) for x in maps])
        kernel, bias = jnp.concatenate(apart(kernel), axis=-1), jnp.tile(bias, 2)
        if few:
            # A channel of ones, which takes no room, has the bias as its weights: their gradient
            # comes with the kernel's, and the large one of the map is kept nowhere.
            ones = ((0, 0), (0, 0), (0, 0), (0, 1))
            pairs = [jnp.pad(x, ones, constant_values=1) for x in pairs]
            kernel = jnp.pad(kernel, ((0, 0), (0, 0), (0, 1), (0, 0))).at[1, 1, -1].set(bias)
            bias = jnp.zeros_like(bias)
        y = jnp.concatenate([function(part, kernel, bias) for x in pairs for part in _parts(x)])
        y = jnp.moveaxis(jnp.reshape(y, (*y.shape[:3], 2, -1)), 3, 0)
        return jnp.reshape(y, (-1, *y.shape[2:]))

    divides = isinstance(x.shape[0], int) and x.shape[0] % 2 == 0
    if not divides or max(kernel.shape[2:]) > LANES:
        return function(x, kernel, bias)
    return jax.lax.platform_dependent(x, kernel, bias, tpu=halved, default=function)


def has_few_channels(channels: int) -> bool:
    """Tells whether a TPU pads those of a pair, as it does the 3 channels of pictures."""
    return 2 * channels % SUBLANES > 0


def parts_of_pictures(x: jax.Array) -> list[jax.Array]:
    """Divides a batch [n, ...] that is too large for a TPU's cache, each half in as many parts.

    An odd batch, which `by_pairs` leaves as it is, is not divided.
    """
    count = -(-len(x) // (2 * PICTURES_AT_ONCE))
    if count == 1 or len(x) % 2:
        return [x]
    return [part for half in jnp.split(x, 2) for part in jnp.array_split(half, count)]


def _parts(x: jax.Array) -> list[jax.Array]:
    """Divides [batch, height, width, c] into what TPUs compute at once, whole if c is large."""
    count = 1 if x.shape[-1] > LANES else -(-x.shape[0] // MAPS_AT_ONCE)
    return jnp.array_split(x, count)
