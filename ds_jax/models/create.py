"""The network of a config, whatever it reads: pictures or features."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import ml_collections
from jax.typing import DTypeLike

from ds_jax.features import extract
from ds_jax.models import baselines, deep_spectrum, timeline, vgg16
from ds_jax.models.backbone import Backbone

Network = deep_spectrum.DeepSpectrumNetwork | baselines.FeatureNetwork
Variables = Mapping[str, Mapping]  # {"params": ..., "batch_stats": ...}

BACKBONES = {backbone.name: backbone for backbone in (vgg16.VGG16,)}
# What stands on the backbone, or reads the features, of each system that is a network.
HEADS = {"ds_am": "attention", "ds_fc": "fully_connected"}
BODIES = {"lstm": baselines.create_lstm, "ffnn": baselines.create_feed_forward}


def backbone_of(config: ml_collections.ConfigDict) -> Backbone:
    """Returns the backbone of a config's pictures; as long as there is one, no field names it."""
    del config
    [backbone] = BACKBONES.values()
    return backbone


def needs_full_weights(config: ml_collections.ConfigDict) -> bool:
    """Returns whether a config needs the top layers of its backbone (VGG16's fc1 and fc2)."""
    layers = config.model.get("layers", ())
    return config.model.get("head") == "fc" or not set(layers) <= set(backbone_of(config).outputs)


def create_network(
    config: ml_collections.ConfigDict,
    axis_name: str | None = None,
    dtype: DTypeLike = jnp.float32,
) -> Network:
    """Builds the network of a config.

    Args:
        config: A run's config, of a system that is a network.
        axis_name: The mapped axis that a batch is spread over; None on a single device.
        dtype: The type that a backbone is computed in.

    Raises:
        ConfigError: A field has an impossible value.
    """
    settings = extract.settings(config)
    if config.system in BODIES:
        return baselines.FeatureNetwork(BODIES[config.system](config.model, settings), settings)
    backbone = backbone_of(config)
    if config.system == timeline.SYSTEM:
        return timeline.create(config.model, settings, backbone, axis_name, dtype)
    head = HEADS[config.system]
    return deep_spectrum.create(head, config.model, settings, backbone, axis_name, dtype)


def split_frozen(network: Network, params: Mapping) -> tuple[dict, dict]:
    """Splits parameters into those that training leaves as they are, and those that it changes.

    Args:
        network: The network that the parameters belong to.
        params: A tree of the network's parameters, or a part of it, by module and layer.

    Returns:
        Two trees of the same form, without empty modules; `merge_params` joins them again.
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
