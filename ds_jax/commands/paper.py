"""Runs every cell of the paper's tables, and puts the paper's numbers beside its own."""

import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from ds_jax import config as configuration
from ds_jax.commands import compare, evaluate, train
from ds_jax.commands.paper_config import changed, override
from ds_jax.data.corpus import LABELS, Corpus
from ds_jax.evaluation import predictions, significance
from ds_jax.evaluation.metrics import SCORES
from ds_jax.report import paper as paper_report
from ds_jax.report import paper_numbers
from ds_jax.runtime import files, locks, processes, progress
from ds_jax.runtime.files import read_json, remove_unfinished, write_json
from ds_jax.runtime.workdir import PREDICTIONS, REPORT
from ds_jax.systems import base as systems

# The folds of each place: the paper's, and the ones in which nobody is heard on both sides.
FOLDS = {
    place: {"paper": protocols[0], "clean": "speakers"}
    for place, protocols in paper_numbers.FOLDS.items()
}
# What is wrong with a run's files, or with what it was to be run on.
ERRORS = (ValueError, OSError)
DONE, WAITING, MISSING = "done", "not run: not reached yet", "not run: corpus missing"


class Run(NamedTuple):
    """A cell's experiment.

    Attributes:
        folder: Of the run, below the workdir.
        experiment: Its config.
        tested: Name of the corpus tested on; another than experiment.corpus in table 7.
    """

    folder: str
    experiment: ConfigDict
    tested: str

    @property
    def report(self) -> str:
        """The folder of its report.json, below the workdir."""
        own = self.tested == self.experiment.corpus
        return self.folder if own else f"{self.folder}/evaluations/{self.tested}"


def run(
    config: ConfigDict,
    read_experiment: Callable[[str], ConfigDict],
    load: Callable[[ConfigDict, str], Corpus],
    workdir: Path,
) -> None:
    """Runs the cells that are not done, and writes paper.json and paper.html after each.

    A corpus that is missing and a cell that fails are told, in the tables too; the rest goes on.

    Args:
        config: Of `configs/paper.py`, with the full names of the corpora.
        read_experiment: Gives the config of a name such as "ds_am_elra".
        load: Gives the corpus of a name as an experiment wants it drawn; FileNotFoundError if its
            recordings are missing.
        workdir: Each cell's run has a folder below it.

    Raises:
        ValueError: Both places hold the same corpus.
    """
    if config.elra == config.emomatch:
        raise ValueError(f"elra and emomatch are both {config.elra!r}: the tables need two corpora")
    runs = plan(config, read_experiment)
    states = {run.folder: _state(run, workdir) for run in runs.values()}
    load = _keeping_the_last(load)
    _write(config, runs, states, workdir)
    began, waiting = time.monotonic(), list(states.values()).count(WAITING)
    ran = 0
    for run in {run.folder: run for run in runs.values()}.values():
        if states[run.folder] != WAITING:
            processes.say(f"{run.folder}: {states[run.folder]}")
            continue
        processes.say(f"{run.folder}: starts, {ran + 1} of {waiting}")
        states[run.folder] = _run(run, load, workdir)
        ran += 1
        left = progress.clock((time.monotonic() - began) / ran * (waiting - ran))
        processes.say(f"{run.folder}: {states[run.folder]}; about {left} left for all")
        processes.wait_for_others(run.folder)
        _write(config, runs, states, workdir)
    processes.say(f"the paper's tables: {workdir / 'paper.html'}")


def plan(
    config: ConfigDict, read_experiment: Callable[[str], ConfigDict]
) -> dict[tuple[str, str], Run]:
    """Every cell's run, by the name of its config and "paper", "clean" or "whole_corpus".

    Where both protocols come to the same experiment they have the same run.
    """
    runs = {}

    def add(name: str, place: str, column: str, folds: str, tested: str) -> Run:
        experiment = read_experiment(name)
        override(experiment, config)  # the seeds that follow another one follow still
        experiment = experiment.copy_and_resolve_references()
        experiment.corpus, experiment.folds.protocol = config[place], folds
        leaks = column == "paper" and _chooses_epoch(experiment)
        experiment.select_on = "test" if leaks else "dev"
        runs[name, column] = Run(f"{column}/{name}", experiment, config[tested])
        return runs[name, column]

    for row in paper_numbers.ROWS:
        paper, clean = (
            add(row.config, row.place, column, folds, row.place)
            for column, folds in FOLDS[row.place].items()
        )
        if paper.experiment == clean.experiment:
            runs[row.config, "paper"] = clean
    for trained, tested in paper_numbers.CROSS:
        if trained != tested:
            add(f"ds_am_{trained}", trained, "whole_corpus", "whole_corpus", tested)
    return runs


