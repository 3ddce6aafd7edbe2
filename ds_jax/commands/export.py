"""--mode=export: writes a run's models as one file, from waveforms on, for JAX or ONNX Runtime."""

import functools
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ds_jax import config as configuration
from ds_jax.features import extract, spectrogram_jax
from ds_jax.features.spectrogram import PictureSettings
from ds_jax.models import create as create_model
from ds_jax.models.backbones import backbone_of
from ds_jax.models.layers import Network
from ds_jax.report import pages
from ds_jax.runtime import processes, versions
from ds_jax.runtime.errors import ConfigError, one_of
from ds_jax.runtime.files import check_writable, write_bytes, write_json, write_text
from ds_jax.runtime.progress import many
from ds_jax.runtime.workdir import CHECKPOINTS
from ds_jax.systems import base as systems
from ds_jax.systems import network as saved_networks
from ds_jax.systems.finding import (
    EXPORTED,
    EXPORTED_CARD,
    EXPORTED_ONNX,
    find,
    find_checkpoints,
    find_members,
)

# The folder and the file of each format.
FORMATS = {"stablehlo": ("export", EXPORTED), "onnx": ("export_onnx", EXPORTED_ONNX)}
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
LARGEST = 2_000_000_000  # bytes of parameters; both formats end at 2**31 with the program


class Run(NamedTuple):
    """A run whose models are exported, alone or as a member of an ensemble.

    Attributes:
        member: Its name as a prefix of its fields, such as "members.first."; "" if it is no member.
        weight: Of its models together; the weights of all runs sum to one.
        config: The config that its models were trained by.
        checkpoints: The folders of its models.
    """

    member: str
    weight: float
    config: ConfigDict
    checkpoints: list[Path]

    @property
    def settings(self) -> PictureSettings:
        """How recordings are drawn, if JAX can draw them.

        Raises:
            ConfigError: The system, or a field, cannot be exported.
        """
        config, prefix = self.config, self.member
        if not systems.SYSTEMS[config.system].exports:
            exported = one_of(name for name, system in systems.SYSTEMS.items() if system.exports)
            allowed = f"{exported} to be exported, since others are not all JAX"
            raise ConfigError(f"{prefix}system", config.system, allowed)
        if configuration.adapts(config):
            allowed = "'none' to be exported, since an exported model knows no speaker"
            raise ConfigError(f"{prefix}adapt", config.adapt, allowed)
        settings = extract.settings(config)
        if settings.mode == "chroma":  # its tuning is not estimated in JAX
            allowed = "'mel' or 'spectrogram' to be exported"
            raise ConfigError(f"{prefix}picture.mode", settings.mode, allowed)
        if not settings.sample_rate:
            allowed = "a number of Hz to be exported, since an exported model has one rate"
            raise ConfigError(f"{prefix}picture.sample_rate", settings.sample_rate, allowed)
        return settings


class Part(NamedTuple):
    """Models of one network that read the same pictures.

    Attributes:
        network: The network of all models, in float32.
        settings: How recordings are drawn.
        models: The variables of each model, with its weight; `network.lower` reads the same ones in
            all of them. The weights of all parts sum to one.
    """

    network: Network
    settings: PictureSettings
    models: list[tuple[float, create_model.Variables]]


def run(checkpoint: Path, directory: Path | None = None, form: str = "stablehlo") -> None:
    """Writes model.stablehlo or model.onnx, model.json and README.md.

    The model's probabilities are those of `predict.run` for the same checkpoint, the mean over the
    best models of all finished folds, and of an ensemble over its members. No fold is chosen as the
    best, since the folds were scored on test data, which never chooses.

    Args:
        checkpoint: The folder of a run or of a fold; either may be an ensemble's.
        directory: The folder of the files; None means one in the checkpoint's folder, that of
            `FORMATS`.
        form: "stablehlo", which JAX runs, or "onnx", which ONNX Runtime runs without Python.

    Raises:
        FileNotFoundError: There is no checkpoint.
        ValueError: There is no such format; the system, or a field of its config, cannot be
            exported, which may be that of a member of an ensemble; or the folder holds an export
            of another format.
        OSError: The folder cannot be written.
    """
    if form not in FORMATS:  # from Python; the flag knows its values
        raise ValueError(f"form={form!r} must be {one_of(FORMATS)}")
    checkpoint = checkpoint.absolute()
    runs = list(_runs(checkpoint))
    _check_alike(runs)
    for each in runs:
        backbone = backbone_of(each.config)
        if form == "onnx" and backbone.trunk_onnx is None:
            allowed = "'vgg16' to be exported as ONNX; --format=stablehlo takes any"
            raise ConfigError(f"{each.member}model.backbone", backbone.name, allowed)
    name, file = FORMATS[form]
    if directory is None:
        parent = checkpoint.parent if checkpoint.name == CHECKPOINTS else checkpoint
        directory = parent / name
    _check_folder(directory, file)
    parts = _parts(runs)
    _check_size(parts)
    check_writable(directory)
    facts = _facts(find(checkpoint).card, runs[0].settings, form)
    if form == "onnx":
        content = build_onnx(parts, facts)
    else:
        exported = trace(parts)
        facts["calling_convention_version"] = exported.calling_convention_version
        content = exported.serialize()
    formats = {"plain": _plain, "counts": _counts, "with_interval": pages.with_interval}
    formats["windows"] = sorted({each.settings.window for each in parts} - {0.0})
    write_bytes(directory / file, content)
    megabytes = len(content) / 1e6
    readme = pages.render("export.md.jinja", megabytes=megabytes, **facts, **formats)
    write_text(directory / "README.md", readme)
    write_json(directory / EXPORTED_CARD, facts)
    processes.say(
        f"exported: {directory / file}, {megabytes:.0f} MB; README.md there says how to use it"
    )


