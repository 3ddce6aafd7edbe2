"""--mode=export: writes a run's models as one file that JAX alone can run, from waveforms on."""

import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import ml_collections

from ds_jax.features import extract, spectrogram_jax
from ds_jax.features.spectrogram import PictureSettings
from ds_jax.models import create as create_model
from ds_jax.models.layers import Network
from ds_jax.report import pages
from ds_jax.runtime import processes
from ds_jax.runtime.errors import ConfigError, one_of
from ds_jax.runtime.files import check_writable, write_bytes, write_json, write_text
from ds_jax.runtime.progress import many
from ds_jax.runtime.workdir import CHECKPOINTS
from ds_jax.systems import base as systems
from ds_jax.systems import card
from ds_jax.systems import network as saved_networks
from ds_jax.systems.model import EXPORTED, EXPORTED_CARD, find_checkpoints

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
LARGEST = 2_000_000_000  # bytes of parameters; JAX's format ends at 2**31 with the program


def run(checkpoint: Path, directory: Path | None = None) -> None:
    """Writes model.stablehlo, model.json and README.md.

    The model's probabilities are those of `predict.run` for the same checkpoint, the mean over the
    best models of all finished folds. No fold is chosen as the best, since the folds were scored on
    test data, which never chooses.

    Args:
        checkpoint: The folder of a run or of a fold.
        directory: The folder of the files; None means `export` in the checkpoint's folder.

    Raises:
        FileNotFoundError: There is no checkpoint.
        ValueError: The system, or a field of its config, cannot be exported.
        OSError: The folder cannot be written.
    """
    checkpoint = checkpoint.absolute()
    checkpoints = find_checkpoints(checkpoint)
    config = systems.load_config(checkpoints)
    settings = _settings(config)
    if directory is None:
        parent = checkpoint.parent if checkpoint.name == CHECKPOINTS else checkpoint
        directory = parent / "export"
    network = create_model.create_network(config)
    variables = [saved_networks.load(folder)[2] for folder in checkpoints]
    _check_size(network, variables)
    check_writable(directory)
    exported = trace(network, variables, settings)
    facts = _facts(config, checkpoints, exported)
    formats = {"plain": _plain, "counts": _counts, "with_interval": pages.with_interval}
    content = exported.serialize()
    write_bytes(directory / EXPORTED, content)
    write_text(directory / "README.md", pages.render("export.md.jinja", **facts, **formats))
    write_json(directory / EXPORTED_CARD, facts)
    megabytes = len(content) / 1e6
    processes.say(
        f"exported: {directory / EXPORTED}, {megabytes:.0f} MB; README.md there says how to use it"
    )


def trace(
    network: Network,
    variables: Sequence[create_model.Variables],
    settings: PictureSettings,
) -> jax.export.Exported:
    """Exports the mean over some models, for any number of recordings of any length.

    Args:
        network: The network of all models, in float32.
        variables: The variables of each model; `network.lower` reads the same ones in all of them.
        settings: How recordings are drawn.
    """
    frames = jax.config.jax_traceback_in_locations_limit
    batch, n = jax.export.symbolic_shape("batch, n")
    samples = jax.ShapeDtypeStruct((batch, n), jnp.float32)
    lengths = jax.ShapeDtypeStruct((batch,), jnp.int32)
    rate = settings.sample_rate
    draw = functools.partial(spectrogram_jax.draw, settings=settings, rate=rate)
    trim = functools.partial(spectrogram_jax.trim, settings=settings, rate=rate)
    split = functools.partial(spectrogram_jax.split_windows, settings=settings, rate=rate)

    def probabilities(samples, lengths):
        """Maps float32 [batch, n] and int32 [batch] to float32 [batch, classes]."""
        samples, lengths = jax.vmap(trim)(samples, lengths)
        windows, remaining, real = jax.vmap(split)(samples, lengths)
        batch, count, size = windows.shape
        windows = windows.reshape(batch * count, size)
        pictures = jax.vmap(draw)(windows, remaining.reshape(batch * count))
        lower = network.apply(variables[0], pictures, method="lower")
        mask = jnp.ones(batch * count, jnp.float32)
        outputs = [network.apply(each, lower, mask, method="upper") for each in variables]
        mean = sum(jax.nn.softmax(output.logits) for output in outputs) / len(outputs)
        mean = mean.reshape(batch, count, mean.shape[-1])
        return jnp.mean(mean, axis=1, where=real[..., None])

    # With tracebacks the file would name this machine's folders.
    jax.config.update("jax_traceback_in_locations_limit", 0)
    try:
        # Without this a TPU multiplies in bfloat16, and a GPU in TF32.
        with jax.default_matmul_precision("highest"):
            exported = jax.export.export(jax.jit(probabilities), platforms=PLATFORMS)
            return exported(samples, lengths)
    finally:
        jax.config.update("jax_traceback_in_locations_limit", frames)


def _settings(config: ml_collections.ConfigDict) -> PictureSettings:
    """Returns how recordings are drawn, if JAX can draw them.

    Raises:
        ConfigError: The system, or a field, cannot be exported.
    """
    if not systems.SYSTEMS[config.system].exports:
        exported = one_of(name for name, system in systems.SYSTEMS.items() if system.exports)
        allowed = f"{exported} to be exported, since others are not all JAX"
        raise ConfigError("system", config.system, allowed)
    settings = extract.settings(config)
    if settings.mode == "chroma":  # its tuning is not estimated in JAX
        allowed = "'mel' or 'spectrogram' to be exported"
        raise ConfigError("picture.mode", settings.mode, allowed)
    if not settings.sample_rate:
        allowed = "a number of Hz to be exported, since an exported model has one rate"
        raise ConfigError("picture.sample_rate", settings.sample_rate, allowed)
    return settings


def _check_size(network: Network, variables: Sequence[create_model.Variables]) -> None:
    def count_bytes(tree: Mapping) -> int:
        return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))

    frozen, _ = create_model.split_frozen(network, variables[0]["params"])
    shared = count_bytes(frozen)
    size = sum(count_bytes(each) - shared for each in variables) + shared
    if size > LARGEST:
        raise ValueError(
            f"{many(len(variables), 'model')} of {size / len(variables) / 1e9:.1f} GB: more "
            "than the 2 GB that an exported file can hold: export one fold, "
            "--checkpoint=RUN/fold_00"
        )


def _facts(
    config: ml_collections.ConfigDict, checkpoints: Sequence[Path], exported: jax.export.Exported
) -> dict:
    """Returns the content of model.json."""
    return card.read(config, checkpoints) | {
        "file": EXPORTED,
        "inputs": {
            "samples": "float32 [batch, n], mono, full scale at 1",
            "lengths": "int32 [batch], samples of each row that are the recording, 1 to n",
        },
        "output": f"float32 [batch, {len(config.classes)}], probabilities in the labels' order",
        "sample_rate": config.picture.sample_rate,
        "platforms": list(exported.platforms),
        "jax": jax.__version__,
        "calling_convention_version": exported.calling_convention_version,
        "trim": config.trim,
        "channel": config.channel,
        "picture": config.picture.to_dict(),
    }


def _plain(name: str) -> str:
    """Escapes a name so that Markdown finds no markup in it."""
    return re.sub(r"([\\`*_{}\[\]<>()#|])", r"\\\1", name)


def _counts(counts: Mapping) -> str:
    """Formats counts as "0 speakers, 14 sentences, 0 recordings", without unknown ones."""
    kinds = ("speakers", "sentences", "recordings")
    return ", ".join(
        many(counts[kind], kind.removesuffix("s")) for kind in kinds if counts.get(kind) is not None
    )
