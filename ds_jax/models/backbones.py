"""The backbones, and which of them a config needs."""

from ml_collections import ConfigDict

from ds_jax.features import extract
from ds_jax.models import keras_backbone, vgg16
from ds_jax.models.backbone import Backbone

BACKBONES = {"vgg16": vgg16.VGG16, **keras_backbone.BACKBONES}


def backbone_of(config: ConfigDict) -> Backbone:
    """Returns the backbone of a config's pictures; configs of earlier versions name none."""
    return BACKBONES[config.model.get("backbone", "vgg16")]


def built(config: ConfigDict) -> Backbone:
    """Returns the same with its blocks, for which Keras, where it is needed, builds the network.

    Raises:
        ConfigError: Keras builds no such network for pictures of this size.
        ValueError: Keras runs on another library than JAX.
    """
    backbone = backbone_of(config)
    if backbone.blocks:
        return backbone
    layers = tuple(config.model.get("layers", ()))
    return keras_backbone.build(backbone, extract.settings(config).size, layers)


def needs_full_weights(config: ConfigDict) -> bool:
    """Returns whether a config needs the top layers of its backbone (VGG16's fc1 and fc2)."""
    layers = config.model.get("layers", ())
    return config.model.get("head") == "fc" or bool({*layers} & {*backbone_of(config).top_layers})
