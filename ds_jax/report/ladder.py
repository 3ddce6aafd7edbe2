"""What each row of the ladder scores, and what its step is worth: ladder.json and ladder.md."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from ds_jax.data.fold_files import read_entries
from ds_jax.evaluation import predictions, significance, summary
from ds_jax.evaluation.metrics import SCORES
from ds_jax.evaluation.predictions import Predictions
from ds_jax.report import figures, forests, latex, pages, tables
from ds_jax.report.paper import ERRORS
from ds_jax.runtime.errors import in_one_line
from ds_jax.runtime.files import write_json, write_text
from ds_jax.runtime.workdir import FOLDS, PREDICTIONS, REPORT, fold_directory

TABLES = "ladder.md"
_OF_REPORT = ("selected_on", "adapt", "auxiliary", "shared")  # what a cell has as it is
DONE = "done"


class Key(NamedTuple):
    """Names a run of the ladder."""

    corpus: str
    row: str
    seed: int

    @property
    def folder(self) -> Path:
        """The folder of the run, below that of the ladder."""
        return Path(self.corpus, self.row, f"seed_{self.seed}")


class _Tested(NamedTuple):
    """What some seeds of a row predict on a corpus; an utterance comes once for each seed."""

    folds: list[Predictions]
    sizes: list[int]  # of train and dev, fold by fold, in all seeds


def ordered(rows: Mapping[str, Mapping], after: str = "") -> list[str]:
    """Returns the names of rows, each after the one that it follows.

    Rows that follow each other in a circle are left out.
    """
    names = []
    for name, row in rows.items():
        if row["after"] == after:
            names += [name, *ordered(rows, name)]
    return names


def write(
    workdir: Path, config: ConfigDict, states: Mapping[Key, str], command: str
) -> dict[str, Any]:
    """Writes ladder.json and ladder.md, and returns the content of the former.

    A row counts with those of its seeds that are done.

    Args:
        workdir: The folder of both files and, below it, of the runs.
        config: The config of `configs/ladder.py`.
        states: What has become of each run: "done", or a phrase that says why it is not.
        command: The one that writes the page; rows may have been made by others before it.
    """
    rows, corpora = {}, {}
    for name in ordered(config.rows):
        row = config.rows[name]
        others = [row.after, *(config.references if name in config.headlines else ())]
        others = [other for other in dict.fromkeys(others) if other not in ("", name)]
        rows[name] = {"title": row.title, "after": row.after, "minus": others}
    for corpus, folds in config.corpora.items():
        cells = {}
        for name in rows:
            keys = [Key(corpus, name, seed) for seed in config.seeds]
            done = [key for key in keys if states[key] == DONE]
            cells[name] = {"status": states[keys[0]]}
            if done:
                cell = _cell(tuple(workdir / key.folder for key in done))
                cells[name] = cell | {"seeds": [key.seed for key in done], "differences": {}}
        corpora[corpus] = {"folds": folds.to_dict(), "cells": cells}
    places, pairs = [], []
    for name, row in rows.items():
        for other in row["minus"]:
            matrices = {}
            for corpus, part in corpora.items():
                first, second = part["cells"][name], part["cells"][other]
                common = sorted({*first.get("seeds", ())} & {*second.get("seeds", ())})
                if not common:
                    continue
                both = [
                    tuple(workdir / Key(corpus, each, seed).folder for seed in common)
                    for each in (name, other)
                ]
                pair, matrices[corpus] = _compare(*both)
                places.append((first["differences"], other))
                pairs.append(pair | {"seeds": common})
            if len(matrices) > 1 and all(each is not None for each in matrices.values()):
                places.append((row.setdefault("differences", {}), other))
                pairs.append(significance.compare_sets([*matrices.values()]))
    for (differences, other), pair in zip(places, significance.adjust(pairs), strict=True):
        differences[other] = pair
    content = {"seeds": list(config.seeds), "references": list(config.references), "rows": rows}
    content |= {"corpora": corpora, "compared": sum("uar" in pair for pair in pairs)}
    content["only"] = list(config.only or rows)  # others are shown where they are done
    cells = [cell for part in corpora.values() for cell in part["cells"].values()]
    before = dict.fromkeys(each for cell in cells for each in cell.get("commands", ()))
    content["commands"] = [*(each for each in before if each != command), command]
    write_json(workdir / "ladder.json", content)
    text = pages.render("ladder.md.jinja", with_interval=pages.with_interval, **content)
    write_text(workdir / TABLES, text)
    return content


def write_figures(folder: Path, content: Mapping[str, Any]) -> None:
    """Writes the figures and tables of the content of ladder.json, for a paper."""
    if forest := forests.of_ladder(content):
        figures.write_forest(folder / "differences", forest)
    latex.write(folder, tables.of_ladder(content))


@functools.cache  # what is done does not change, and the tables are written after each run
def _read(workdirs: Sequence[Path]) -> _Tested:
    """Reads what some runs with the same folds predict."""
    _, entries = read_entries(workdirs[0] / FOLDS)
    folds = [
        predictions.concatenate(
            [predictions.read(fold_directory(each, number) / PREDICTIONS) for each in workdirs]
        )
        for number in range(len(entries))
    ]
    sizes = [len(workdirs) * (len(entry["train"]) + len(entry["dev"])) for entry in entries]
    return _Tested(folds, sizes)


@functools.cache
def _compare(*both: Sequence[Path]) -> tuple[dict[str, Any], np.ndarray | None]:
    """Compares the runs of two rows; where that is impossible, the "note" says why.

    Returns:
        The comparison, and the result of `significance.pairs_of`, or None.
    """
    try:
        first, second = map(_read, both)
        sizes = [min(each) for each in zip(first.sizes, second.sizes, strict=True)]
        result = significance.compare(first.folds, second.folds, sizes)
        return result, significance.pairs_of(first.folds, second.folds)
    except ERRORS as error:
        return {"note": in_one_line(error)}, None


@functools.cache
def _cell(workdirs: Sequence[Path]) -> dict[str, Any]:
    """Returns what a row scores on a corpus, of its seeds together and of each, and its cost."""
    try:
        reports = [summary.read(workdir / REPORT) for workdir in workdirs]
        measured = summary.measure(predictions.concatenate(_read(workdirs).folds))
    except ERRORS as error:
        return {"status": f"failed: {in_one_line(error)}"}
    seconds = [report.made.get("seconds", 0.0) for report in reports]
    return {
        "status": DONE,
        "system": reports[0].system,
        "protocol": reports[0].protocol_text,
        **{field: getattr(reports[0], field) for field in _OF_REPORT},
        "commands": [*dict.fromkeys(filter(None, (x.made.get("command") for x in reports)))],
        "utterances": reports[0].n,
        "interval": measured["interval"],
        **{score: measured[score] for score in SCORES},
        "of_seeds": [
            {score: getattr(report, score)["value"] for score in SCORES} for report in reports
        ],
        "devices": reports[0].made.get("devices"),
        "seconds": sum(seconds) / len(seconds),
    }
