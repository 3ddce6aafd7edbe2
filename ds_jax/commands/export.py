"""The models of a run as one file that JAX alone can run: waveforms in, probabilities out."""

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import jinja2
import ml_collections

from ds_jax.commands import predict
from ds_jax.data import licences
from ds_jax.data.corpus import LABELS
from ds_jax.data.folds import PROTOCOLS
from ds_jax.evaluation.metrics import SCORES
from ds_jax.features import spectrogram_jax
from ds_jax.features.spectrogram import PictureSettings
from ds_jax.models import create as create_model
from ds_jax.runtime import processes
from ds_jax.runtime.files import check_writable, read_json, write_bytes, write_json, write_text
from ds_jax.runtime.workdir import FOLDS, REPORT
from ds_jax.systems import base as systems
from ds_jax.systems import network as inference
from ds_jax.training.checkpoints import read_card

MODEL = "model.stablehlo"
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
LARGEST = 2_000_000_000  # bytes of parameters; JAX's format ends at 2**31, the program included


def run(checkpoint: Path, directory: Path | None = None) -> None:
    """Writes model.stablehlo, model.json and README.md.

    The file gives the probabilities that `predict.run` gives for the same checkpoint: of a run the
    mean over all finished folds' best models. None of them is picked out as the best one, since
    the folds were scored on test data, which never chooses.

    Args:
        checkpoint: A run's folder or a fold's.
        directory: Where the files go; without, `export` in the run's or fold's folder.

    Raises:
        FileNotFoundError: There is no checkpoint.
        ValueError: The system, or a field of its config, cannot be exported.
        OSError: The folder cannot be written.
    """
    checkpoint = checkpoint.absolute()
    checkpoints = predict.find_checkpoints(checkpoint)
    config = systems.load_config(checkpoints)
    settings = _settings(config)
    beside = checkpoint.parent if checkpoint in checkpoints else checkpoint
    directory = directory or beside / "export"
    network = create_model.create_network(config)
    variables = [inference.load(folder)[2] for folder in checkpoints]
    _check_size(network, variables)
    check_writable(directory)
    exported = trace(network, variables, settings)
    facts = _facts(config, checkpoints, exported)
    write_bytes(directory / MODEL, exported.serialize())
    write_text(directory / "README.md", _readme(facts))
    write_json(directory / "model.json", facts)
    megabytes = (directory / MODEL).stat().st_size / 1e6
    processes.say(
        f"exported: {directory / MODEL}, {megabytes:.0f} MB; README.md there says how to use it"
    )


def trace(
    network: create_model.Network,
    variables: Sequence[create_model.Variables],
    settings: PictureSettings,
) -> jax.export.Exported:
    """Exports the mean over some models, for any number of recordings of any length.

    Args:
        network: Of all models, in float32.
        variables: Of each; what `network.lower` reads is the same in all of them.
        settings: How recordings are drawn.
    """
    frames = jax.config.jax_traceback_in_locations_limit
    batch, n = jax.export.symbolic_shape("batch, n")
    samples = jax.ShapeDtypeStruct((batch, n), jnp.float32)
    lengths = jax.ShapeDtypeStruct((batch,), jnp.int32)
    traced = jax.jit(_probabilities(network, variables, settings))
    # The file would name this machine's folders.
    jax.config.update("jax_traceback_in_locations_limit", 0)
    try:
        # Without this a TPU multiplies in bfloat16, and a GPU in TF32.
        with jax.default_matmul_precision("highest"):
            return jax.export.export(traced, platforms=PLATFORMS)(samples, lengths)
    finally:
        jax.config.update("jax_traceback_in_locations_limit", frames)


