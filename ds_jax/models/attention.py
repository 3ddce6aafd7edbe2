"""The gated attention head of Gorriz et al. (2019), which DS-AM puts on two of its blocks."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ds_jax.models.layers import BatchNorm


class Gate(nn.Module):
    """One weight and bias for each position and channel: a locally connected 1x1 layer."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps float32 [batch, height, width, channels] to a gate [batch, height, width]."""
        _, height, width, channels = x.shape
        kernel = self.param(
            "kernel",
            nn.initializers.variance_scaling(1.0, "fan_avg", "uniform", in_axis=2, out_axis=()),
            (height, width, channels),
        )
        bias = self.param("bias", nn.initializers.zeros, (height, width))
        return nn.sigmoid(jnp.einsum("bhwc,hwc->bhw", x, kernel) + bias[None])


class AttentionHead(nn.Module):
    """Gorriz et al.'s module: B = BatchNorm(D), A = gate(B), features = mean(A * B) / mean(A).

    On VGG16 at 224 x 224 pixels it has 38,228 trainable parameters on block4_pool and 35,729 on
    block5_pool.

    Attributes:
        axis_name: As in `BatchNorm`.
        dtype: The type in which the two layers below the gate multiply; all else is float32.
    """

    axis_name: str | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, feature_map: jax.Array, mask: jax.Array, train: bool
    ) -> tuple[jax.Array, jax.Array]:
        """Pools a feature map where its gate is open.

        Args:
            feature_map: [batch, height, width, channels].
            mask: float32 [batch], 1 for a real row and 0 for padding.
            train: Whether batch statistics are used and recorded.

        Returns:
            Features float32 [batch, channels] and the gate float32 [batch, height, width] in 0..1.
        """
        normalised = BatchNorm(self.axis_name, name="batch_norm")(
            feature_map.astype(jnp.float32), mask, train
        )

        def multiply(x, kernel, *arguments, **options):
            x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
            product = jax.lax.conv_general_dilated(x, kernel, *arguments, **options)
            return product.astype(jnp.float32)

        layer = functools.partial(nn.Conv, kernel_size=(1, 1), conv_general_dilated=multiply)
        hidden = nn.relu(layer(64, name="conv1")(normalised))
        hidden = nn.relu(layer(16, name="conv2")(hidden))
        gate = Gate(name="gate")(hidden)
        pooled = jnp.mean(gate[..., None] * normalised, axis=(1, 2))
        return pooled / jnp.mean(gate, axis=(1, 2))[:, None], gate
