"""What each row of the ladder scores, and what its change is worth: ladder.json and ladder.md."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from ds_jax.data.fold_files import read_entries
from ds_jax.evaluation import comparison, predictions, significance, summary
from ds_jax.evaluation.metrics import SCORES
from ds_jax.evaluation.predictions import Predictions
from ds_jax.report import pages
from ds_jax.runtime.files import write_json, write_text
from ds_jax.runtime.workdir import FOLDS, PREDICTIONS, REPORT, fold_directory

TABLES = "ladder.md"
DONE = "done"


class Key(NamedTuple):
    """Names a run of the ladder."""

    corpus: str
    row: str
    seed: int


def folder(key: Key) -> Path:
    """Returns the folder of a run, below that of the ladder."""
    return Path(key.corpus) / key.row / f"seed_{key.seed}"


def ordered(rows: Mapping[str, Mapping], after: str = "") -> list[str]:
    """Returns the names of rows, each after the one that it changes; without those in a circle."""
    names = []
    for name, row in rows.items():
        if row["after"] == after:
            names += [name, *ordered(rows, name)]
    return names


def write(workdir: Path, config: ConfigDict, states: Mapping[Key, str]) -> None:
    """Writes ladder.json and ladder.md.

    Args:
        workdir: The folder of both files and, below it, of the runs.
        config: The config of `configs/ladder.py`.
        states: What has become of each run: "done", or a phrase that says why it is not.
    """
    content = _collect(workdir, config, states)
    write_json(workdir / "ladder.json", content)
    write_text(
        workdir / TABLES,
        pages.render("ladder.md.jinja", with_interval=pages.with_interval, **content),
    )


class _Tested(NamedTuple):
    """What the seeds of a row predict on a corpus."""

    folds: list[Predictions]
    sizes: list[int]  # of train and dev, fold by fold


def _collect(workdir: Path, config: ConfigDict, states: Mapping[Key, str]) -> dict[str, Any]:
    """Returns the content of ladder.json.

    The runs of a row with several seeds are tested together: their scores are means over seeds, and
    what all of them predict for a speaker moves as one.
    """
    names, corpora, places, pairs = ordered(config.rows), {}, [], []
    for corpus, folds in config.corpora.items():
        cells, tested = {}, {}
        for name in names:
            keys = [Key(corpus, name, seed) for seed in config.seeds]
            if waiting := [states[key] for key in keys if states[key] != DONE]:
                cells[name] = {"status": waiting[0]}
            else:
                tested[name] = _read([workdir / folder(key) for key in keys])
                cells[name] = _cell(workdir, keys, tested[name])
        corpora[corpus] = {"folds": folds.to_dict(), "cells": cells}
        for name in tested:
            for other in dict.fromkeys((config.rows[name].after, *config.references)):
                if other in tested and other != name:
                    places.append((cells[name]["differences"], other))
                    pairs.append(_compare(tested[name], tested[other]))
    for (differences, other), pair in zip(places, comparison.adjust(pairs), strict=True):
        differences[other] = pair
    rows = {
        name: {"title": config.rows[name].title, "after": config.rows[name].after} for name in names
    }
    content = {"seeds": list(config.seeds), "references": list(config.references), "rows": rows}
    return content | {"corpora": corpora, "compared": len(pairs)}


def _read(workdirs: Sequence[Path]) -> _Tested:
    """Reads what some runs with the same folds predict; each seed's utterances have other names."""
    _, entries = read_entries(workdirs[0] / FOLDS)
    folds = []
    for number in range(len(entries)):
        parts = []
        for seed, workdir in enumerate(workdirs):
            part = predictions.read(fold_directory(workdir, number) / PREDICTIONS)
            names = np.char.add(part.utterances, f"#{seed}")
            parts.append(dataclasses.replace(part, utterances=names))
        folds.append(predictions.concatenate(parts))
    return _Tested(folds, [len(entry["train"]) + len(entry["dev"]) for entry in entries])


def _compare(first: _Tested, second: _Tested) -> dict[str, Any]:
    sizes = [min(both) for both in zip(first.sizes, second.sizes, strict=True)]
    return significance.compare(first.folds, second.folds, sizes)


def _cell(workdir: Path, keys: Sequence[Key], tested: _Tested) -> dict[str, Any]:
    """Returns what a row scores on a corpus, of all seeds together and of each, and its cost."""
    reports = [summary.read(workdir / folder(key) / REPORT) for key in keys]
    measured = summary.measure(predictions.concatenate(tested.folds))
    return {
        "status": DONE,
        "system": reports[0].system,
        "protocol": reports[0].protocol_text,
        "selected_on": reports[0].selected_on,
        "shared": reports[0].shared,
        "utterances": reports[0].n,
        "interval": measured["interval"],
        **{score: measured[score] for score in SCORES},
        "of_seeds": [
            {"seed": key.seed} | {score: getattr(report, score)["value"] for score in SCORES}
            for key, report in zip(keys, reports, strict=True)
        ],
        "differences": {},  # by the row that is subtracted
        "seconds": sum(report.made.get("seconds", 0.0) for report in reports),
    }
