"""DS-AM's second form: gated statistics of a backbone's blocks, over pictures of any width.

A timeline is as wide as its recording is long. Gates have weights for each frequency row, which all
frames share, and a head reads the mean and the standard deviation of what its gate lets through
(Okabe et al., "Attentive Statistics Pooling for Deep Speaker Embedding", 2018). A timeline that
is padded with 0 gives the numbers of one that is not.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ds_jax.data.enrolment import LIMIT
from ds_jax.features import spectrogram
from ds_jax.features.spectrogram import LEAST_WIDTH
from ds_jax.models.deep_spectrum import DeepSpectrumNetwork
from ds_jax.models.layers import BatchNorm, Outputs, drop
from ds_jax.models.pieces import is_pieces
from ds_jax.models.preprocessing import network_input

LEAST_WEIGHT = 1e-6  # is added to the sum of weights, since a row of padding has none
LEAST_VARIANCE = 1e-4  # is added to variances, so that deviations have a gradient everywhere
MOST_PIXELS = 192  # that training sees of a timeline, 3.07 s of the default frames
STANDARDISE = "standardise_"  # begins the name of each `Standardise`, as Flax makes it


class Standardise(nn.Module):
    """Subtracts the mean of each channel, and divides by its deviation.

    They are those of the train split, or of a speaker who is enrolled; or each row has its own.
    """

    @nn.compact
    def __call__(self, x: jax.Array, own: Mapping[str, jax.Array] | None = None) -> jax.Array:
        """Standardises maps.

        Args:
            x: float32 [batch, height, width, channels].
            own: `mean` and `deviation` of each row, float32 [batch, channels]; None takes the
                variables for all rows.

        Returns:
            float32 as x, at most `LIMIT` from 0.
        """
        mean = self.variable("batch_stats", "mean", jnp.zeros, x.shape[-1]).value[None]
        deviation = self.variable("batch_stats", "deviation", jnp.ones, x.shape[-1]).value[None]
        if own is not None:
            mean, deviation = own["mean"], own["deviation"]
        x = (x - mean[:, None, None]) / deviation[:, None, None]
        return jnp.clip(x, -LIMIT, LIMIT)


class StatisticsHead(nn.Module):
    """Classifies the mean and the standard deviation of a map's channels.

    Attributes:
        gate: Whether a gate weights the positions; without one all are equal.
        dropout: The share of the statistics that are dropped.
        classes: The number of classes.
        axis_name: As in `BatchNorm`.
    """

    gate: bool
    dropout: float
    classes: int
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, x: jax.Array, seen: jax.Array, mask: jax.Array, train: bool, rngs: jax.Array | None
    ) -> tuple[jax.Array, jax.Array | None]:
        """Pools and classifies a map.

        Args:
            x: float32 [batch, height, width, channels], standardised.
            seen: float32 [batch, height, width], 1 where a position counts and 0 elsewhere.
            mask: float32 [batch], 1 for a real row and 0 for padding.
            train: Whether batch statistics are used and recorded.
            rngs: A random key for each row, which dropout needs in training.

        Returns:
            Logits float32 [batch, classes], and the gate float32 [batch, height, width] in 0..1.
        """
        gate, weights = None, seen
        if self.gate:
            hidden = nn.relu(nn.Dense(64, name="dense1")(x))
            hidden = nn.relu(nn.Dense(16, name="dense2")(hidden))
            shape = hidden.shape[1], hidden.shape[3]
            kernel = self.param("gate_kernel", nn.initializers.normal(shape[1] ** -0.5), shape)
            bias = self.param("gate_bias", nn.initializers.zeros, shape[:1])
            gate = jnp.einsum("bhwc,hc->bhw", hidden, kernel) + bias[None, :, None]
            gate = nn.sigmoid(gate)
            weights = gate * seen
        statistics = weighted_statistics(x, weights)
        normalise = BatchNorm(self.axis_name, name="batch_norm")
        features = normalise(statistics[:, None, None], mask, train)[:, 0, 0]
        features = drop(features, self.dropout, rngs if train else None, 0)
        return nn.Dense(self.classes, name="logits")(features), gate


def weighted_statistics(x: jax.Array, weights: jax.Array) -> jax.Array:
    """Computes the mean and the standard deviation of each channel over positions.

    Args:
        x: float32 [batch, height, width, channels].
        weights: float32 [batch, height, width], 0 or more.

    Returns:
        float32 [batch, 2 x channels], the means and then the deviations; the latter are those of a
        channel whose variance is larger by `LEAST_VARIANCE`.
    """
    total = jnp.sum(weights, axis=(1, 2))[:, None] + LEAST_WEIGHT
    mean = jnp.einsum("bhw,bhwc->bc", weights, x) / total
    centred = x - mean[:, None, None]
    variance = jnp.einsum("bhw,bhwc->bc", weights, jnp.square(centred)) / total
    return jnp.concatenate([mean, jnp.sqrt(variance + LEAST_VARIANCE)], axis=1)


class StatisticsHeads(nn.Module):
    """A `StatisticsHead` on some of a backbone's blocks; the prediction is their mean.

    Attributes:
        heads: The names of the blocks' outputs that carry a head, lower ones first.
        gate: As in `StatisticsHead`.
        dropout: As in `StatisticsHead`.
        loss_weights: A weight for each head.
        classes: The number of classes.
        axis_name: The mapped axis that the batch is spread over; None on a single device.
    """

    heads: tuple[str, ...]
    gate: bool
    dropout: float
    loss_weights: tuple[float, ...]
    classes: int
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self,
        maps: Mapping[str, jax.Array],
        seen: Mapping[str, jax.Array],
        mask: jax.Array,
        train: bool,
        rngs: jax.Array | None,
    ) -> Outputs:
        """Classifies standardised maps, see `StatisticsHead`, each by the name of its block."""
        gates, head_logits = {}, {}
        for number, name in enumerate(self.heads):
            head = StatisticsHead(self.gate, self.dropout, self.classes, self.axis_name, name=name)
            keys = None if rngs is None else jax.vmap(jax.random.fold_in, (0, None))(rngs, number)
            logits, gate = head(maps[name], seen[name], mask, train, keys)
            head_logits[name] = logits
            if gate is not None:
                gates[name] = jnp.where(seen[name] > 0, gate, jnp.nan)
        loss_terms = tuple(zip(self.loss_weights, head_logits.values(), strict=True))
        logits = sum(head_logits.values()) / len(head_logits)
        return Outputs(logits, head_logits, gates, loss_terms)


class TimelineNetwork(DeepSpectrumNetwork):
    """Maps timelines to a logit for each class: preprocessing, a backbone and `StatisticsHeads`.

    What `lower` returns and `upper` takes is a dictionary: `widths`, int32 [batch], the pixels of
    each timeline; the outputs that carry a head of all frozen blocks, [batch, height, width, c];
    and, if blocks are trained, what the lowest of them reads, under the name of the block below
    ("picture" if there is none). `augment` adds `hidden`. Where speakers are standardised by their
    own recordings, each `Standardise` has an entry of what it takes. Gates are NaN after a
    timeline's end.

    Attributes:
        least_share: The least share of a timeline that `augment` keeps.
        most_hidden: The largest share of its time, and of its height, that `augment` hides.

    The others are those of `DeepSpectrumNetwork`.
    """

    least_share: float = 1.0  # nothing is augmented unless the config says so
    most_hidden: float = 0.0

    augments = True

    def setup(self):
        super().setup()
        self.standardise = {name: Standardise() for name in self.head.heads}

    @property
    def piece(self) -> int:
        """The pixels of a timeline that a column of the highest map stands for."""
        return 2**self.last_block

    @property
    def input_shape(self) -> tuple[int, int]:
        """The shape of the smallest timeline; they may have any other width."""
        return self.picture.mel_bands, LEAST_WIDTH

    def scaling(
        self, inputs: Mapping, rows: np.ndarray | slice
    ) -> dict[str, dict[str, np.ndarray]]:
        """Measures the mean and the deviation of channels.

        Args:
            inputs: What `moments` returned for all timelines of the corpus, on the host.
            rows: int [m] or a slice, the rows of the train split, or of a speaker.

        Returns:
            `mean` and `deviation`, float32 [channels], by the name of each `Standardise`; a channel
            that does not vary has a deviation of 1.
        """
        scaling = {}
        for name, moments in inputs.items():
            count, total, squares = (moment[rows].sum(axis=0, dtype=float) for moment in moments)
            mean = total / count
            deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
            deviation[deviation <= 1e-3 * np.maximum(1e-3, np.abs(mean))] = 1
            measured = {"mean": mean.astype(np.float32), "deviation": deviation.astype(np.float32)}
            scaling[f"{STANDARDISE}{name}"] = measured
        return scaling

    def moments(self, x: Mapping[str, jax.Array]) -> dict[str, tuple[jax.Array, ...]]:
        """Sums up each row of what `lower` returned, for `scaling`.

        Returns:
            For each head the number of positions, float32 [batch], and the sums of channels and of
            their squares, float32 [batch, channels].
        """
        moments = {}
        for name, (map, seen) in self._maps(x).items():
            total = jnp.einsum("bhw,bhwc->bc", seen, map)
            squares = jnp.einsum("bhw,bhwc->bc", seen, jnp.square(map))
            moments[name] = jnp.sum(seen, axis=(1, 2)), total, squares
        return moments

    def widths(self, inputs: Any) -> np.ndarray:
        """Returns the columns of each timeline of a corpus, int [n]."""
        return spectrogram.widths(inputs)

    def lower(self, pictures: jax.Array | Mapping) -> dict[str, Any]:
        """Maps uint8 [batch, bands, width], 0 after a timeline's end, to what `upper` takes.

        A dictionary has `pictures`, and what is passed on.
        """
        if isinstance(pictures, Mapping):
            passed_on = {name: x for name, x in pictures.items() if name != "pictures"}
            return self.lower(pictures["pictures"]) | passed_on
        picture = self.picture
        widths = jnp.sum(pictures[:, 0] > 0, axis=1, dtype=jnp.int32)
        kind = self.backbone.input_of(picture.preprocessing)
        x = network_input(pictures, picture.colour_map, None, kind).astype(self.dtype)
        if not self.frozen_blocks:
            return {"widths": widths, "picture": x}
        outputs = self.trunk(x, 1, self.frozen_blocks, widths)
        read = set(self.head.heads)
        if self.frozen_blocks < self.last_block:
            read.add(self._last_frozen)
        return {"widths": widths} | {name: outputs[name] for name in read & set(outputs)}

    def augment(self, x: Mapping[str, jax.Array], rngs: jax.Array) -> dict[str, jax.Array]:
        """Crops each row of what `lower` returned, and hides some of its time and of its height.

        Args:
            x: The rows; maps may be `Pieces`, of which the crops alone are read.
            rngs: A random key for each row.

        Returns:
            The same dictionary, the maps being at most `MOST_PIXELS` wide, and `hidden`, float32
            [batch, 4]: the start and the end of what is hidden, as shares of the crop's time and
            then of its height.
        """
        unit = self.piece
        own = {name: x[name] for name in x if name.startswith(STANDARDISE)}
        maps = {name: map for name, map in x.items() if name != "widths" and name not in own}
        units = x["widths"] // unit

        def draw(rng, units):
            share, start, *hidden = jax.random.uniform(rng, (6,))
            share = self.least_share + (1 - self.least_share) * share
            width = jnp.round(share * units).astype(jnp.int32)
            width = jnp.clip(width, 1, MOST_PIXELS // unit)
            start = jnp.floor(start * (units - width + 1)).astype(jnp.int32)
            ends = []
            for length, place in (hidden[:2], hidden[2:]):
                length = self.most_hidden * length
                ends += [place * (1 - length), place * (1 - length) + length]
            return start, width, jnp.stack(ends)

        starts, widths, hidden = jax.vmap(draw)(rngs, units)
        cropped = {}
        for name, map in maps.items():
            if is_pieces(map):
                cropped[name] = map.read(starts, min(map.width, MOST_PIXELS // unit))
                continue
            columns = unit // self._pixels(name)  # of the map in a unit
            size = min(MOST_PIXELS // unit * columns, map.shape[2])
            wanted = starts[:, None] * columns + jnp.arange(size)[None]
            wanted = jnp.minimum(wanted, map.shape[2] - 1)  # after the crop, anything will do
            cropped[name] = jax.vmap(lambda row, wanted: row[:, wanted])(map, wanted)
        return {"widths": widths * unit, "hidden": hidden} | cropped | own

    def mix(
        self, x: Mapping[str, jax.Array], others: Mapping[str, jax.Array], share: jax.Array
    ) -> dict[str, jax.Array]:
        """Mixes what `augment` returned with other such rows.

        A row ends where the shorter of the two does.

        Args:
            x: The rows, without a scaling of their own.
            others: As many others.
            share: float32 [batch], what a row keeps of itself, 0 to 1.
        """
        mixed = {"widths": jnp.minimum(x["widths"], others["widths"]), "hidden": x["hidden"]}
        for name in {*x} - {*mixed}:
            kept = share[:, None, None, None].astype(x[name].dtype)
            mixed[name] = kept * x[name] + (1 - kept) * others[name]
        return mixed

    def upper(
        self,
        x: Mapping[str, jax.Array],
        mask: jax.Array,
        train: bool = False,
        rngs: jax.Array | None = None,
    ) -> Outputs:
        """Classifies what `lower` or `augment` returned, see `DeepSpectrumNetwork`."""
        maps, seen = {}, {}
        for name, (map, of_map) in self._maps(x).items():
            own = x.get(f"{STANDARDISE}{name}")
            maps[name], seen[name] = self.standardise[name](map, own), of_map
        return self.trained_classes(self.head(maps, seen, mask, train, rngs))

    def _maps(self, x: Mapping[str, jax.Array]) -> dict[str, tuple[jax.Array, jax.Array]]:
        """Runs the blocks that are trained.

        Returns:
            For each head its map, float32 [batch, height, width, channels], and 1 where a position
            is real and not hidden, float32 [batch, height, width].
        """
        maps = dict(x)
        if self.frozen_blocks < self.last_block:
            below = self._last_frozen if self.frozen_blocks else "picture"
            widths = x["widths"] // self._pixels(below)
            maps |= self.trunk(x[below], self.frozen_blocks + 1, self.last_block, widths)
        return {
            name: (
                maps[name].astype(jnp.float32),
                seen_positions(
                    maps[name].shape, x["widths"] // self._pixels(name), x.get("hidden")
                ),
            )
            for name in self.head.heads
        }

    def _pixels(self, name: str) -> int:
        """Returns how many pixels of a timeline a column of a block's output stands for."""
        return 1 if name == "picture" else 2 ** (self.backbone.outputs.index(name) + 1)


def seen_positions(
    shape: Sequence[int], widths: jax.Array, hidden: jax.Array | None = None
) -> jax.Array:
    """Returns 1 where a position of a map is real and not hidden, float32 [batch, height, width].

    Args:
        shape: The map's, [batch, height, width, channels].
        widths: int32 [batch], the real columns of the map.
        hidden: See `TimelineNetwork.augment`. A map that it would hide whole, by its time or by its
            height, is not hidden so.
    """
    batch, height, width = shape[:3]
    columns = jnp.arange(width)[None]
    across, up = columns < widths[:, None], jnp.ones((batch, height), bool)

    def without(real, places, start, end):
        left = real & ((places < start) | (places >= end))
        return jnp.where(jnp.any(left, axis=1, keepdims=True), left, real)

    if hidden is not None:
        start, end, low, high = jnp.split(hidden, 4, axis=1)
        times = (columns + 0.5) / jnp.maximum(widths, 1)[:, None]
        across = without(across, times, start, end)
        up = without(up, (jnp.arange(height)[None] + 0.5) / height, low, high)
    return (up[:, :, None] & across[:, None]).astype(jnp.float32)
