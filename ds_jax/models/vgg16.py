"""VGG16 in Flax: the convolutional trunk and its two fully connected layers.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition"
(2015), configuration D. Layers carry Keras' names, so that ported weights need no renaming.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ds_jax.models.winograd import Convolution, max_pool

# Channels and number of convolutions of each block (table 1, column D).
BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))

UNITS = 4096  # of fc1 and of fc2 (table 1)


class VGG16(nn.Module):
    """The five convolutional blocks, or some of them.

    Attributes:
        dtype: In which the convolutions are computed; parameters are float32.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, first: int = 1, last: int = 5) -> dict[str, jax.Array]:
        """Runs the blocks `first` to `last`.

        Args:
            x: float [batch, height, width, channels], the input of block `first`: a picture in
                BGR order, or what the block before has pooled.
            first: The first block to run, from 1.
            last: The last block to run, up to 5.

        Returns:
            `block<k>_pool`: dtype [batch, height', width', channels] for each block that ran,
            each half as high and wide as the one before; with `first > 1` also the input, under
            the name of the block that it came from.

        Raises:
            ValueError: There are no such blocks, or the input is too small to be halved so often.
        """
        if not 1 <= first <= last <= len(BLOCKS):
            raise ValueError(f"VGG16 has blocks 1 to {len(BLOCKS)}, not {first} to {last}")
        smallest = 2 ** (last - first + 1)
        if min(x.shape[1:3]) < smallest:
            raise ValueError(
                f"blocks {first} to {last} of VGG16 need an input of at least {smallest} x "
                f"{smallest}, not {x.shape[1]} x {x.shape[2]}"
            )
        x = jnp.asarray(x, self.dtype)
        pooled = {f"block{first - 1}_pool": x} if first > 1 else {}
        for block in range(first, last + 1):
            channels, convolutions = BLOCKS[block - 1]
            for index in range(1, convolutions + 1):
                x = Convolution(channels, self.dtype, name=f"block{block}_conv{index}")(x)
            x = max_pool(x)
            pooled[f"block{block}_pool"] = x
        return pooled


class FullyConnected(nn.Module):
    """The layers fc1 and fc2 on top of the trunk.

    Attributes:
        dtype: In which the layers are computed; parameters are float32.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, drop: Callable[[jax.Array, int], jax.Array] = lambda x, layer: x
    ) -> jax.Array:
        """Flattens by height, width, channel, and applies both layers.

        Args:
            x: float [batch, height, width, channels]; ported weights want the `block5_pool` of a
                picture of 224 x 224, which is 7 x 7 x 512.
            drop: Applied after each layer, 0 and 1; dropout in training.

        Returns:
            dtype [batch, 4096], fc2 after its ReLU.
        """
        x = jnp.reshape(x, (x.shape[0], -1))
        for index, name in enumerate(("fc1", "fc2")):
            layer = nn.Dense(
                UNITS, dtype=self.dtype, kernel_init=nn.initializers.he_normal(), name=name
            )
            x = drop(nn.relu(layer(x)), index)
        return x