def _chooses_epoch(experiment: ConfigDict) -> bool:
    """Whether there is anything for the test fold to choose."""
    return systems.SYSTEMS[experiment.system].chooses == "epoch"


def _state(run: Run, workdir: Path) -> str:
    """What a run's folder says before it is run."""
    try:
        configuration.check_same(run.experiment, workdir / run.folder)
    except ERRORS as error:
        return f"failed: {_sentence(error)}"
    try:
        read_json(workdir / run.report / REPORT)
    except FileNotFoundError:
        return WAITING
    except ValueError as error:  # its folds are there, and it is made of them once more
        processes.say(_sentence(error))
        return WAITING
    sources = [*sorted((workdir / run.folder).glob("fold_*")), workdir / run.report]
    for damage in filter(None, map(files.find_damage, sources)):  # which is made anew
        processes.say(damage)
        return WAITING
    return DONE


def _run(run: Run, load: Callable[[ConfigDict, str], Corpus], workdir: Path) -> str:
    """Runs a cell, and says how that ended."""
    own = run.experiment.corpus
    try:
        systems.check(run.experiment)
        tested = load(run.experiment, run.tested)  # before training: it may be missing
        trained = tested if run.tested == own else load(run.experiment, own)
    except FileNotFoundError as error:
        processes.say(_sentence(error))
        return MISSING
    except Exception as error:  # as below
        return f"not run: {_sentence(error)}"
    try:
        train.run(run.experiment, trained, workdir / run.folder)
        if run.tested != own:
            evaluate.run(workdir / run.folder, tested)
    except Exception as error:  # a device's memory may be full too, and the others go on
        return f"failed: {_sentence(error)}"
    return DONE


def _keeping_the_last(
    load: Callable[[ConfigDict, str], Corpus],
) -> Callable[[ConfigDict, str], Corpus]:
    """Keeps the corpus loaded last, since the next cell often wants it drawn in the same way."""
    kept = {}

    def load_or_take(experiment: ConfigDict, name: str) -> Corpus:
        inputs = [experiment.get("features"), experiment.get("picture")]
        key = name, str(inputs)
        if key not in kept:
            kept.clear()
            kept[key] = load(experiment, name)
        return kept[key]

    return load_or_take


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _write(
    config: ConfigDict,
    runs: Mapping[tuple[str, str], Run],
    states: Mapping[str, str],
    workdir: Path,
) -> None:
    """Writes paper.json and paper.html from what the cells' reports say."""
    if not processes.is_first_process():
        return
    reports = {
        key: read_json(workdir / run.report / REPORT)
        for key, run in runs.items()
        if states[run.folder] == DONE
    }
    # Only the paper's own recordings can agree with it, or not.
    comparable = {
        place: config[place] == corpus and not config.synthetic
        for place, corpus in paper_numbers.CORPORA.items()
    }
    content = {
        "title": paper_report.title(config.elra, config.emomatch),
        "elra": config.elra,
        "emomatch": config.emomatch,
        "synthetic": config.synthetic,
        "changed": dict(changed(config)),
        "cells": [
            _cell(row, column, runs[row.config, column], states, reports, comparable[row.place])
            for row in paper_numbers.ROWS
            for column in ("paper", "clean")
        ],
        "ds_am": [
            _ds_am(places, runs, states, reports, all(comparable[place] for place in places))
            for places in paper_numbers.CROSS
        ],
        "differences": _differences(runs, reports, workdir),
        "comparisons": _comparisons(runs, reports, workdir),
        "slips": list(paper_numbers.SLIPS),
    }
    with locks.hold(workdir / "paper.lock", f"{workdir}", wait=True):
        remove_unfinished(workdir)
        write_json(workdir / "paper.json", content)
        paper_report.write(workdir / "paper.html", content)


def _cell(
    row: paper_numbers.Row,
    column: str,
    run: Run,
    states: Mapping[str, str],
    reports: Mapping[tuple[str, str], Mapping],
    comparable: bool,
) -> dict:
    """A cell of tables 1 to 4: the paper's numbers, ours, and how they were come by."""
    report = reports.get((row.config, column), {})
    ours = _scores(report)
    return {
        "config": row.config,
        "tables": list(row.tables),
        "place": row.place,
        "features": row.features,
        "system": row.system,
        "title": row.title,
        "measured": report.get("system"),
        "corpus": run.tested,
        "protocol": column,
        "folds": report.get("protocol", run.experiment.folds.protocol),
        "selected_on": report.get("selected_on", run.experiment.select_on),
        "chooses_epoch": _chooses_epoch(run.experiment),
        "shared": report.get("shared"),
        "interval": report.get("interval"),
        "target": {"accuracy": row.accuracy, "macro_f1": row.f1},
        "ours": ours,
        "contains": _contains(ours["accuracy"], row.accuracy) if ours and comparable else None,
        "contains_f1": _contains(ours["macro_f1"], row.f1) if ours and comparable else None,
        "status": states[run.folder],
        "workdir": run.report,
    }


