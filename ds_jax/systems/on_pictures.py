"""Checks of the systems that read pictures: what depends on the backbone below their heads."""

import difflib
from collections.abc import Sequence

from ml_collections import ConfigDict

from ds_jax import config as configuration
from ds_jax.features.colours import colour_table
from ds_jax.features.spectrogram import PictureSettings
from ds_jax.models.backbone import Backbone
from ds_jax.models.backbones import BACKBONES, backbone_of, built, needs_full_weights
from ds_jax.runtime.errors import ConfigError, check_choice
from ds_jax.runtime.progress import many

SHOWN = 12  # names that an error lists


def complete(config: ConfigDict) -> None:
    """Puts the size that the backbone was trained on in place of a `picture.size` of 0.

    Raises:
        ConfigError: There is no such backbone.
    """
    check_choice("model.backbone", config.model.get("backbone", "vgg16"), BACKBONES)
    size = config.picture.get("size")
    if type(size) is int and size == 0:  # False is a mistake
        config.picture.size = backbone_of(config).size


def shares_weights(config: ConfigDict) -> bool:
    """Tells whether the file of weights of an ensemble, or of a page, is meant for an experiment.

    It is VGG16's; an experiment on another backbone has a file of its own.
    """
    return "weights" in config and config.get("model", {}).get("backbone", "vgg16") == "vgg16"


def check(config: ConfigDict, picture: PictureSettings) -> None:
    """Checks what depends on the backbone: pictures, frozen blocks, gates and layers.

    The names of blocks and layers that Keras has to build first are left to `check_built`.

    Raises:
        ConfigError: A field has an impossible value.
    """
    layouts = ("timeline",) if "heads" in config.model else ("deepspectrum", "plain")
    if "pooling" in config.model:
        layouts = ("deepspectrum", "plain", "timeline")
    check_choice("picture.layout", picture.layout, layouts)
    backbone = backbone_of(config)
    colour_table(picture.colour_map)
    kinds = backbone.preprocessing, "deepspectrum"
    check_choice("picture.preprocessing", picture.preprocessing, kinds)
    if config.model.get("head") == "fc" and not backbone.top_layers:
        allowed = "'gap', since this backbone has no fully connected layers; 'vgg16' has"
        raise ConfigError("model.head", "fc", allowed)
    if not backbone.blocks:
        if picture.is_timeline:
            allowed = "'vgg16' where picture.layout is 'timeline'"
            raise ConfigError("model.backbone", config.model.backbone, allowed)
        return
    _check_names(config, backbone)
    if needs_full_weights(config) and picture.size != backbone.size:
        top = " and ".join(backbone.top_layers)
        allowed = (
            f"{backbone.size}, since the parameters of {top} fit no other size "
            f"(model.head='gap' and the layer {backbone.outputs[-1]!r} take any)"
        )
        raise ConfigError("picture.size", picture.size, allowed)


def check_built(config: ConfigDict) -> None:
    """Checks the names of blocks and layers, which are known once Keras has built the backbone.

    Raises:
        ConfigError: The backbone has no such block or layer, or none for pictures of this size.
        ValueError: Keras is missing, or does not run on JAX.
    """
    _check_names(config, built(config))


def _check_names(config: ConfigDict, backbone: Backbone) -> None:
    """Checks the names of blocks and layers."""
    model, outputs = config.model, backbone.outputs
    blocks = [block.name for block in backbone.blocks]
    if "freeze" in model:
        cuts = [block.name for block in backbone.blocks if block.is_cut]
        check_choice("model.freeze", model.freeze, ("", *_near((model.freeze,), cuts, outputs)))
    for name in {"gates", "heads"} & set(model):
        field, given = f"model.{name}", tuple(model[name])
        maps = [block.output for block in backbone.blocks if block.height != 0]
        _check_list(field, given, maps, outputs)
        numbers = [outputs.index(output) for output in given]
        if numbers != sorted(numbers):
            raise ConfigError(field, given, "in this order: lower ones first")
        # What training changes must reach all gates; heads are handed the output of frozen blocks.
        highest = blocks[numbers[0] if name == "gates" else numbers[-1]]
        if configuration.adapts(config) and model.freeze != highest:
            allowed = f"{highest!r}, since adapt='speaker' measures maps that training leaves alone"
            raise ConfigError("model.freeze", model.freeze, allowed)
        if model.freeze and blocks.index(model.freeze) > blocks.index(highest):
            allowed = f"'' or at most {highest!r}, which carries one of {field}"
            raise ConfigError("model.freeze", model.freeze, allowed)
        if len(model.loss_weights) != len(given) or not any(model.loss_weights):
            allowed = f"{many(len(given), 'number')}, one for each of {field}, and not all 0"
            raise ConfigError("model.loss_weights", tuple(model.loss_weights), allowed)
    if "layers" in model:
        known = outputs if "pooling" in model else backbone.feature_layers
        _check_list("model.layers", model.layers, known, outputs)


def _check_list(
    field: str, names: Sequence[str], known: Sequence[str], outputs: Sequence[str]
) -> None:
    """Checks that a field names some of the parts of the backbone that it can have."""
    if not names or not set(names) <= set(known) or len(set(names)) < len(names):
        allowed = f"one or more of {', '.join(map(repr, _near(names, known, outputs)))}, each once"
        raise ConfigError(field, tuple(names), allowed)


def _near(names: Sequence[str], known: Sequence[str], outputs: Sequence[str]) -> Sequence[str]:
    """Returns all known names or, of very many, those that lie beside or are spelt like others."""
    if len(known) <= SHOWN:
        return known
    near = []
    for name in names:
        if name in outputs:
            place = outputs.index(name)
            near += sorted(known, key=lambda one, place=place: abs(outputs.index(one) - place))[:3]
        else:
            near += difflib.get_close_matches(name, known, 3, 0.0)
    return near
