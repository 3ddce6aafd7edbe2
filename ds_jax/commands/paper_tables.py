"""Collects the content of paper.json: the paper's numbers, and those of the runs of its cells."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from ds_jax.commands import compare
from ds_jax.data.labels import LABELS
from ds_jax.evaluation import predictions, significance
from ds_jax.evaluation.metrics import SCORES
from ds_jax.evaluation.summary import RunSummary
from ds_jax.report import paper as page
from ds_jax.report import paper_numbers
from ds_jax.runtime.workdir import evaluation_directory, finished_folds
from ds_jax.systems import base as systems

ERRORS = (ValueError, OSError)  # raised for wrong files of a run, and for missing recordings
DONE = "done"

Key = tuple[str, str]  # the name of a cell's config, and "paper", "clean" or "whole_corpus"


class Run(NamedTuple):
    """A cell's experiment."""

    folder: str  # below the workdir
    experiment: ConfigDict
    tested: str  # the name of the corpus; in table 7 it may differ from experiment.corpus

    @property
    def report(self) -> str:
        """The folder of its report.json, below the workdir."""
        if self.tested == self.experiment.corpus:
            return self.folder
        return str(evaluation_directory(Path(self.folder), self.tested))


class Outcome(NamedTuple):
    """The outcome of a run."""

    run: Run
    status: str  # `DONE`, or a phrase that says why it is not
    report: RunSummary | None  # None unless the run is done


def collect(
    config: ConfigDict, changed: Mapping[str, Any], outcomes: Mapping[Key, Outcome], workdir: Path
) -> dict:
    """Returns the content of paper.json; `changed` are the fields that override the cells'."""
    content = {
        "elra": config.elra,
        "emomatch": config.emomatch,
        "titles": {place: _title(config, place, outcomes) for place in paper_numbers.CORPORA},
    }
    return (
        {"title": page.title(content)}
        | content
        | {
            "synthetic": config.synthetic,
            "changed": dict(changed),
            "cells": [
                _cell(row, column, outcomes[row.config, column], config)
                for row in paper_numbers.ROWS
                for column in ("paper", "clean")
            ],
            "ds_am": [_cross_cell(*places, outcomes, config) for places in paper_numbers.CROSS],
            "differences": _differences(outcomes, workdir),
            "comparisons": _comparisons(outcomes, workdir),
            "slips": list(paper_numbers.SLIPS),
        }
    )


def chooses_epoch(experiment: ConfigDict) -> bool:
    """Tells whether a test fold could choose anything."""
    return systems.SYSTEMS[experiment.system].chooses == "epoch"


def sentence(error: Exception) -> str:
    """Returns the message of an error in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _title(config: ConfigDict, place: str, outcomes: Mapping[Key, Outcome]) -> str:
    """Returns the title of the corpus in a place: the paper's, that of a report, or its name."""
    if config[place] == paper_numbers.CORPORA[place]:
        return paper_numbers.TITLES[place]
    reports = (o.report for o in outcomes.values() if o.report and o.run.tested == config[place])
    return next((r.corpus_title for r in reports if r.corpus_title), config[place])


def _cell(row: paper_numbers.Row, column: str, outcome: Outcome, config: ConfigDict) -> dict:
    """Returns a cell of tables 1 to 4: the paper's numbers, ours, and how they were measured."""
    run, _, report = outcome
    target = {"accuracy": row.accuracy, "macro_f1": row.f1}
    comparable = _comparable(config, row.place)
    return {
        "config": row.config,
        "tables": list(row.tables),
        "place": row.place,
        "features": row.features,
        "system": row.system,
        "title": row.title,
        "measured": report.system if report else None,
        "corpus": run.tested,
        "protocol": column,
        "folds": report.protocol if report else run.experiment.folds.protocol,
        "chooses_epoch": chooses_epoch(run.experiment),
        "target": target,
        "contains": _contains(report, "accuracy", target["accuracy"]) if comparable else None,
        "contains_f1": _contains(report, "macro_f1", target["macro_f1"]) if comparable else None,
        **_measured(outcome),
    }


