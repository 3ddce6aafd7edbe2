"""Checks of the systems that read pictures: what depends on the backbone below their heads."""

from collections.abc import Sequence

import ml_collections

from ds_jax import config as configuration
from ds_jax.features.spectrogram import PictureSettings
from ds_jax.models.backbones import backbone_of, needs_full_weights
from ds_jax.models.colours import colour_table
from ds_jax.runtime.errors import ConfigError, check_choice
from ds_jax.runtime.progress import many


def check(config: ml_collections.ConfigDict, picture: PictureSettings) -> None:
    """Checks what depends on the backbone: pictures, frozen blocks, gates and layers.

    Raises:
        ConfigError: A field has an impossible value.
    """
    layouts = ("timeline",) if "heads" in config.model else ("deepspectrum", "plain")
    if "pooling" in config.model:
        layouts = ("deepspectrum", "plain", "timeline")
    check_choice("picture.layout", picture.layout, layouts)
    model, backbone = config.model, backbone_of(config)
    blocks, outputs = [block.name for block in backbone.blocks], backbone.outputs
    colour_table(picture.colour_map)
    check_choice("picture.preprocessing", picture.preprocessing, backbone.preprocessing)
    if "freeze" in model:
        check_choice("model.freeze", model.freeze, ("", *blocks))
    for name in {"gates", "heads"} & set(model):
        field, given = f"model.{name}", tuple(model[name])
        _check_list(field, given, outputs)
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
        _check_list("model.layers", model.layers, known)
    if needs_full_weights(config) and picture.size != backbone.size:
        top = " and ".join(backbone.top_layers)
        allowed = (
            f"{backbone.size}, since the parameters of {top} fit no other size "
            f"(model.head='gap' and the layer {outputs[-1]!r} take any)"
        )
        raise ConfigError("picture.size", picture.size, allowed)


def _check_list(field: str, names: Sequence[str], known: Sequence[str]) -> None:
    """Checks that a field names some parts of the backbone."""
    if not names or not set(names) <= set(known) or len(set(names)) < len(names):
        allowed = f"one or more of {', '.join(map(repr, known))}, each once"
        raise ConfigError(field, tuple(names), allowed)
