"""--mode=export: writes a run's models as one file, from waveforms on, for JAX or ONNX Runtime."""

import functools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import ml_collections
import numpy as np

from ds_jax.config import adapts
from ds_jax.features import extract, spectrogram_jax
from ds_jax.features.spectrogram import PictureSettings
from ds_jax.models import create as create_model
from ds_jax.models.layers import Network
from ds_jax.report import pages
from ds_jax.runtime import processes, versions
from ds_jax.runtime.errors import ConfigError, one_of
from ds_jax.runtime.files import check_writable, write_bytes, write_json, write_text
from ds_jax.runtime.progress import many
from ds_jax.runtime.workdir import CHECKPOINTS
from ds_jax.systems import base as systems
from ds_jax.systems import card
from ds_jax.systems import network as saved_networks
from ds_jax.systems.finding import EXPORTED, EXPORTED_CARD, EXPORTED_ONNX, find_checkpoints

# The folder and the file of each format.
FORMATS = {"stablehlo": ("export", EXPORTED), "onnx": ("export_onnx", EXPORTED_ONNX)}
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
LARGEST = 2_000_000_000  # bytes of parameters; both formats end at 2**31 with the program


def run(checkpoint: Path, directory: Path | None = None, form: str = "stablehlo") -> None:
    """Writes model.stablehlo or model.onnx, model.json and README.md.

    The model's probabilities are those of `predict.run` for the same checkpoint, the mean over the
    best models of all finished folds. No fold is chosen as the best, since the folds were scored on
    test data, which never chooses.

    Args:
        checkpoint: The folder of a run or of a fold.
        directory: The folder of the files; None means one in the checkpoint's folder, that of
            `FORMATS`.
        form: "stablehlo", which JAX runs, or "onnx", which ONNX Runtime runs without Python.

    Raises:
        FileNotFoundError: There is no checkpoint.
        ValueError: The system, or a field of its config, cannot be exported; or the folder holds
            an export of another format.
        OSError: The folder cannot be written.
    """
    checkpoint = checkpoint.absolute()
    checkpoints = find_checkpoints(checkpoint)
    config = systems.load_config(checkpoints)
    settings = _settings(config)
    name, file = FORMATS[form]
    if directory is None:
        parent = checkpoint.parent if checkpoint.name == CHECKPOINTS else checkpoint
        directory = parent / name
    _check_folder(directory, file)
    network = create_model.create_network(config)
    variables = [saved_networks.load(folder)[2] for folder in checkpoints]
    _check_size(network, variables)
    check_writable(directory)
    facts = _facts(config, checkpoints, form)
    if form == "onnx":
        content = build_onnx(network, variables, settings, facts)
    else:
        exported = trace(network, variables, settings)
        facts["calling_convention_version"] = exported.calling_convention_version
        content = exported.serialize()
    formats = {"plain": _plain, "counts": _counts, "with_interval": pages.with_interval}
    write_bytes(directory / file, content)
    megabytes = len(content) / 1e6
    readme = pages.render("export.md.jinja", megabytes=megabytes, **facts, **formats)
    write_text(directory / "README.md", readme)
    write_json(directory / EXPORTED_CARD, facts)
    processes.say(
        f"exported: {directory / file}, {megabytes:.0f} MB; README.md there says how to use it"
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


def build_onnx(
    network: Network,
    variables: Sequence[create_model.Variables],
    settings: PictureSettings,
    facts: Mapping,
) -> bytes:
    """Returns the content of an ONNX file that computes what `trace` exports.

    Args:
        network, variables, settings: As in `trace`.
        facts: The content of model.json, of which the file holds what a program needs.
    """
    from ds_jax.features import spectrogram_onnx
    from ds_jax.models import network_onnx
    from ds_jax.runtime import graphs  # here, since the other form needs no onnx

    graph, classes = graphs.Graph(), len(facts["labels"])
    samples = graph.input("samples", np.float32, ("batch", "n"))
    given = graph.input("lengths", np.int32, ("batch",)).astype(np.int64)
    lengths = graphs.minimum(graphs.maximum(given, 1), graphs.size(samples, 1))
    samples, lengths = spectrogram_onnx.trim(samples, lengths, settings)
    real = None
    if settings.window:
        samples, lengths, real = spectrogram_onnx.split_windows(samples, lengths, settings)
    pictures, seen = spectrogram_onnx.draw(samples, lengths, settings)
    shares = network_onnx.probabilities(network, variables, pictures, seen)
    if real is not None:
        by_row = graphs.concatenate([[-1], graphs.shape(real, 1), [classes]], axis=0)
        shares, real = graphs.op("Reshape", shares, by_row), real.astype(np.float32)
        shares = graphs.total(shares * graphs.expand(real, 2), 1) / graphs.total(real, 1, keep=True)
    graph.output("probabilities", shares, ("batch", classes))
    kept = (*("labels", "never_answered", "sample_rate", "trim", "channel", "trained_on"),)
    kept += ("synthetic", "licences", "not_for")
    metadata = {name: json.dumps(facts[name], ensure_ascii=False) for name in kept}
    return graph.serialize(facts["system"], facts["ds_jax"], metadata)


def _settings(config: ml_collections.ConfigDict) -> PictureSettings:
    """Returns how recordings are drawn, if JAX can draw them.

    Raises:
        ConfigError: The system, or a field, cannot be exported.
    """
    if not systems.SYSTEMS[config.system].exports:
        exported = one_of(name for name, system in systems.SYSTEMS.items() if system.exports)
        allowed = f"{exported} to be exported, since others are not all JAX"
        raise ConfigError("system", config.system, allowed)
    if adapts(config):
        allowed = "'none' to be exported, since an exported model knows no speaker"
        raise ConfigError("adapt", config.adapt, allowed)
    settings = extract.settings(config)
    if settings.mode == "chroma":  # its tuning is not estimated in JAX
        allowed = "'mel' or 'spectrogram' to be exported"
        raise ConfigError("picture.mode", settings.mode, allowed)
    if not settings.sample_rate:
        allowed = "a number of Hz to be exported, since an exported model has one rate"
        raise ConfigError("picture.sample_rate", settings.sample_rate, allowed)
    return settings


def _check_folder(directory: Path, file: str) -> None:
    """Checks that no export of another format would lose its README.md and model.json."""
    for _, other in FORMATS.values():
        if other != file and (directory / other).exists():
            raise ValueError(f"{directory} holds {other}: give {file} another folder")


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


def _facts(config: ml_collections.ConfigDict, checkpoints: Sequence[Path], form: str) -> dict:
    """Returns the content of model.json, but for what only the exported program knows."""
    of_form = {"platforms": [*PLATFORMS], "jax": jax.__version__}
    if form == "onnx":
        from ds_jax.runtime import graphs

        of_form = {"opset": graphs.OPSET, "ir_version": graphs.IR_VERSION}
    return card.read(config, checkpoints) | {
        "ds_jax": versions.program(),
        "format": form,
        "file": FORMATS[form][1],
        "inputs": {
            "samples": "float32 [batch, n], mono, full scale at 1",
            "lengths": "int32 [batch], samples of each row that are the recording, 1 to n",
        },
        "output": f"float32 [batch, {len(config.classes)}], probabilities in the labels' order",
        "sample_rate": config.picture.sample_rate,
        "trim": config.trim,
        "channel": config.channel,
        "picture": config.picture.to_dict(),
        **of_form,
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
