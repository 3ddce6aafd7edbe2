"""The network of a config, whatever it reads: pictures or features."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from ml_collections import ConfigDict

from ds_jax.features import extract
from ds_jax.models.backbones import built
from ds_jax.models.baselines import LSTM, FeatureNetwork, FeedForward
from ds_jax.models.deep_spectrum import AttentionHeads, DeepSpectrumNetwork, FullyConnectedHead
from ds_jax.models.layers import Network
from ds_jax.models.timeline import StatisticsHeads, TimelineNetwork

Variables = Mapping[str, Mapping]  # {"params": ..., "batch_stats": ...}


def create_network(
    config: ConfigDict, axis_name: str | None = None, dtype: DTypeLike = jnp.float32
) -> Network:
    """Builds the network of a config.

    Args:
        config: A config that `systems.base.check` has passed, of a system that is a network.
        axis_name: The mapped axis that a batch is spread over; None on a single device.
        dtype: The type that a backbone is computed in, and in which attention heads multiply.
    """
    model, settings, classes = config.model, extract.settings(config), len(config.classes)
    match config.system:
        case "lstm":
            body = LSTM(tuple(model.units), model.dense_units, classes)
            return FeatureNetwork(body, settings)
        case "ffnn":
            body = FeedForward(tuple(model.units), model.dropout, classes)
            return FeatureNetwork(body, settings)
    kind, backbone, augmentation = DeepSpectrumNetwork, built(config), ()
    match config.system:
        case "ds_am":
            gates, weights = tuple(model.gates), tuple(model.loss_weights)
            head = AttentionHeads(gates, model.merging, weights, classes, axis_name, dtype)
            last_block = backbone.outputs.index(gates[-1]) + 1
        case "ds_am_statistics":
            kind, heads, weights = TimelineNetwork, tuple(model.heads), tuple(model.loss_weights)
            head = StatisticsHeads(heads, model.gate, model.dropout, weights, classes, axis_name)
            last_block = backbone.outputs.index(heads[-1]) + 1
            augmentation = config.train.least_share, config.train.most_hidden
        case "ds_fc":
            head = FullyConnectedHead(backbone, model.head, model.dropout, classes, dtype)
            last_block = len(backbone.blocks)
    frozen_blocks = ["", *(block.name for block in backbone.blocks)].index(model.freeze)
    return kind(backbone, head, last_block, frozen_blocks, settings, dtype, *augmentation)


def split_frozen(network: Network, params: Mapping) -> tuple[dict, dict]:
    """Splits a network's parameters, or some of them, by module and layer.

    Returns:
        Those that training leaves as they are, and those that it changes: two trees of the same
        form, without empty modules; `merge_params` joins them again.
    """
    frozen, trained = {}, {}
    for module, layers in params.items():
        names = network.frozen_layers(module)
        for name, layer in layers.items():
            (frozen if name in names else trained).setdefault(module, {})[name] = layer
    return frozen, trained


def merge_params(*trees: Mapping) -> dict:
    """Joins trees of parameters whose layers differ, by module and layer."""
    merged = {}
    for tree in trees:
        for module, layers in tree.items():
            merged[module] = merged.get(module, {}) | dict(layers)
    return merged


def abstract_variables(network: Network) -> Variables:
    """Returns shapes and dtypes of the network's variables, without computing any."""
    inputs = jax.ShapeDtypeStruct((1, *network.input_shape), network.input_dtype)
    mask = jax.ShapeDtypeStruct((1,), jnp.float32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), inputs, mask)
    return {"params": shapes["params"], "batch_stats": shapes.get("batch_stats", {})}
