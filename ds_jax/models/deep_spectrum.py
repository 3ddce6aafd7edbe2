"""The two networks: VGG16 under attention heads (DS-AM) or under a fully connected head (DS-FC)."""

from collections.abc import Mapping

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import DTypeLike

from ds_jax.data.corpus import LABELS
from ds_jax.features.spectrogram import PictureSettings
from ds_jax.models.attention import AttentionHead
from ds_jax.models.layers import drop
from ds_jax.models.preprocessing import colour_table, network_input
from ds_jax.models.vgg16 import BLOCKS, VGG16, FullyConnected

SYSTEMS = {"ds_am": "DS-AM", "ds_fc": "DS-FC"}  # as the config and as reports call them
POOLS = tuple(f"block{block}_pool" for block in range(1, len(BLOCKS) + 1))
TRUNK = "vgg16"  # the module that holds VGG16's blocks
FULL_SIZE = 224  # pixels; fc1's ImageNet weights fit this side alone
FUSION_UNITS = 256  # hidden units of early fusion (Gorriz et al., 2019)


class Outputs(flax.struct.PyTreeNode):
    """What a network says of a batch.

    Attributes:
        logits: float32 [batch, 7].
        head_logits: For each attention head, by the name of its block, float32 [batch, 7].
        gates: For each attention head, float32 [batch, height, width] in 0..1.
        loss_terms: Pairs of a weight and logits; the loss is the weighted sum of cross-entropies.
    """

    logits: jax.Array
    head_logits: dict[str, jax.Array]
    gates: dict[str, jax.Array]
    loss_terms: tuple[tuple[float, jax.Array], ...]

    def losses(self, labels: jax.Array) -> jax.Array:
        """Returns float32 [batch], each row's loss, for labels int32 [batch]."""
        return sum(
            weight * optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            for weight, logits in self.loss_terms
        )


class AttentionHeads(nn.Module):
    """Attention heads on some of VGG16's blocks, merged into one prediction.

    Attributes:
        gates: Names of the pooled blocks that carry a head, lower ones first.
        merging: "multi_loss": the losses of all heads are added up and the prediction is the mean
            of their logits. "early_fusion": the heads' features are concatenated and classified
            together; the heads' own classifiers then only look on, and send no gradient down.
        loss_weights: One for each head (Gorriz et al.: 1 and 0.8).
        axis_name: The mapped axis that the batch is spread over; None on a single device.
    """

    gates: tuple[str, ...]
    merging: str
    loss_weights: tuple[float, ...]
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, pools: Mapping[str, jax.Array], mask: jax.Array, train: bool, rngs: jax.Array | None
    ) -> Outputs:
        """Classifies the pooled blocks of VGG16; no randomness is drawn from `rngs`."""
        del rngs
        features, gates, head_logits = {}, {}, {}
        for name in self.gates:
            head = AttentionHead(self.axis_name, name=f"{name}_attention")
            features[name], gates[name] = head(pools[name], mask, train)
            seen = features[name]
            if self.merging == "early_fusion":
                seen = jax.lax.stop_gradient(seen)
            head_logits[name] = nn.Dense(len(LABELS), name=f"{name}_logits")(seen)
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
    """DS-FC's head on block5_pool.

    Attributes:
        kind: "fc": VGG16's own fc1 and fc2 with dropout after each, then seven classes. "gap":
            the mean over positions, then seven classes.
        dropout: Share of fc1's and fc2's units that are dropped (0.5: Simonyan and Zisserman,
            section 3.1); `gap` drops none.
        dtype: In which fc1 and fc2 are computed.
    """

    kind: str
    dropout: float
    dtype: DTypeLike = jnp.float32

    def setup(self):
        if self.kind == "fc":
            self.fully_connected = FullyConnected(self.dtype)
        self.classifier = nn.Dense(len(LABELS))

    def __call__(
        self, pools: Mapping[str, jax.Array], mask: jax.Array, train: bool, rngs: jax.Array | None
    ) -> Outputs:
        """Classifies block5_pool; `rngs` holds one random key for each row of the batch."""
        del mask
        x = pools[POOLS[-1]]
        if self.kind == "gap":
            x = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
        else:
            rngs = rngs if train else None
            x = self.fully_connected(x, lambda x, layer: drop(x, self.dropout, rngs, layer))
        logits = self.classifier(x.astype(jnp.float32))
        return Outputs(logits, {}, {}, ((1.0, logits),))