def _runs(folder: Path, member: str = "", weight: float = 1.0) -> Iterator[Run]:
    """Yields the run or the fold in a folder, or those of all members of an ensemble."""
    _, members = find_members(folder)
    if not members:
        checkpoints = find_checkpoints(folder)
        yield Run(member, weight, systems.load_config(checkpoints), checkpoints)
    for name, directory in members.items():
        yield from _runs(directory, f"{member}members.{name}.", weight / len(members))


def _parts(runs: Sequence[Run]) -> list[Part]:
    """Loads the models of runs; those that read the same pictures by the same layers share them."""
    parts, known = {}, {}

    def share(array):
        key = array.dtype, array.shape, hashlib.sha256(array.tobytes()).digest()
        return known.setdefault(key, array)

    for each in runs:
        network = create_model.create_network(each.config)
        weight = each.weight / len(each.checkpoints)
        loaded = (saved_networks.load(folder)[2] for folder in each.checkpoints)
        models = [(weight, jax.tree.map(share, variables)) for variables in loaded]
        frozen = (*map(id, jax.tree.leaves(_frozen(network, models))),)
        part = Part(network, each.settings, [])
        part = parts.setdefault((network, part.settings, frozen), part)
        part.models.extend(models)
    return list(parts.values())


def _frozen(network: Network, models: Sequence[tuple[float, create_model.Variables]]) -> Mapping:
    return create_model.split_frozen(network, models[0][1]["params"])[0]


def trace(parts: Sequence[Part]) -> jax.export.Exported:
    """Exports the mean over some models, for any number of recordings of any length."""
    frames = jax.config.jax_traceback_in_locations_limit
    batch, n = jax.export.symbolic_shape("batch, n")
    samples = jax.ShapeDtypeStruct((batch, n), jnp.float32)
    lengths = jax.ShapeDtypeStruct((batch,), jnp.int32)

    def probabilities(samples, lengths):
        """Maps float32 [batch, n] and int32 [batch] to float32 [batch, classes]."""
        return sum(shares(part, samples, lengths) for part in parts)

    def shares(part, samples, lengths):
        network, settings, models = part
        given = {"settings": settings, "rate": settings.sample_rate}
        draw = functools.partial(spectrogram_jax.draw, **given)
        trim = functools.partial(spectrogram_jax.trim, **given)
        split = functools.partial(spectrogram_jax.split_windows, **given)
        samples, lengths = jax.vmap(trim)(samples, lengths)
        windows, remaining, real = jax.vmap(split)(samples, lengths)
        batch, count, size = windows.shape
        windows = windows.reshape(batch * count, size)
        pictures = jax.vmap(draw)(windows, remaining.reshape(batch * count))
        lower = network.apply(models[0][1], pictures, method="lower")
        mask = jnp.ones(batch * count, jnp.float32)
        total = 0.0
        for weight, variables in models:
            logits = network.apply(variables, lower, mask, method="upper").logits
            total += weight * jax.nn.softmax(logits)
        total = total.reshape(batch, count, total.shape[-1])
        return jnp.mean(total, axis=1, where=real[..., None])

    # With tracebacks the file would name this machine's folders.
    jax.config.update("jax_traceback_in_locations_limit", 0)
    try:
        # Without this a TPU multiplies in bfloat16, and a GPU in TF32.
        with jax.default_matmul_precision("highest"):
            exported = jax.export.export(jax.jit(probabilities), platforms=PLATFORMS)
            return exported(samples, lengths)
    finally:
        jax.config.update("jax_traceback_in_locations_limit", frames)


