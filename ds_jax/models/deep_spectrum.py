"""The networks on pictures: a backbone under attention heads (DS-AM) or a fully connected head."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ds_jax.features.spectrogram import PictureSettings
from ds_jax.models.attention import AttentionHead
from ds_jax.models.backbone import Backbone
from ds_jax.models.layers import Network, Outputs, TrainedClasses, drop
from ds_jax.models.preprocessing import network_input

FUSION_UNITS = 256  # hidden units of early fusion (Gorriz et al., 2019)


class AttentionHeads(nn.Module):
    """Attention heads on some of a backbone's blocks, merged into one prediction.

    Attributes:
        gates: The names of the blocks' outputs that carry a head, lower ones first.
        merging: "multi_loss": the losses of all heads are added up and the prediction is the mean
            of their logits. "early_fusion": the heads' features are concatenated and classified
            together; the heads' classifiers are trained too, but send no gradient down.
        loss_weights: A weight for each head (Gorriz et al.: 1 and 0.8).
        classes: The number of classes.
        axis_name: The mapped axis that the batch is spread over; None on a single device.
        dtype: As in `AttentionHead`.
    """

    gates: tuple[str, ...]
    merging: str
    loss_weights: tuple[float, ...]
    classes: int
    axis_name: str | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, outputs: Mapping[str, jax.Array], mask: jax.Array, train: bool, rngs: jax.Array | None
    ) -> Outputs:
        """Classifies the outputs of a backbone's blocks; `rngs` is not used."""
        features, gates, head_logits = {}, {}, {}
        for name in self.gates:
            head = AttentionHead(self.axis_name, self.dtype, name=f"{name}_attention")
            features[name], gates[name] = head(outputs[name], mask, train)
            x = features[name]
            if self.merging == "early_fusion":
                x = jax.lax.stop_gradient(x)
            head_logits[name] = nn.Dense(self.classes, name=f"{name}_logits")(x)
        loss_terms = tuple(zip(self.loss_weights, head_logits.values(), strict=True))
        if self.merging == "early_fusion":
            fused = jnp.concatenate(list(features.values()), axis=-1)
            fused = nn.relu(nn.Dense(FUSION_UNITS, name="fusion")(fused))
            logits = nn.Dense(self.classes, name="fusion_logits")(fused)
            loss_terms = ((1.0, logits), *loss_terms)
        else:
            logits = sum(head_logits.values()) / len(head_logits)
        return Outputs(logits, head_logits, gates, loss_terms)


class FullyConnectedHead(nn.Module):
    """The head of DS-FC on a backbone's last block.

    Attributes:
        backbone: The backbone that the head stands on.
        kind: "fc": the backbone's fully connected layers with dropout after each, then the
            classes. "gap": the mean over positions, then the classes.
        dropout: The share of the fully connected units that are dropped (0.5: Simonyan and
            Zisserman, section 3.1); `gap` drops none.
        classes: The number of classes.
        dtype: The type that the fully connected layers are computed in.
    """

    backbone: Backbone
    kind: str
    dropout: float
    classes: int
    dtype: DTypeLike = jnp.float32

    def setup(self):
        if self.kind == "fc":
            self.fully_connected = self.backbone.top(self.backbone.units, self.dtype)
        self.classifier = nn.Dense(self.classes)

    def __call__(
        self, outputs: Mapping[str, jax.Array], mask: jax.Array, train: bool, rngs: jax.Array | None
    ) -> Outputs:
        """Classifies the last block's output; `rngs` holds a random key for each row."""
        x = outputs[self.backbone.outputs[-1]]
        if self.kind == "gap":
            x = x.astype(jnp.float32)
            x = jnp.mean(x, axis=(1, 2)) if x.ndim == 4 else x
        else:
            rngs = rngs if train else None
            x = self.fully_connected(x, lambda x, layer: drop(x, self.dropout, rngs, layer))
        logits = self.classifier(x.astype(jnp.float32))
        return Outputs(logits, {}, {}, ((1.0, logits),))


class DeepSpectrumNetwork(Network):
    """Maps stored pictures to a logit for each class: preprocessing, a backbone and a head.

    The frozen blocks are `lower`.

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

    def setup(self):
        backbone = self.backbone
        self.trunk = backbone.trunk(backbone.blocks, self.dtype, name=backbone.name)
        self.trained_classes = TrainedClasses()

    @property
    def input_shape(self) -> tuple[int, int]:
        """The shape of a stored picture."""
        return self.picture.canvas, self.picture.canvas

    def frozen_layers(self, module: str) -> set[str]:
        """Returns the names of a module's layers that keep their pretrained parameters."""
        if module != self.backbone.name:
            return set()
        return {*self.backbone.layers_to(self.frozen_blocks), *self.backbone.fixed}

    def port(self, pretrained: Mapping) -> dict[str, dict]:
        """Puts pretrained parameters into the trunk, and into the fully connected layers."""
        backbone, layers = self.backbone, self.backbone.layers_to(self.last_block)
        ported = {backbone.name: {name: pretrained[name] for name in layers}}
        if isinstance(self.head, FullyConnectedHead) and self.head.kind == "fc":
            ported["head"] = {"fully_connected": {n: pretrained[n] for n in backbone.top_layers}}
        return ported

    def lower(self, pictures: jax.Array) -> jax.Array:
        """Maps uint8 [batch, canvas, canvas] to what `upper` takes: [batch, height, width, c]."""
        picture = self.picture
        kind = self.backbone.input_of(picture.preprocessing)
        x = network_input(pictures, picture.colour_map, picture.size, kind).astype(self.dtype)
        if self.frozen_blocks:
            x = self.trunk(x, 1, self.frozen_blocks)[self._last_frozen]
        return x

    def upper(
        self, x: jax.Array, mask: jax.Array, train: bool = False, rngs: jax.Array | None = None
    ) -> Outputs:
        """Classifies [batch, height, width, channels]."""
        if self.frozen_blocks < self.last_block:
            outputs = self.trunk(x, self.frozen_blocks + 1, self.last_block)
        else:
            outputs = {self._last_frozen: x}
        return self.trained_classes(self.head(outputs, mask, train, rngs))

    @property
    def _last_frozen(self) -> str:
        """The name of the highest frozen block's output."""
        return self.backbone.outputs[self.frozen_blocks - 1]
