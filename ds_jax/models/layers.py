"""Layers that several networks have, and what every network returns."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

NEVER = -1e9  # the logit of a class that has no probability


class Outputs(flax.struct.PyTreeNode):
    """The outputs of a network for a batch.

    Attributes:
        logits: float32 [batch, classes].
        head_logits: For each attention head, by the name of its block's output, float32
            [batch, classes].
        gates: For each attention head, float32 [batch, height, width] in 0..1; after the end of a
            timeline NaN.
        loss_terms: Pairs of a weight and logits; the loss is the weighted sum of cross-entropies.
    """

    logits: jax.Array
    head_logits: dict[str, jax.Array]
    gates: dict[str, jax.Array]
    loss_terms: tuple[tuple[float, jax.Array], ...]

    def losses(self, labels: jax.Array, smoothing: float = 0.0) -> jax.Array:
        """Returns float32 [batch], each row's loss, for labels int32 [batch].

        Args:
            labels: The true labels.
            smoothing: The share of a label that is spread over all classes that can be answered.
        """

        import optax  # here, since predictions do without it

        def loss(logits):
            if not smoothing:
                return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            possible = (logits > NEVER).astype(jnp.float32)
            spread = possible / jnp.sum(possible, axis=1, keepdims=True)
            wanted = jax.nn.one_hot(labels, logits.shape[1])
            return optax.softmax_cross_entropy(
                logits, (1 - smoothing) * wanted + smoothing * spread
            )

        return sum(weight * loss(logits) for weight, logits in self.loss_terms)


class Network(nn.Module):
    """A network on rows of a corpus, of which by default nothing is pretrained, frozen or scaled.

    What training never changes is `lower`, the rest is `upper`.

    Attributes:
        input_dtype: The type of the corpus' inputs.
        input_shape: The shape of a row; sequences may have any other length.
        frozen_blocks: How many blocks, from below, keep their pretrained parameters.
        augments: Whether it has a method `augment`, which changes training batches at random.
        piece: The columns of a timeline that crops keep together; 1 for other inputs.
    """

    augments = False
    piece = 1

    def frozen_layers(self, module: str) -> set[str]:
        """Returns the names of a module's layers that keep their pretrained parameters."""
        return set()

    def port(self, pretrained: Mapping) -> dict[str, dict]:
        """Puts pretrained parameters where this network has them.

        Args:
            pretrained: Parameters by layer, see `pretrained.load`; there may be more than needed.

        Returns:
            A part of the network's parameters, by module and layer.
        """
        return {}

    def scaling(self, inputs: np.ndarray, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Measures what `upper` scales inputs by, on int [m], the rows of the train split."""
        return {}

    def widths(self, inputs: Any) -> np.ndarray | None:
        """Returns the columns of each picture of a corpus, int [n]; None: they are all equal."""
        return None

    def lower(self, inputs: jax.Array) -> Any:
        """Maps a batch of inputs to what `upper` takes."""
        return inputs

    def upper(
        self, x: jax.Array, mask: jax.Array, train: bool = False, rngs: jax.Array | None = None
    ) -> Outputs:
        """Classifies what `lower` returned.

        Args:
            x: [batch, ...].
            mask: float32 [batch], 1 for a real row and 0 for padding.
            train: Whether batch statistics and dropout are those of training.
            rngs: A random key for each row, which dropout needs in training.
        """
        raise NotImplementedError

    def __call__(
        self, inputs: jax.Array, mask: jax.Array, train: bool = False, rngs: jax.Array | None = None
    ) -> Outputs:
        """Classifies a batch of inputs."""
        return self.upper(self.lower(inputs), mask, train, rngs)


class TrainedClasses(nn.Module):
    """Keeps a network from answering with a class that no training utterance has.

    Which these are is kept with the batch statistics, and so in every checkpoint.
    """

    @nn.compact
    def __call__(self, outputs: Outputs) -> Outputs:
        """Lowers the logits of these classes, so that their probability is exactly 0."""
        shape = outputs.logits.shape[-1:]
        trained = self.variable("batch_stats", "trained", jnp.ones, shape).value[None] > 0

        def masked(logits):
            return jnp.where(trained, logits, NEVER)

        return outputs.replace(
            logits=masked(outputs.logits),
            head_logits={name: masked(logits) for name, logits in outputs.head_logits.items()},
            loss_terms=tuple((weight, masked(logits)) for weight, logits in outputs.loss_terms),
        )


class BatchNorm(nn.Module):
    """Batch normalisation over the real rows of a batch that is spread over devices.

    Flax's layer averages the devices' means, which is wrong when devices hold different numbers of
    real rows; here sums and counts are added up over devices and divided once.

    Attributes:
        axis_name: The mapped axis that the batch is spread over; None on a single device.
        momentum: The share of the running statistics that a step keeps. Keras' 0.99 would still
            hold a fifth of the initial ones after eight epochs of twenty steps, which small corpora
            have.
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
            train: Whether the batch's statistics are used and recorded, in place of the running
                ones.
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


def drop(x: jax.Array, rate: float, rngs: jax.Array | None, layer: int) -> jax.Array:
    """Drops units of each row by the row's own key, and scales up the others.

    The result does not depend on how a batch is spread over devices.

    Args:
        x: float [batch, ...].
        rate: The share of the units that are dropped, 0 to below 1.
        rngs: A random key for each row; None outside of training, when nothing is dropped.
        layer: A number for each of a network's dropout layers.
    """
    if rngs is None or not rate:
        return x

    def kept(rng):
        return jax.random.bernoulli(jax.random.fold_in(rng, layer), 1 - rate, x.shape[1:])

    return jnp.where(jax.vmap(kept)(rngs), x / (1 - rate), 0)
