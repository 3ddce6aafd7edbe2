"""The Flax modules of VGG16: its convolutional blocks and its two fully connected layers."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ds_jax.models.backbone import Block
from ds_jax.models.winograd import Convolution


class Trunk(nn.Module):
    """The convolutional blocks, or some of them.

    Attributes:
        blocks: All of them, from below.
        dtype: The type that the convolutions are computed in; parameters are float32.
    """

    blocks: tuple[Block, ...]
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, first: int = 1, last: int = 5, widths: jax.Array | None = None
    ) -> dict[str, jax.Array]:
        """Runs the blocks `first` to `last`.

        Args:
            x: float [batch, height, width, channels], the input of block `first`: a picture in
                BGR order, or the output of the block below.
            first: The number of the first block to run, from 1.
            last: The number of the last block to run.
            widths: int32 [batch], how many columns of each input are real. The others have no
                influence on the real columns of an output, of which there are half as many for
                each block, and are 0 there. None means all columns.

        Returns:
            `block<k>_pool`: dtype [batch, height', width', channels] for each block that ran,
            each half as high and wide as the one before; with `first > 1` also the input, under
            the name of the block that it came from.

        Raises:
            ValueError: There are no such blocks, or the input is too small to be halved so often.
        """
        if not 1 <= first <= last <= len(self.blocks):
            raise ValueError(f"VGG16 has blocks 1 to {len(self.blocks)}, not {first} to {last}")
        smallest = 2 ** (last - first + 1)
        if min(x.shape[1:3]) < smallest:
            raise ValueError(
                f"blocks {first} to {last} of VGG16 need an input of at least {smallest} x "
                f"{smallest}, not {x.shape[1]} x {x.shape[2]}"
            )
        x = blank(jnp.asarray(x, self.dtype), widths)
        outputs = {self.blocks[first - 2].output: x} if first > 1 else {}
        for block in self.blocks[first - 1 : last]:
            *layers, last_layer = block.layers
            for layer in layers:
                x = blank(Convolution(block.channels, self.dtype, name=layer)(x), widths)
            x = Convolution(block.channels, self.dtype, pooled=True, name=last_layer)(x)
            widths = None if widths is None else widths // 2
            x = outputs[block.output] = blank(x, widths)
        return outputs


def blank(x: jax.Array, widths: jax.Array | None) -> jax.Array:
    """Sets the columns of [batch, height, width, c] that are not real to 0; None means all are."""
    if widths is None:
        return x
    real = jnp.arange(x.shape[2])[None] < widths[:, None]
    return jnp.where(real[:, None, :, None], x, 0)


class FullyConnected(nn.Module):
    """The layers fc1 and fc2 on top of the blocks.

    Attributes:
        units: The units of each layer.
        dtype: The type that the layers are computed in; parameters are float32.
    """

    units: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, drop: Callable[[jax.Array, int], jax.Array] = lambda x, layer: x
    ) -> jax.Array:
        """Flattens by height, width, channel, and applies both layers.

        Args:
            x: float [batch, height, width, channels]; ported parameters fit the `block5_pool` of a
                picture of 224 x 224, which is 7 x 7 x 512.
            drop: Called after each layer, 0 and 1; dropout in training.

        Returns:
            dtype [batch, units], the output of fc2 after its ReLU.
        """
        x = jnp.reshape(x, (x.shape[0], -1))
        for index, name in enumerate(("fc1", "fc2")):
            layer = nn.Dense(
                self.units, dtype=self.dtype, kernel_init=nn.initializers.he_normal(), name=name
            )
            x = drop(nn.relu(layer(x)), index)
        return x