class Network(nn.Module):
    """Stored pictures to seven logits: preprocessing, VGG16 and a head.

    The frozen blocks are `lower`, which training never changes; the rest is `upper`.

    Attributes:
        head: An `AttentionHeads` or a `FullyConnectedHead`.
        last_block: The highest block of VGG16 that the head looks at.
        frozen_blocks: How many of VGG16's blocks, from below, keep their ImageNet weights.
        picture: How pictures are coloured, resized and centred.
        dtype: In which VGG16 is computed; parameters, sums and logits are float32.
    """

    head: nn.Module
    last_block: int
    frozen_blocks: int
    picture: PictureSettings
    dtype: DTypeLike = jnp.float32

    input_dtype = jnp.uint8

    def setup(self):
        self.vgg16 = VGG16(self.dtype)

    @property
    def input_shape(self) -> tuple[int, int]:
        """Of one stored picture."""
        return self.picture.canvas, self.picture.canvas

    def frozen_layers(self, module: str) -> set[str]:
        """Returns the names of a module's layers that keep their ImageNet weights."""
        if module != TRUNK:
            return set()
        return {
            f"block{block}_conv{index}"
            for block in range(1, self.frozen_blocks + 1)
            for index in range(1, BLOCKS[block - 1][1] + 1)
        }

    @property
    def ported_layers(self) -> dict[str, tuple[str, ...]]:
        """Names of the layers that begin with ImageNet weights, by module."""
        trunk = tuple(
            f"block{block}_conv{index}"
            for block in range(1, self.last_block + 1)
            for index in range(1, BLOCKS[block - 1][1] + 1)
        )
        with_fc = isinstance(self.head, FullyConnectedHead) and self.head.kind == "fc"
        return {TRUNK: trunk, "head": ("fully_connected",) if with_fc else ()}

    def port(self, pretrained: Mapping) -> dict[str, dict]:
        """Puts ImageNet weights where this network has them.

        Args:
            pretrained: Weights by layer, see `pretrained.load`; there may be more than are needed.

        Returns:
            A part of the network's parameters, by module and layer.
        """
        ported = {TRUNK: {name: pretrained[name] for name in self.ported_layers[TRUNK]}}
        if self.ported_layers["head"]:
            ported["head"] = {"fully_connected": {n: pretrained[n] for n in ("fc1", "fc2")}}
        return ported

    def scaling(self, inputs, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Nothing: pictures are centred by ImageNet's means, whatever the training side is."""
        del inputs, rows
        return {}

    def lower(self, pictures: jax.Array) -> jax.Array:
        """Maps uint8 [batch, canvas, canvas] to what `upper` takes: [batch, height, width, c]."""
        picture = self.picture
        x = network_input(pictures, picture.colour_map, picture.size, picture.preprocessing)
        if self.frozen_blocks:
            x = self.vgg16(x, 1, self.frozen_blocks)[f"block{self.frozen_blocks}_pool"]
        return x

    def upper(
        self, x: jax.Array, mask: jax.Array, train: bool = False, rngs: jax.Array | None = None
    ) -> Outputs:
        """Classifies what `lower` returned.

        Args:
            x: [batch, height, width, channels].
            mask: float32 [batch], 1 for a real row and 0 for padding.
            train: Whether batch statistics and dropout are those of training.
            rngs: One random key for each row; needed by dropout in training.
        """
        pools = {f"block{self.frozen_blocks}_pool": x}
        if self.frozen_blocks < self.last_block:
            pools = self.vgg16(x, self.frozen_blocks + 1, self.last_block)
        return self.head(pools, mask, train, rngs)

    def __call__(
        self, pictures: jax.Array, mask: jax.Array, train: bool = False, rngs=None
    ) -> Outputs:
        """Classifies stored pictures, uint8 [batch, canvas, canvas]."""
        return self.upper(self.lower(pictures), mask, train, rngs)


def create(
    system: str,
    model: Mapping,
    picture: PictureSettings,
    axis_name: str | None = None,
    dtype: DTypeLike = jnp.float32,
) -> Network:
    """Builds the network of a system.

    Args:
        system: "ds_am" or "ds_fc".
        model: The fields of `config.model`.
        picture: How pictures are drawn, and fed to the network.
        axis_name: The mapped axis that the batch is spread over; None on a single device.
        dtype: In which VGG16 is computed.

    Raises:
        ValueError: A field has an impossible value; it names the field and what is allowed.
    """
    _check("system", system, tuple(SYSTEMS))
    needed = {"ds_am": "gates", "ds_fc": "head"}[system]
    if needed not in model:
        raise ValueError(
            f"system={system!r} needs model.{needed}: start from configs/{system}_*.py"
        )
    colour_table(picture.colour_map)
    blocks = tuple(f"block{block}" for block in range(1, len(BLOCKS) + 1))
    _check("model.freeze", model["freeze"], ("", *blocks))
    frozen_blocks = blocks.index(model["freeze"]) + 1 if model["freeze"] else 0
    if system == "ds_am":
        gates = tuple(model["gates"])
        for gate in gates:
            _check("model.gates", gate, POOLS)
        if not gates or sorted(set(gates)) != list(gates):
            raise ValueError(f"model.gates={gates} must name blocks once each, lower ones first")
        if POOLS.index(gates[0]) + 1 < frozen_blocks:
            raise ValueError(
                f"model.freeze={model['freeze']!r} lies above the gate on {gates[0]}: freeze no "
                "more than the gate's own block"
            )
        _check("model.merging", model["merging"], ("multi_loss", "early_fusion"))
        if len(model["loss_weights"]) != len(gates):
            raise ValueError(
                f"model.loss_weights={tuple(model['loss_weights'])} needs one for each of the "
                f"{len(gates)} gates"
            )
        if min(model["loss_weights"]) < 0 or not sum(model["loss_weights"]):
            raise ValueError(
                f"model.loss_weights={tuple(model['loss_weights'])} must be 0 or more each, and "
                "not all 0"
            )
        head = AttentionHeads(gates, model["merging"], tuple(model["loss_weights"]), axis_name)
        return Network(head, POOLS.index(gates[-1]) + 1, frozen_blocks, picture, dtype)
    _check("model.head", model["head"], ("fc", "gap"))
    if not 0 <= model["dropout"] < 1:
        raise ValueError(f"model.dropout={model['dropout']} must lie in 0..1, below 1")
    if model["head"] == "fc" and picture.size != FULL_SIZE:
        raise ValueError(
            f"model.head='fc' needs picture.size={FULL_SIZE}, not {picture.size}: fc1's weights "
            "fit no other; use model.head='gap'"
        )
    head = FullyConnectedHead(model["head"], model["dropout"], dtype)
    return Network(head, len(BLOCKS), frozen_blocks, picture, dtype)


def _check(field: str, value, allowed: tuple) -> None:
    if value not in allowed:
        raise ValueError(f"{field}={value!r} is not one of {', '.join(map(repr, allowed))}")