def build_onnx(parts: Sequence[Part], facts: Mapping) -> bytes:
    """Returns the content of an ONNX file that computes what `trace` exports.

    Args:
        parts: The models.
        facts: The content of model.json, of which the file holds what a program needs.
    """
    from ds_jax.runtime import graphs  # here, since the other form needs no onnx

    graph, classes = graphs.Graph(), len(facts["labels"])
    samples = graph.input("samples", np.float32, ("batch", "n"))
    given = graph.input("lengths", np.int32, ("batch",)).astype(np.int64)
    lengths = graphs.minimum(graphs.maximum(given, 1), graphs.size(samples, 1))
    shares = graphs.add(_shares_onnx(part, samples, lengths, classes) for part in parts)
    graph.output("probabilities", shares, ("batch", classes))
    kept = (*("labels", "never_answered", "sample_rate", "trim", "channel", "trained_on"),)
    kept += ("synthetic", "licences", "not_for")
    metadata = {name: json.dumps(facts[name], ensure_ascii=False) for name in kept}
    return graph.serialize(facts["system"], facts["ds_jax"], metadata)


def _shares_onnx(part: Part, samples: Any, lengths: Any, classes: int) -> Any:
    """Adds a part to a graph; returns the weighted sum of its probabilities."""
    from ds_jax.features import spectrogram_onnx
    from ds_jax.models import network_onnx
    from ds_jax.runtime import graphs

    network, settings, models = part
    samples, lengths = spectrogram_onnx.trim(samples, lengths, settings)
    real = None
    if settings.window:
        samples, lengths, real = spectrogram_onnx.split_windows(samples, lengths, settings)
    pictures, seen = spectrogram_onnx.draw(samples, lengths, settings)
    shares = network_onnx.probabilities(network, models, pictures, seen)
    if real is None:
        return shares
    by_row = graphs.concatenate([[-1], graphs.shape(real, 1), [classes]], axis=0)
    shares, real = graphs.op("Reshape", shares, by_row), real.astype(np.float32)
    return graphs.total(shares * graphs.expand(real, 2), 1) / graphs.total(real, 1, keep=True)


def _check_alike(runs: Sequence[Run]) -> None:
    """Checks that all members of an ensemble take the same samples."""
    for each in runs:
        for field in ("sample_rate", "trim", "channel"):
            value, first = (getattr(x.settings, field) for x in (each, runs[0]))
            if value != first:
                name = f"picture.{field}" if field == "sample_rate" else field
                allowed = f"{first!r} to be exported, as in {runs[0].member.rstrip('.')}"
                raise ConfigError(f"{each.member}{name}", value, allowed)


def _check_folder(directory: Path, file: str) -> None:
    """Checks that no export of another format would lose its README.md and model.json."""
    for _, other in FORMATS.values():
        if other != file and (directory / other).exists():
            raise ValueError(f"{directory} holds {other}: give {file} another folder")


def _check_size(parts: Sequence[Part]) -> None:
    def count_bytes(tree: Mapping) -> int:
        return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))

    size = count = 0
    for network, _, models in parts:
        shared = count_bytes(_frozen(network, models))
        size += sum(count_bytes(each) - shared for _, each in models) + shared
        count += len(models)
    if size > LARGEST:
        raise ValueError(
            f"{many(count, 'model')} of {size / count / 1e9:.1f} GB: more than the 2 GB that an "
            "exported file can hold: export one fold, --checkpoint=RUN/fold_00"
        )


def _facts(known: Mapping, settings: PictureSettings, form: str) -> dict:
    """Returns the content of model.json, but for what only the exported program knows.

    Args:
        known: What is known of the models, see `card.read`.
        settings: How recordings are drawn; of an ensemble, those of its first member.
        form: The format.
    """
    of_form = {"platforms": [*PLATFORMS], "jax": jax.__version__}
    if form == "onnx":
        from ds_jax.runtime import graphs

        of_form = {"opset": graphs.OPSET, "ir_version": graphs.IR_VERSION}
    return dict(known) | {
        "ds_jax": versions.program(),
        "format": form,
        "file": FORMATS[form][1],
        "inputs": {
            "samples": "float32 [batch, n], mono, full scale at 1",
            "lengths": "int32 [batch], samples of each row that are the recording, 1 to n",
        },
        "output": f"float32 [batch, {len(known['labels'])}], probabilities in the labels' order",
        "sample_rate": settings.sample_rate,
        "trim": settings.trim,
        "channel": settings.channel,
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
