"""Finds and loads finished models: those of a run, of a fold, of an ensemble, or of an export."""

import os
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from ds_jax import config as configuration
from ds_jax.data.recordings import Paths
from ds_jax.evaluation.predictions import Predicted
from ds_jax.features import extract
from ds_jax.features.source import reading_of
from ds_jax.runtime import files, processes
from ds_jax.runtime.workdir import (
    CHECKPOINTS,
    MEMBERS,
    finished_folds,
    is_finished,
    member_directories,
)
from ds_jax.systems import base as systems
from ds_jax.systems import card, ensemble
from ds_jax.systems.model import Model

EXPORTED, EXPORTED_ONNX, EXPORTED_CARD = "model.stablehlo", "model.onnx", "model.json"


def load(
    path: str | os.PathLike,
    channel: str | None = None,
    raw_rate: int | None = None,
    enrol: Paths = (),
) -> Model:
    """Loads the finished models of a run, whose mean they give, of a fold, or of an export.

    Those of an ensemble, or of one fold of it, are the models of all its members.

    Args:
        path: The folder of a run, of a fold, or one that `--mode=export` has written.
        channel: Which channel of recordings is read, see `source.Reading`; None means as trained.
        raw_rate: The rate in Hz of headerless recordings; None means as trained.
        enrol: Recordings of the one speaker whom models of adapt='speaker' will hear.

    Raises:
        ConfigError: There is no such channel or rate.
        FileNotFoundError: There is no finished model in the folder.
        ValueError: A model is damaged, or of another version; JAX finds no device; or as
            `Model.enrol`.
    """
    processes.prepare()
    model = find(path, channel, raw_rate)
    model.enrol(enrol)
    model.start  # noqa: B018 (loads the weights, so that an error comes here)
    return model


def find(path: str | os.PathLike, channel: str | None = None, raw_rate: int | None = None) -> Model:
    """Finds models as `load`, which are loaded when they are first asked for an answer."""
    folder, given = files.expand(path), {"channel": channel, "raw_rate": raw_rate}
    given = {name: value for name, value in given.items() if value is not None}
    if (folder / EXPORTED).is_file():
        facts = files.read_json(folder / EXPORTED_CARD)
        if missing := {"config", "sample_rate", "models"} - set(facts):
            raise ValueError(
                f"{folder / EXPORTED_CARD} has no field {min(missing)}: export the models again"
            )
        reading = reading_of(facts["config"] | given) | {"trim": 0.0}  # it trims them itself
        return Model(
            ConfigDict(facts["config"] | given),
            extract.Waveforms(facts["sample_rate"], **reading),
            len(facts["models"]),
            lambda: facts,
            lambda enrolled: _load_exported(folder / EXPORTED),
            never_answered=facts.get("never_answered", ()),
        )
    if (folder / EXPORTED_ONNX).is_file():
        raise ValueError(
            f"{folder / EXPORTED_ONNX} is for ONNX Runtime, as README.md there shows: give the "
            "run, or an export of it without --format=onnx"
        )
    workdir, directories = find_members(folder)
    if directories:
        config = configuration.read(workdir)
        config.update(given)
        members = [find(each, **given) for each in directories.values()]

        def read_card():
            return card.of_ensemble(config, folder, workdir, [each.card for each in members])

        if systems.is_joined(config):
            from ds_jax.systems import joined  # here, since networks answer without scikit-learn

            ridges = find_checkpoints(folder)
            models = {"models": [{"fold": each.parent.name} for each in ridges]}
            return joined.find(config, ridges, members, lambda: read_card() | models)
        return ensemble.join(config, members, read_card)
    checkpoints = find_checkpoints(folder)
    config = systems.load_config(checkpoints)
    if "members" in config:
        raise ValueError(f"{folder} is a part of an ensemble: give its run, or a finished fold")
    config.update(given)
    implementation, settings = systems.implementation(config), extract.settings(config)
    if isinstance(settings, extract.FeatureSettings):
        settings.check()
    return Model(
        config,
        settings,
        len(checkpoints),
        lambda: card.read(config, checkpoints),
        lambda enrolled: implementation.load_ensemble(checkpoints, enrolled),
        lambda: implementation.load_measure(checkpoints),
        card.never_answered(config, checkpoints),
    )


def find_members(folder: Path) -> tuple[Path, dict[str, Path]]:
    """Finds the runs whose mean an ensemble is, or the folds whose mean one fold of it is.

    Args:
        folder: The folder of a run or of a finished fold.

    Returns:
        The folder of the ensemble's run, and those of its members by their names; the given folder
        and nothing else where it is not an ensemble's.
    """
    of_fold = is_finished(folder) and (folder.parent / MEMBERS).is_dir()
    workdir = folder.parent if of_fold else folder
    if not (workdir / MEMBERS).is_dir():
        return folder, {}
    directories = member_directories(workdir, configuration.read(workdir))
    return workdir, {name: each / folder.relative_to(workdir) for name, each in directories.items()}


def find_checkpoints(directory: Path) -> list[Path]:
    """Finds the `checkpoints` folders of a run's finished folds, or of a fold.

    Args:
        directory: The folder of a run or of a fold, or a `checkpoints` folder.

    Raises:
        FileNotFoundError: There is none.
    """
    if directory.name == CHECKPOINTS:
        return [directory]
    found = [fold / CHECKPOINTS for fold in finished_folds(directory)]
    if not found and not (directory / CHECKPOINTS).is_dir():
        raise FileNotFoundError(
            f"no finished fold in {directory}: give the folder of a run or of a fold (--checkpoint)"
        )
    return found or [directory / CHECKPOINTS]


def _load_exported(path: Path) -> Callable[[np.ndarray, int], Callable[[], Predicted]]:
    """Loads an exported model; returns a function as `Model.start`, of waveforms with NaN after."""
    try:
        exported = jax.export.deserialize(bytearray(path.read_bytes()))
    except Exception as error:  # the errors of flatbuffers and MLIR have no common class
        raise ValueError(
            f"JAX {jax.__version__} cannot read {path} ({error}): export the models again"
        ) from error
    call = jax.jit(exported.call)

    def start(inputs, size):
        lengths = np.ones(size, np.int32)  # of the rows of padding
        lengths[: len(inputs)] = np.isfinite(inputs).sum(axis=1)
        samples = np.zeros((size, inputs.shape[1]), np.float32)
        samples[: len(inputs)] = np.nan_to_num(inputs, nan=0.0)
        shares = call(samples, lengths)
        return lambda: Predicted(np.asarray(shares, np.float64)[: len(inputs)], {}, {})

    return start