def _ds_am(
    places: tuple[str, str],
    runs: Mapping[tuple[str, str], Run],
    states: Mapping[str, str],
    reports: Mapping[tuple[str, str], Mapping],
    comparable: bool,
) -> dict:
    """DS-AM from a place to a place: table 7's cell, the report by class and the confusion."""
    trained, tested = places
    key = f"ds_am_{trained}", "paper" if trained == tested else "whole_corpus"
    run, report = runs[key], reports.get(key, {})
    ours, target = _scores(report), paper_numbers.CROSS[places]
    number, classes = paper_numbers.PER_CLASS[places]
    names = ("precision", "recall", "f1")
    return {
        "trained_on": run.experiment.corpus,
        "tested_on": run.tested,
        "places": list(places),
        "table": number,
        "figure": paper_numbers.FIGURES[places],
        "target": {"accuracy": target},
        "ours": ours,
        "contains": _contains(ours["accuracy"], target) if ours and comparable else None,
        "target_per_class": {
            label: dict(zip(names, classes[label], strict=True)) for label in LABELS
        },
        "per_class": report.get("per_class"),
        "labels": list(LABELS),
        "confusion": report.get("confusion"),
        "selected_on": report.get("selected_on", run.experiment.select_on),
        "shared": report.get("shared"),
        "interval": report.get("interval"),
        "status": states[run.folder],
        "workdir": run.report,
    }


def _scores(report: Mapping) -> dict | None:
    return {name: report[name] for name in SCORES} if report else None


def _contains(score: Mapping, target: float | None) -> bool | None:
    """Whether an interval holds the paper's number; None without either."""
    if target is None or score["low"] is None:
        return None
    return score["low"] <= target <= score["high"]


def _differences(
    runs: Mapping[tuple[str, str], Run], reports: Mapping[tuple[str, str], Mapping], workdir: Path
) -> dict[str, dict]:
    """What the paper's protocol gives beyond the clean one, for each config run in both."""
    found = {}
    for row in paper_numbers.ROWS:
        keys = (row.config, "paper"), (row.config, "clean")
        paper, clean = (runs[key].folder for key in keys)
        if paper != clean and all(key in reports for key in keys):
            found[row.config] = _difference(workdir / paper, workdir / clean)
    return found


@functools.cache
def _difference(paper: Path, clean: Path) -> dict:
    """The first run's scores minus the second's; both tested every utterance, in other folds."""
    pooled = []
    for workdir in (paper, clean):
        parts = sorted(workdir.glob(f"fold_*/{PREDICTIONS}"))
        pooled.append(predictions.concatenate([predictions.read(part) for part in parts]))
    compared = significance.compare([pooled[0]], [pooled[1]], [len(pooled[0].labels)])
    kept = ("difference", "low", "high", "p")
    scores = {name: {key: compared[name][key] for key in kept} for name in SCORES}
    return scores | {"method": compared["method"]}


def _comparisons(
    runs: Mapping[tuple[str, str], Run], reports: Mapping[tuple[str, str], Mapping], workdir: Path
) -> list[dict]:
    """Each place's and protocol's systems against DS-AM, those that were run."""
    found = []
    for place in paper_numbers.CORPORA:
        for column in ("paper", "clean"):
            names = [row.config for row in paper_numbers.ROWS if row.place == place]
            done = [name for name in names if (name, column) in reports]
            reference = f"ds_am_{place}"
            if reference not in done or len(done) < 2:
                continue
            others = [name for name in done if name != reference]
            folders = [workdir / runs[name, column].folder for name in (reference, *others)]
            rows = [_against(folders[0], other) for other in folders[1:]]
            named = [{"config": name, **row} for name, row in zip(others, _holm(rows), strict=True)]
            place_and_protocol = {"place": place, "protocol": column, "reference": reference}
            found.append(place_and_protocol | {"pairs": named})
    return found


@functools.cache
def _against(reference: Path, other: Path) -> dict:
    """The pair of two runs; or a note of why they cannot be compared."""
    try:
        return compare.against(reference, [other])["pairs"][0] | {"note": ""}
    except ERRORS as error:
        return {"note": _sentence(error)}


def _holm(rows: list[dict]) -> list[dict]:
    """The rows with p values adjusted for all those that could be compared."""
    for score in SCORES:
        adjusted = significance.holm([row[score]["p"] if score in row else None for row in rows])
        rows = [
            row | {score: row[score] | {"p_holm": p}} if score in row else row
            for row, p in zip(rows, adjusted, strict=True)
        ]
    return rows
