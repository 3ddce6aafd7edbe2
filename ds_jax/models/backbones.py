"""The backbones, and which of them a config needs."""

import ml_collections

from ds_jax.models import vgg16
from ds_jax.models.backbone import Backbone

BACKBONES = {backbone.name: backbone for backbone in (vgg16.VGG16,)}


def backbone_of(config: ml_collections.ConfigDict) -> Backbone:
    """Returns the backbone of a config's pictures; as long as there is one, no field names it."""
    del config
    [backbone] = BACKBONES.values()
    return backbone


def needs_full_weights(config: ml_collections.ConfigDict) -> bool:
    """Returns whether a config needs the top layers of its backbone (VGG16's fc1 and fc2)."""
    layers = config.model.get("layers", ())
    return config.model.get("head") == "fc" or not set(layers) <= set(backbone_of(config).outputs)
