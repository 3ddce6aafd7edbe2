"""The gated attention head of Gorriz et al. (2019), which DS-AM puts on two blocks of VGG16."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class BatchNorm(nn.Module):
    """Batch normalisation over the real rows of a batch that is spread over devices.

    Flax's own averages the devices' means, which is wrong when devices hold different numbers of
    real rows; here sums and counts are added up over devices and divided once.

    Attributes:
        axis_name: The mapped axis that the batch is spread over; None on a single device.
        momentum: Share of the running statistics that a step keeps. Keras' 0.99 would still hold a
            fifth of the initial ones after eight epochs of twenty steps, which small corpora have.
        epsilon: Added to the variance (Keras' value).
    """

    axis_name: str | None = None
    momentum: float = 0.9
    epsilon: float = 1e-3

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array, train: bool) -> jax.Array:
        """Normalises float32 [batch, height, width, channels] by channel.

        Args:
            x: The feature map.
            mask: float32 [batch], 1 for a real row and 0 for padding.
            train: Whether to use and record the batch's statistics or use the running ones.
        """
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        running_variance = self.variable("batch_stats", "variance", jnp.ones, (channels,))
        if train:
            rows = mask[:, None, None, None]
            count = self._sum(jnp.sum(mask)) * x.shape[1] * x.shape[2]
            mean = self._sum(jnp.sum(x * rows, axis=(0, 1, 2))) / count
            centred = x - mean[None, None, None]
            variance = self._sum(jnp.sum(jnp.square(centred) * rows, axis=(0, 1, 2))) / count
            if not self.is_initializing():
                for running, value in ((running_mean, mean), (running_variance, variance)):
                    running.value = self.momentum * running.value + (1 - self.momentum) * value
        else:
            mean, variance = running_mean.value, running_variance.value
            centred = x - mean[None, None, None]
        return (
            centred * (scale * jax.lax.rsqrt(variance + self.epsilon))[None, None, None]
            + (bias[None, None, None])
        )

    def _sum(self, value: jax.Array) -> jax.Array:
        if self.axis_name is None or self.is_initializing():
            return value
        return jax.lax.psum(value, self.axis_name)


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

    At 224 x 224 pixels it has 38,228 trainable parameters on block4_pool and 35,729 on block5_pool.

    Attributes:
        axis_name: As in `BatchNorm`.
    """

    axis_name: str | None = None

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
        hidden = nn.relu(nn.Conv(64, (1, 1), name="conv1")(normalised))
        hidden = nn.relu(nn.Conv(16, (1, 1), name="conv2")(hidden))
        gate = Gate(name="gate")(hidden)
        pooled = jnp.mean(gate[..., None] * normalised, axis=(1, 2))
        return pooled / jnp.mean(gate, axis=(1, 2))[:, None], gate
