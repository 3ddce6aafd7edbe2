"""The networks of the baselines, on features in place of pictures: LSTM and feed-forward.

Both scale their inputs by what was measured on the training side; the measures travel with the
other batch statistics, and so with every checkpoint.
"""

import types
from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ds_jax.data.corpus import LABELS
from ds_jax.features.extract import FeatureSettings
from ds_jax.models.deep_spectrum import Outputs
from ds_jax.models.layers import drop

SYSTEMS = {"lstm": "LSTM", "ffnn": "FFNN"}  # as the config and as reports call them
MOST_UNITS = 1 << 16  # of a layer


class FeatureNetwork(nn.Module):
    """Scales features and classifies them.

    Attributes:
        body: An `LSTM` or a `FeedForward`.
        settings: Which features.
    """

    body: nn.Module
    settings: FeatureSettings

    input_dtype = jnp.float32
    frozen_blocks = 0
    ported_layers = types.MappingProxyType({})  # all layers are new

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one row; sequences may be of any other length."""
        return tuple(size or 1 for size in self.settings.shape)

    def frozen_layers(self, module: str) -> set[str]:
        """Returns nothing: all layers are trained."""
        del module
        return set()

    def port(self, pretrained: Mapping) -> dict[str, dict]:
        """Returns nothing: no layer is pretrained."""
        del pretrained
        return {}

    def scaling(self, inputs: np.ndarray, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Measures the scaling on the training side.

        Args:
            inputs: Of the corpus, float32 [n, d] or [n, frames, d].
            rows: int [m]: the training side's.

        Returns:
            `centre` and `reach`, float32 [d]; features that do not vary have a reach of 1.
        """
        known = inputs[rows].reshape(-1, inputs.shape[-1]).astype(np.float64)
        known = known[~np.isnan(known[:, 0])]  # frames beyond a sequence's end
        centre, reach = self.body.measure(known)
        # A feature that is constant but for rounding would be blown up.
        reach = np.where(reach > 1e-6 * np.maximum(1e-6, np.abs(centre)), reach, 1)
        return {"centre": centre.astype(np.float32), "reach": reach.astype(np.float32)}

    @nn.compact
    def __call__(
        self,
        inputs: jax.Array,
        mask: jax.Array,
        train: bool = False,
        rngs: jax.Array | None = None,
    ) -> Outputs:
        """Classifies float32 [batch, d], or [batch, frames, d] with NaN beyond a sequence's end."""
        del mask
        size = inputs.shape[-1]
        centre = self.variable("batch_stats", "centre", jnp.zeros, size).value
        reach = self.variable("batch_stats", "reach", jnp.ones, size).value
        axes = tuple(range(inputs.ndim - 1))
        scaled = (inputs - jnp.expand_dims(centre, axes)) / jnp.expand_dims(reach, axes)
        logits = self.body(scaled, rngs if train else None)
        return Outputs(logits, {}, {}, ((1.0, logits),))


class LSTM(nn.Module):
    """Two LSTM layers, then two dense ones (Kerkeni et al., 2019; the sizes are ours).

    A vector is a sequence of one step, as theirs was.

    Attributes:
        units: Of each of the LSTM layers.
        dense_units: Of the dense layer before the classifier.
    """

    units: Sequence[int]
    dense_units: int

    @staticmethod
    def measure(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Centre and half of the range: features then lie in -1..1 (Kerkeni et al., 2019)."""
        low, high = rows.min(axis=0), rows.max(axis=0)
        return (low + high) / 2, (high - low) / 2

    @nn.compact
    def __call__(self, x: jax.Array, rngs: jax.Array | None) -> jax.Array:
        """Returns logits, float32 [batch, 7], of the state after the last real frame."""
        del rngs
        x = x if x.ndim == 3 else x[:, None]
        lengths = jnp.sum(~jnp.isnan(x[..., 0]), axis=1)
        x = jnp.nan_to_num(x)
        for index, units in enumerate(self.units):
            cell = nn.OptimizedLSTMCell(units, name=f"lstm{index + 1}")
            layer = nn.RNN(cell, return_carry=True)
            (_, last), x = layer(x, seq_lengths=lengths)
        x = nn.relu(nn.Dense(self.dense_units, name="dense")(last))
        return nn.Dense(len(LABELS), name="classifier")(x)


class FeedForward(nn.Module):
    """Dense layers with ReLU and dropout.

    Attributes:
        units: Of each layer.
        dropout: Share of the units dropped after each.
    """

    units: Sequence[int]
    dropout: float

    @staticmethod
    def measure(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation."""
        return rows.mean(axis=0), rows.std(axis=0)

    @nn.compact
    def __call__(self, x: jax.Array, rngs: jax.Array | None) -> jax.Array:
        """Returns logits, float32 [batch, 7]; `rngs` holds a key for each row in training."""
        for index, units in enumerate(self.units):
            x = nn.relu(nn.Dense(units, name=f"dense{index + 1}")(x))
            x = drop(x, self.dropout, rngs, index)
        return nn.Dense(len(LABELS), name="classifier")(x)


def create(system: str, model: Mapping, settings: FeatureSettings) -> FeatureNetwork:
    """Builds the network of a baseline.

    Args:
        system: "lstm" or "ffnn".
        model: The fields of `config.model`.
        settings: Which features it reads.

    Raises:
        ValueError: A field has an impossible value; it names the field and what is allowed.
    """
    units = tuple(model["units"])
    if not units or not all(isinstance(n, int) and 1 <= n <= MOST_UNITS for n in units):
        raise ValueError(
            f"model.units={units} must hold a whole number, 1 to {MOST_UNITS}, for each layer"
        )
    if system == "lstm":
        if not 1 <= model["dense_units"] <= MOST_UNITS:
            raise ValueError(f"model.dense_units={model['dense_units']} must be 1 to {MOST_UNITS}")
        return FeatureNetwork(LSTM(units, model["dense_units"]), settings)
    if not 0 <= model["dropout"] < 1:
        raise ValueError(f"model.dropout={model['dropout']} must lie in 0..1, below 1")
    return FeatureNetwork(FeedForward(units, model["dropout"]), settings)