def _probabilities(
    network: create_model.Network,
    variables: Sequence[create_model.Variables],
    settings: PictureSettings,
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    draw, cut = (
        functools.partial(function, settings=settings, rate=settings.sample_rate)
        for function in (spectrogram_jax.draw, spectrogram_jax.split_windows)
    )

    def probabilities(samples, lengths):
        """Maps float32 [batch, n] and int32 [batch] to float32 [batch, 7]."""
        windows, remaining, real = jax.vmap(cut)(samples, lengths)
        batch, count, size = windows.shape
        windows = windows.reshape(batch * count, size)
        pictures = jax.vmap(draw)(windows, remaining.reshape(batch * count))
        lower = network.apply(variables[0], pictures, method="lower")
        mask = jnp.ones(batch * count, jnp.float32)
        judged = [network.apply(each, lower, mask, method="upper") for each in variables]
        shares = sum(jax.nn.softmax(outputs.logits) for outputs in judged) / len(judged)
        shares = shares.reshape(batch, count, len(LABELS))
        return jnp.mean(shares, axis=1, where=real[..., None])

    return probabilities


def _settings(config: ml_collections.ConfigDict) -> PictureSettings:
    """How recordings are drawn, if JAX can draw them.

    Raises:
        ValueError: The system, or a field, cannot be exported.
    """
    if not systems.SYSTEMS[config.system].exports:
        exported = [name for name, system in systems.SYSTEMS.items() if system.exports]
        raise ValueError(
            f"system={config.system!r} cannot be exported, since not all of it is JAX: "
            f"export a run of {' or '.join(exported)}"
        )
    settings = PictureSettings(**config.picture)
    if settings.mode == "chroma":
        raise ValueError(
            "picture.mode='chroma' cannot be exported, since its tuning is not estimated in JAX: "
            "export a run of picture.mode='mel' or 'spectrogram'"
        )
    if not settings.sample_rate:
        raise ValueError(
            "picture.sample_rate=0 cannot be exported, since an exported model has one rate: "
            "export a run of a rate, such as picture.sample_rate=16000"
        )
    return settings


def _check_size(network: create_model.Network, variables: Sequence[create_model.Variables]) -> None:
    frozen, _ = create_model.split_frozen(network, variables[0]["params"])
    shared = _bytes(frozen)
    size = sum(_bytes(each) - shared for each in variables) + shared
    if size > LARGEST:
        raise ValueError(
            f"{len(variables)} models of {size / len(variables) / 1e9:.1f} GB are more than the "
            "2 GB that an exported file can hold: export one fold, --checkpoint=RUN/fold_00"
        )


def _bytes(tree: Mapping) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def _facts(
    config: ml_collections.ConfigDict, checkpoints: Sequence[Path], exported: jax.export.Exported
) -> dict:
    """The content of model.json."""
    folds_file = checkpoints[0].parents[1] / FOLDS
    protocol = config.folds.protocol
    if folds_file.is_file():  # a file of one's own folds has a protocol of its own
        protocol = read_json(folds_file)["protocol"]
    chosen = [
        {"fold": folder.parent.name, "epoch": read_card(folder)["epoch"]} for folder in checkpoints
    ]
    return {
        "file": MODEL,
        "inputs": {
            "samples": "float32 [batch, n], mono, full scale at 1",
            "lengths": "int32 [batch], samples of each row that are the recording, 1 to n",
        },
        "output": "float32 [batch, 7], probabilities in the order of the labels",
        "labels": list(LABELS),
        "sample_rate": config.picture.sample_rate,
        "platforms": list(exported.platforms),
        "jax": jax.__version__,
        "calling_convention_version": exported.calling_convention_version,
        "system": systems.title(config),
        "trained_on": config.corpus,
        "synthetic": config.synthetic,
        "protocol": protocol,
        "protocol_text": PROTOCOLS[protocol],
        "selected_on": config.select_on,
        "models": chosen,
        "picture": config.picture.to_dict(),
        "scores": list(_scores(checkpoints, config.corpus)),
        "licences": [licences.of_corpus(config.corpus, config.synthetic), licences.OF_WEIGHTS],
    }


def _scores(checkpoints: Sequence[Path], corpus: str) -> Iterator[dict]:
    """Yields what the run's reports say, and of which models."""
    names = [folder.parent.name for folder in checkpoints]
    run_directory = checkpoints[0].parents[1]
    kept = ("protocol", "selected_on", "n", "classes_present", "shared", "interval", *SCORES)
    for path in (
        run_directory / REPORT,
        *sorted(run_directory.glob("evaluations/*/report.json")),
    ):
        if not path.is_file():
            continue
        report = read_json(path)
        judges = [f"fold_{record['fold']:02}" for record in report["folds"]]
        if report["corpus"] == corpus:
            judged_by = "each fold's model, on the utterances that its fold tests"
        elif judges == names:
            judged_by = "this file"
        else:
            judged_by = f"the mean of {len(judges)} models"
        yield {"tested_on": report["corpus"], "judged_by": judged_by} | {
            name: report[name] for name in kept
        }


def _readme(facts: Mapping) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parents[1] / "report" / "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(plain=_plain, score=_score, shared=_shared)
    return environment.get_template("export.md.jinja").render(facts)


def _plain(name: str) -> str:
    """A name of which Markdown makes no markup."""
    return re.sub(r"([\\`*_{}\[\]<>()#|])", r"\\\1", name)


def _shared(counts: Mapping) -> str:
    """ "0 speakers, 14 sentences, 0 recordings", without those that are not known."""
    kinds = ("speakers", "sentences", "recordings")
    return ", ".join(f"{counts[kind]} {kind}" for kind in kinds if counts.get(kind) is not None)


def _score(score: Mapping) -> str:
    known = score["low"] is not None
    interval = f" ({score['low']:.3f} to {score['high']:.3f})" if known else ""
    return f"{score['value']:.3f}{interval}"