def _cross_cell(
    trained: str, tested: str, outcomes: Mapping[Key, Outcome], config: ConfigDict
) -> dict:
    """Returns DS-AM from place to place: table 7's cell, the scores by class and the confusion."""
    column = "paper" if trained == tested else "whole_corpus"
    outcome = outcomes[f"ds_am_{trained}", column]
    run, _, report = outcome
    number, classes = paper_numbers.PER_CLASS[trained, tested]
    target = paper_numbers.CROSS[trained, tested]
    comparable = _comparable(config, trained, tested)
    names = ("precision", "recall", "f1")
    return {
        "trained_on": run.experiment.corpus,
        "tested_on": run.tested,
        "places": [trained, tested],
        "table": number,
        "figure": paper_numbers.FIGURES[trained, tested],
        "target": {"accuracy": target},
        "contains": _contains(report, "accuracy", target) if comparable else None,
        "target_per_class": {
            label: dict(zip(names, classes[label], strict=True)) for label in LABELS
        },
        "per_class": report.per_class if report else None,
        "labels": list(LABELS),
        "confusion": report.confusion if report else None,
        **_measured(outcome),
    }


def _measured(outcome: Outcome) -> dict:
    """Returns what a cell of any table has of its run."""
    run, status, report = outcome
    return {
        "ours": {name: getattr(report, name) for name in SCORES} if report else None,
        "selected_on": report.selected_on if report else run.experiment.select_on,
        "shared": report.shared if report else None,
        "interval": report.interval if report else None,
        "status": status,
        "workdir": run.report,
    }


def _comparable(config: ConfigDict, *places: str) -> bool:
    """Tells whether numbers were measured on the paper's recordings, and can agree with it."""
    same = all(config[place] == paper_numbers.CORPORA[place] for place in places)
    return same and not config.synthetic


def _contains(report: RunSummary | None, score: str, target: float | None) -> bool | None:
    """Tells whether an interval contains the paper's number; None where one of them is missing."""
    limits = getattr(report, score) if report else {"low": None}
    if target is None or limits["low"] is None:
        return None
    return limits["low"] <= target <= limits["high"]


def _differences(outcomes: Mapping[Key, Outcome], workdir: Path) -> dict[str, dict]:
    """Returns by config the scores under the paper's protocol minus those under the clean one."""
    differences = {}
    for row in paper_numbers.ROWS:
        both = [outcomes[row.config, column] for column in ("paper", "clean")]
        folders = [workdir / outcome.run.folder for outcome in both]
        if folders[0] != folders[1] and all(outcome.report for outcome in both):
            differences[row.config] = _difference(*folders)
    return differences


@functools.cache
def _difference(paper: Path, clean: Path) -> dict:
    """Compares two runs that tested the same utterances in different folds."""
    first, second = (predictions.read_pooled(finished_folds(run)) for run in (paper, clean))
    compared = significance.compare([first], [second], [len(first.labels)])
    kept = ("difference", "low", "high", "p")
    scores = {name: {key: compared[name][key] for key in kept} for name in SCORES}
    return scores | {"method": compared["method"]}


def _comparisons(outcomes: Mapping[Key, Outcome], workdir: Path) -> list[dict]:
    """Compares the finished systems of each place and protocol with DS-AM."""
    comparisons = []
    for place in paper_numbers.CORPORA:
        for column in ("paper", "clean"):
            reference = f"ds_am_{place}"
            folders = {
                row.config: workdir / outcomes[row.config, column].run.folder
                for row in paper_numbers.ROWS
                if row.place == place and outcomes[row.config, column].report
            }
            if len(folders) < 2 or reference not in folders:
                continue
            first = folders.pop(reference)
            rows = _adjust([_against(first, other) for other in folders.values()])
            pairs = [{"config": name, **row} for name, row in zip(folders, rows, strict=True)]
            about = {"place": place, "protocol": column, "reference": reference}
            comparisons.append(about | {"pairs": pairs})
    return comparisons


@functools.cache
def _against(reference: Path, other: Path) -> dict:
    """Compares two runs; where that is impossible, the "note" says why."""
    try:
        return compare.against(reference, [other])["pairs"][0] | {"note": ""}
    except ERRORS as error:
        return {"note": sentence(error)}


def _adjust(rows: list[dict]) -> list[dict]:
    """Adjusts the p values for all rows that could be compared."""
    for score in SCORES:
        adjusted = significance.holm([row[score]["p"] if score in row else None for row in rows])
        rows = [
            row | {score: row[score] | {"p_holm": p}} if score in row else row
            for row, p in zip(rows, adjusted, strict=True)
        ]
    return rows
