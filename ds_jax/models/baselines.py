"""The networks of the baselines, on features in place of pictures: LSTM and feed-forward.

Both scale their inputs by what was measured on the train split; the measures are kept with the
other batch statistics, and so in every checkpoint.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ds_jax.data import enrolment
from ds_jax.features.extract import FeatureSettings
from ds_jax.models.layers import Network, Outputs, TrainedClasses, drop


class FeatureNetwork(Network):
    """Scales features and classifies them.

    Attributes:
        body: An `LSTM` or a `FeedForward`.
        settings: The set of features.
    """

    body: nn.Module
    settings: FeatureSettings

    input_dtype = jnp.float32
    frozen_blocks = 0

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one row; sequences may have any other length."""
        return tuple(size or 1 for size in self.settings.shape)

    def scaling(self, inputs: np.ndarray, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Measures the scaling on the train split.

        Args:
            inputs: The corpus' features, float32 [n, d] or [n, frames, d].
            rows: int [m], the rows of the train split.

        Returns:
            `centre` and `scale`, float32 [d]; features that do not vary have a scale of 1.
        """
        frames = enrolment.frames(inputs[rows]).astype(np.float64)
        centre, scale = enrolment.usual(*self.body.measure(frames))
        return {"centre": centre.astype(np.float32), "scale": scale.astype(np.float32)}

    @nn.compact
    def upper(
        self, x: jax.Array, mask: jax.Array, train: bool = False, rngs: jax.Array | None = None
    ) -> Outputs:
        """Classifies float32 [batch, d], or [batch, frames, d] with NaN beyond a sequence's end."""
        size = x.shape[-1]
        centre = self.variable("batch_stats", "centre", jnp.zeros, size).value
        scale = self.variable("batch_stats", "scale", jnp.ones, size).value
        axes = tuple(range(x.ndim - 1))
        scaled = (x - jnp.expand_dims(centre, axes)) / jnp.expand_dims(scale, axes)
        logits = self.body(scaled, rngs if train else None)
        outputs = Outputs(logits, {}, {}, ((1.0, logits),))
        return TrainedClasses(name="trained_classes")(outputs)


class LSTM(nn.Module):
    """Two LSTM layers, then two dense ones (Kerkeni et al., 2019; the sizes are ours).

    A vector is a sequence of one step, as in that paper.

    Attributes:
        units: The units of each LSTM layer.
        dense_units: The units of the dense layer before the classifier.
        classes: The number of classes.
    """

    units: Sequence[int]
    dense_units: int
    classes: int

    @staticmethod
    def measure(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns centre and half of the range: features then lie in -1..1 (Kerkeni et al.)."""
        low, high = rows.min(axis=0), rows.max(axis=0)
        return (low + high) / 2, (high - low) / 2

    @nn.compact
    def __call__(self, x: jax.Array, rngs: jax.Array | None) -> jax.Array:
        """Returns logits, float32 [batch, classes], of the state after the last real frame."""
        x = x if x.ndim == 3 else x[:, None]
        lengths = jnp.sum(~jnp.isnan(x[..., 0]), axis=1)
        x = jnp.nan_to_num(x)
        for index, units in enumerate(self.units):
            cell = nn.OptimizedLSTMCell(units, name=f"lstm{index + 1}")
            layer = nn.RNN(cell, return_carry=True)
            (_, last), x = layer(x, seq_lengths=lengths)
        x = nn.relu(nn.Dense(self.dense_units, name="dense")(last))
        return nn.Dense(self.classes, name="classifier")(x)


class FeedForward(nn.Module):
    """Dense layers with ReLU and dropout.

    Attributes:
        units: The units of each layer.
        dropout: The share of the units that are dropped after each layer.
        classes: The number of classes.
    """

    units: Sequence[int]
    dropout: float
    classes: int

    @staticmethod
    def measure(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns mean and standard deviation."""
        return rows.mean(axis=0), rows.std(axis=0)

    @nn.compact
    def __call__(self, x: jax.Array, rngs: jax.Array | None) -> jax.Array:
        """Returns logits, float32 [batch, classes]; `rngs` holds a key for each row in training."""
        for index, units in enumerate(self.units):
            x = nn.relu(nn.Dense(units, name=f"dense{index + 1}")(x))
            x = drop(x, self.dropout, rngs, index)
        return nn.Dense(self.classes, name="classifier")(x)
