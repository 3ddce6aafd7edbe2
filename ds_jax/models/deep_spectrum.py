"""The networks on pictures: a backbone under attention heads (DS-AM) or a fully connected head."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from ds_jax.data.labels import LABELS
from ds_jax.features.spectrogram import PictureSettings
from ds_jax.models.attention import AttentionHead
from ds_jax.models.backbone import Backbone
from ds_jax.models.layers import Outputs, check_dropout, drop
from ds_jax.models.preprocessing import colour_table, network_input
from ds_jax.runtime.errors import ConfigError, one_of

FUSION_UNITS = 256  # hidden units of early fusion (Gorriz et al., 2019)
MERGING = ("multi_loss", "early_fusion")
HEADS = ("fc", "gap")


class AttentionHeads(nn.Module):
    """Attention heads on some of a backbone's blocks, merged into one prediction.

    Attributes:
        gates: The names of the blocks' outputs that carry a head, lower ones first.
        merging: "multi_loss": the losses of all heads are added up and the prediction is the mean
            of their logits. "early_fusion": the heads' features are concatenated and classified
            together; the heads' classifiers are trained too, but send no gradient down.
        loss_weights: A weight for each head (Gorriz et al.: 1 and 0.8).
        axis_name: The mapped axis that the batch is spread over; None on a single device.
    """

    gates: tuple[str, ...]
    merging: str
    loss_weights: tuple[float, ...]
    axis_name: str | None = None

    ported_layers = ()  # all are new

    @nn.compact
    def __call__(
        self, outputs: Mapping[str, jax.Array], mask: jax.Array, train: bool, rngs: jax.Array | None
    ) -> Outputs:
        """Classifies the outputs of a backbone's blocks; `rngs` is not used."""
        del rngs
        features, gates, head_logits = {}, {}, {}
        for name in self.gates:
            head = AttentionHead(self.axis_name, name=f"{name}_attention")
            features[name], gates[name] = head(outputs[name], mask, train)
            x = features[name]
            if self.merging == "early_fusion":
                x = jax.lax.stop_gradient(x)
            head_logits[name] = nn.Dense(len(LABELS), name=f"{name}_logits")(x)
        loss_terms = tuple(zip(self.loss_weights, head_logits.values(), strict=True))
        if self.merging == "early_fusion":
            fused = jnp.concatenate(list(features.values()), axis=-1)
            fused = nn.relu(nn.Dense(FUSION_UNITS, name="fusion")(fused))
            logits = nn.Dense(len(LABELS), name="fusion_logits")(fused)
            loss_terms = ((1.0, logits), *loss_terms)
        else:
            logits = sum(head_logits.values()) / len(head_logits)
        return Outputs(logits, head_logits, gates, loss_terms)


class FullyConnectedHead(nn.Module):
    """The head of DS-FC on a backbone's last block.

    Attributes:
        backbone: The backbone that the head stands on.
        kind: "fc": the backbone's fully connected layers with dropout after each, then seven
            classes. "gap": the mean over positions, then seven classes.
        dropout: The share of the fully connected units that are dropped (0.5: Simonyan and
            Zisserman, section 3.1); `gap` drops none.
        dtype: The type that the fully connected layers are computed in.
    """

    backbone: Backbone
    kind: str
    dropout: float
    dtype: DTypeLike = jnp.float32

    @property
    def ported_layers(self) -> tuple[str, ...]:
        """The names of the head's modules that begin with pretrained parameters."""
        return ("fully_connected",) if self.kind == "fc" else ()

    def setup(self):
        if self.kind == "fc":
            self.fully_connected = self.backbone.top(self.backbone.units, self.dtype)
        self.classifier = nn.Dense(len(LABELS))

    def __call__(
        self, outputs: Mapping[str, jax.Array], mask: jax.Array, train: bool, rngs: jax.Array | None
    ) -> Outputs:
        """Classifies the last block's output; `rngs` holds a random key for each row."""
        del mask
        x = outputs[self.backbone.outputs[-1]]
        if self.kind == "gap":
            x = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
        else:
            rngs = rngs if train else None
            x = self.fully_connected(x, lambda x, layer: drop(x, self.dropout, rngs, layer))
        logits = self.classifier(x.astype(jnp.float32))
        return Outputs(logits, {}, {}, ((1.0, logits),))


