"""The Flax module of a network of Keras' applications."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ds_jax.models.backbone import Block


class Trunk(nn.Module):
    """The layers of a network, or some of them, each of which is a block.

    Batch normalisation stays in inference mode in training too, as is usual where a pretrained
    network is trained further: it normalises by ImageNet's statistics, which are not trained
    either, so that neither padding nor the number of devices can matter.

    Attributes:
        part: `keras_backbone.part` of the network.
        blocks: All of them, from below.
        dtype: The type that the layers are computed in; parameters are float32.
    """

    part: Callable
    blocks: tuple[Block, ...]
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, first: int = 1, last: int | None = None, widths: None = None
    ) -> dict[str, jax.Array]:
        """Runs the layers `first` to `last`.

        Args:
            x: float [batch, height, width, channels], a picture, or the output of the layer below
                `first`, which must be a cut.
            first: The number of the first layer to run, from 1.
            last: The number of the last layer to run; None means the highest.
            widths: None; pictures are as wide as high.

        Returns:
            The outputs of the layers that ran, dtype [batch, ...], by their names; with `first > 1`
            also the input, under the name of the layer that it came from.
        """
        import keras  # on JAX, since `keras_backbone` has built the network

        below, names = None, tuple(block.name for block in self.blocks[first - 1 : last])
        x = jnp.asarray(x, self.dtype)
        outputs = {}
        if first > 1:
            below = self.blocks[first - 2].name
            outputs[below] = x
        model, variables = self.part(jnp.dtype(self.dtype).name, below, names)
        state = []
        for name, of_layer in variables.items():
            shapes = {variable.name: variable.shape for variable in of_layer}
            values = self.param(name, functools.partial(_zeros, shapes))
            state += [(variable, values[variable.name]) for variable in of_layer]
        # Keras adds a bias to an array of any rank.
        scope = keras.StatelessScope(state, initialize_variables=False)
        with scope, jax.numpy_rank_promotion("allow"):
            found = jax.tree.leaves(model(x, training=False))  # of one output Keras makes no list
        return outputs | dict(zip(names, found, strict=True))


def _zeros(shapes: dict[str, tuple[int, ...]], _: jax.Array) -> dict[str, jax.Array]:
    """Stands in for parameters, which are always ported."""
    return {name: jnp.zeros(shape) for name, shape in shapes.items()}