class DeepSpectrumNetwork(nn.Module):
    """Maps stored pictures to seven logits: preprocessing, a backbone and a head.

    The frozen blocks are `lower`, which training never changes; the rest is `upper`.

    Attributes:
        backbone: What the head stands on.
        head: An `AttentionHeads` or a `FullyConnectedHead`.
        last_block: The number of the highest block that the head reads, from 1.
        frozen_blocks: How many blocks, from below, keep their pretrained parameters.
        picture: How pictures are coloured, resized and centred.
        dtype: The type that the backbone is computed in; parameters, sums and logits are float32.
    """

    backbone: Backbone
    head: nn.Module
    last_block: int
    frozen_blocks: int
    picture: PictureSettings
    dtype: DTypeLike = jnp.float32

    input_dtype = jnp.uint8
    augments = False  # whether it has a method `augment`, which changes training batches at random

    def setup(self):
        backbone = self.backbone
        self.trunk = backbone.trunk(backbone.blocks, self.dtype, name=backbone.name)

    @property
    def input_shape(self) -> tuple[int, int]:
        """The shape of a stored picture."""
        return self.picture.canvas, self.picture.canvas

    def frozen_layers(self, module: str) -> set[str]:
        """Returns the names of a module's layers that keep their pretrained parameters."""
        if module != self.backbone.name:
            return set()
        return set(self.backbone.layers_to(self.frozen_blocks))

    @property
    def ported_layers(self) -> dict[str, tuple[str, ...]]:
        """The names of the layers that begin with pretrained parameters, by module."""
        trunk = self.backbone.layers_to(self.last_block)
        return {self.backbone.name: trunk, "head": self.head.ported_layers}

    def port(self, pretrained: Mapping) -> dict[str, dict]:
        """Puts pretrained parameters where this network has them.

        Args:
            pretrained: Parameters by layer, see `pretrained.load`; there may be more than needed.

        Returns:
            A part of the network's parameters, by module and layer.
        """
        backbone, layers = self.backbone, self.ported_layers[self.backbone.name]
        ported = {backbone.name: {name: pretrained[name] for name in layers}}
        if self.ported_layers["head"]:
            ported["head"] = {"fully_connected": {n: pretrained[n] for n in backbone.top_layers}}
        return ported

    def scaling(self, inputs: np.ndarray, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Returns nothing: ImageNet's means centre pictures, whatever the train split is."""
        del inputs, rows
        return {}

    def widths(self, inputs: Any) -> np.ndarray | None:
        """Returns the columns of each picture of a corpus, int [n]; None: they are all equal."""
        del inputs
        return None

    def lower(self, pictures: jax.Array) -> jax.Array:
        """Maps uint8 [batch, canvas, canvas] to what `upper` takes: [batch, height, width, c]."""
        picture = self.picture
        x = network_input(pictures, picture.colour_map, picture.size, picture.preprocessing)
        if self.frozen_blocks:
            x = self.trunk(x, 1, self.frozen_blocks)[self._last_frozen]
        return x

    def upper(
        self, x: jax.Array, mask: jax.Array, train: bool = False, rngs: jax.Array | None = None
    ) -> Outputs:
        """Classifies what `lower` returned.

        Args:
            x: [batch, height, width, channels].
            mask: float32 [batch], 1 for a real row and 0 for padding.
            train: Whether batch statistics and dropout are those of training.
            rngs: A random key for each row, which dropout needs in training.
        """
        if self.frozen_blocks < self.last_block:
            outputs = self.trunk(x, self.frozen_blocks + 1, self.last_block)
        else:
            outputs = {self._last_frozen: x}
        return self.head(outputs, mask, train, rngs)

    def __call__(
        self,
        pictures: jax.Array,
        mask: jax.Array,
        train: bool = False,
        rngs: jax.Array | None = None,
    ) -> Outputs:
        """Classifies stored pictures, uint8 [batch, canvas, canvas]."""
        return self.upper(self.lower(pictures), mask, train, rngs)

    @property
    def _last_frozen(self) -> str:
        """The name of the highest frozen block's output."""
        return self.backbone.outputs[self.frozen_blocks - 1]


def create(
    head: str,
    model: Mapping,
    picture: PictureSettings,
    backbone: Backbone,
    axis_name: str | None = None,
    dtype: DTypeLike = jnp.float32,
) -> DeepSpectrumNetwork:
    """Builds a network on pictures.

    Args:
        head: "attention" (DS-AM) or "fully_connected" (DS-FC).
        model: The fields of `config.model`.
        picture: How pictures are drawn, and fed to the network.
        backbone: What the head stands on.
        axis_name: The mapped axis that the batch is spread over; None on a single device.
        dtype: The type that the backbone is computed in.

    Raises:
        ConfigError: A field has an impossible value.
    """
    check_picture(picture, backbone)
    blocks, frozen_blocks = backbone.blocks, count_frozen_blocks(model, backbone)
    if head == "attention":
        gates = _checked_gates(model, backbone, frozen_blocks)
        module = AttentionHeads(gates, model["merging"], tuple(model["loss_weights"]), axis_name)
        last_block = backbone.outputs.index(gates[-1]) + 1
    else:
        _check_fully_connected(model, picture, backbone)
        module = FullyConnectedHead(backbone, model["head"], model["dropout"], dtype)
        last_block = len(blocks)
    return DeepSpectrumNetwork(backbone, module, last_block, frozen_blocks, picture, dtype)


def check_picture(picture: PictureSettings, backbone: Backbone) -> None:
    """Checks that a backbone can read square pictures.

    Raises:
        ConfigError: There is no such colour map, or the backbone was trained on other colours; or
            pictures are timelines.
    """
    colour_table(picture.colour_map)
    _check("picture.preprocessing", picture.preprocessing, backbone.preprocessing)
    _check("picture.layout", picture.layout, ("deepspectrum", "plain"))


def count_frozen_blocks(model: Mapping, backbone: Backbone) -> int:
    """Returns how many blocks `model.freeze` freezes.

    Raises:
        ConfigError: It names no block.
    """
    blocks, freeze = [block.name for block in backbone.blocks], model.get("freeze")
    _check("model.freeze", freeze, ("", *blocks))
    return blocks.index(freeze) + 1 if freeze else 0


def checked_outputs(field: str, names: Sequence[str], backbone: Backbone) -> tuple[str, ...]:
    """Returns the names of blocks' outputs that a field holds.

    Raises:
        ConfigError: There is none, or one is unknown, given twice or not above the one before.
    """
    names, outputs = tuple(names), backbone.outputs
    if not names or list(names) != sorted(set(names) & set(outputs), key=outputs.index):
        allowed = f"one or more of {', '.join(map(repr, outputs))}, each once, lower ones first"
        raise ConfigError(field, names, allowed)
    return names


def check_loss_weights(model: Mapping, heads: Sequence[str]) -> None:
    """Checks the field `loss_weights` of `config.model`.

    Raises:
        ConfigError: It has not a weight for each head.
    """
    weights = tuple(model.get("loss_weights", ()))
    if len(weights) != len(heads) or min(weights) < 0 or not any(weights):
        allowed = f"{len(heads)} numbers, one for each gate, 0 or more each and not all 0"
        raise ConfigError("model.loss_weights", weights, allowed)


def _checked_gates(model: Mapping, backbone: Backbone, frozen_blocks: int) -> tuple[str, ...]:
    """Returns `model.gates`, after all fields of attention heads are checked."""
    gates = checked_outputs("model.gates", model.get("gates", ()), backbone)
    lowest = backbone.outputs.index(gates[0]) + 1
    if lowest < frozen_blocks:
        allowed = f"'' or at most {backbone.blocks[lowest - 1].name!r}, which carries a gate"
        raise ConfigError("model.freeze", model["freeze"], allowed)
    _check("model.merging", model.get("merging"), MERGING)
    check_loss_weights(model, gates)
    return gates


def _check_fully_connected(model: Mapping, picture: PictureSettings, backbone: Backbone) -> None:
    _check("model.head", model.get("head"), HEADS)
    check_dropout(model)
    if model["head"] == "fc" and picture.size != backbone.size:
        allowed = (
            f"{backbone.size} for model.head='fc', since the parameters of "
            f"{backbone.top_layers[0]} fit no other size (model.head='gap' takes any)"
        )
        raise ConfigError("picture.size", picture.size, allowed)


def _check(field: str, value: object, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ConfigError(field, value, one_of(allowed))
