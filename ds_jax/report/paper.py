"""The paper's tables beside what was measured here: paper.json and, for people, paper.html."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from ds_jax.data.folds import PROTOCOLS
from ds_jax.data.labels import LABELS
from ds_jax.evaluation import comparison, predictions, significance
from ds_jax.evaluation.metrics import SCORES
from ds_jax.evaluation.summary import RunSummary
from ds_jax.report import figures, forests, latex, pages, paper_numbers, tables
from ds_jax.report.paper_numbers import Row
from ds_jax.runtime.errors import in_one_line
from ds_jax.runtime.files import write_json, write_text
from ds_jax.runtime.workdir import evaluation_directory, finished_folds

ERRORS = (ValueError, OSError)  # raised for wrong files of a run, and for missing recordings
COLUMNS = ("paper", "clean")  # the protocols of tables 1 to 4
CAPTIONS = {
    1: "Modulation spectral features and MFCC with three classifiers",
    2: "eGeMAPS and ComParE with three classifiers",
    3: "Machine-learning classifiers, and an SVC on the features of VGG16",
    4: "Deep learning: networks on features, VGG16 fine-tuned, and VGG16 with attention",
}

_OF_ROW = ("config", "tables", "place", "features", "system", "title")  # what a cell has as it is
Key = tuple[str, str]  # the name of a cell's config, and "paper", "clean" or "whole_corpus"


class Run(NamedTuple):
    """An experiment of a page.

    Attributes:
        folder: That of its run, below the page's.
        experiment: Its config.
        tested: The name of the corpus that it is tested on, which in table 7 may be another one.
        chooses_epoch: Whether it does; otherwise a test fold cannot choose anything.
    """

    folder: Path
    experiment: ConfigDict
    tested: str
    chooses_epoch: bool = True

    @property
    def report(self) -> Path:
        """The folder of its report.json, below the page's."""
        if self.tested == self.experiment.corpus:
            return self.folder
        return evaluation_directory(self.folder, self.tested)


class Outcome(NamedTuple):
    """The outcome of a run."""

    run: Run
    status: str  # "done", or a phrase that says why it is not
    report: RunSummary | None  # None unless the run is done


def write(
    workdir: Path,
    config: ConfigDict,
    changed: Mapping[str, Any],
    table: Sequence[Row],
    outcomes: Mapping[Key, Outcome],
) -> dict:
    """Writes paper.json and paper.html, and returns the content of the former.

    Args:
        workdir: The folder of both files and, below it, of the cells' runs.
        config, changed: The config of `configs/paper.py`, and what overrides fields of the cells.
        table: The rows of the tables 1 to 4.
        outcomes: The outcome of each cell's run.
    """
    titles = {place: _corpus_title(config, place, outcomes) for place in paper_numbers.CORPORA}
    content = {
        "title": _title(config, titles),
        "elra": config.elra,
        "emomatch": config.emomatch,
        "titles": titles,
        "synthetic": config.synthetic,
        "changed": dict(changed),
        "rivals": [*dict.fromkeys(row.title for row in table if row.rival)],
        "cells": [
            _cell(row, column, outcomes[row.config, column], config)
            for row in table
            for column in COLUMNS
        ],
        "ds_am": [_cross_cell(*places, outcomes, config) for places in paper_numbers.CROSS],
        "differences": _differences(table, outcomes, workdir),
        "comparisons": list(_comparisons(table, outcomes, workdir)),
        "slips": list(paper_numbers.SLIPS),
    }
    write_json(workdir / "paper.json", content)
    write_page(workdir / "paper.html", content)
    return content


def write_figures(folder: Path, content: Mapping) -> None:
    """Writes the figures and tables of the content of paper.json, for a paper."""
    for name, forest in forests.of_paper(content).items():
        figures.write_forest(folder / name, forest)
    for cell in content["ds_am"]:
        if cell["confusion"]:
            path = folder / f"figure_{cell['figure']}"
            figures.write_confusion(path, cell["labels"], cell["confusion"])
    latex.write(folder, tables.of_paper(content, CAPTIONS))


def _corpus_title(config: ConfigDict, place: str, outcomes: Mapping[Key, Outcome]) -> str:
    """Returns the title of the corpus in a place: the paper's, that of a report, or its name."""
    if config[place] == paper_numbers.CORPORA[place]:
        return paper_numbers.TITLES[place]
    reports = (o.report for o in outcomes.values() if o.report and o.run.tested == config[place])
    return next((r.corpus_title for r in reports if r.corpus_title), config[place])


def _title(corpora: Mapping, titles: Mapping[str, str]) -> str:
    """Returns the page's title, with the titles of the corpora in the paper's two places."""
    if stand_ins := _stand_ins(corpora):
        named = [f"{titles[place]} in {paper_numbers.TITLES[place]}'s place" for place in stand_ins]
        return f"The paper's tables, with {' and '.join(named)}"
    return f"The paper's tables on {' and '.join(titles.values())}"


def _stand_ins(corpora: Mapping) -> list[str]:
    """Returns the places in which another corpus than the paper's was tested."""
    return [place for place, name in paper_numbers.CORPORA.items() if corpora[place] != name]


def _cell(row: Row, column: str, outcome: Outcome, config: ConfigDict) -> dict:
    """Returns a cell of tables 1 to 4: the paper's numbers, ours, and how they were measured."""
    run, _, report = outcome
    comparable = _comparable(config, row.place)
    return {
        **{field: getattr(row, field) for field in _OF_ROW},
        "measured": report.system if report else None,
        "corpus": run.tested,
        "protocol": column,
        "folds": report.protocol if report else run.experiment.folds.protocol,
        "chooses_epoch": run.chooses_epoch,
        "target": {"accuracy": row.accuracy, "macro_f1": row.f1},
        "contains": _contains(report, "accuracy", row.accuracy) if comparable else None,
        "contains_f1": _contains(report, "macro_f1", row.f1) if comparable else None,
        **_measured(outcome),
    }


def _cross_cell(
    trained: str, tested: str, outcomes: Mapping[Key, Outcome], config: ConfigDict
) -> dict:
    """Returns DS-AM from place to place: table 7's cell, the scores by class and the confusion."""
    column = "paper" if trained == tested else "whole_corpus"
    outcome = outcomes[f"ds_am_{trained}", column]
    run, _, report = outcome
    target = paper_numbers.CROSS[trained, tested]
    comparable = _comparable(config, trained, tested)
    return {
        "trained_on": run.experiment.corpus,
        "tested_on": run.tested,
        "places": [trained, tested],
        "table": paper_numbers.PER_CLASS[trained, tested][0],
        "figure": paper_numbers.FIGURES[trained, tested],
        "target": {"accuracy": target},
        "contains": _contains(report, "accuracy", target) if comparable else None,
        "target_per_class": paper_numbers.per_class(trained, tested),
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
        "selected_on": run.experiment.select_on if run.chooses_epoch else "none",
        "shared": report.shared if report else None,
        "interval": report.interval if report else None,
        "status": status,
        "workdir": str(run.report),
    }


def _comparable(config: ConfigDict, *places: str) -> bool:
    """Tells whether numbers were measured on the paper's recordings, and can agree with it."""
    return not config.synthetic and not set(places) & set(_stand_ins(config))


def _contains(report: RunSummary | None, score: str, target: float | None) -> bool | None:
    """Tells whether an interval contains the paper's number; None where one of them is missing."""
    limits = getattr(report, score) if report else {"low": None}
    if target is None or limits["low"] is None:
        return None
    return limits["low"] <= target <= limits["high"]


def _differences(
    table: Sequence[Row], outcomes: Mapping[Key, Outcome], workdir: Path
) -> dict[str, dict]:
    """Returns by config the scores under the paper's protocol minus those under the clean one."""
    differences = {}
    for row in table:
        both = [outcomes[row.config, column] for column in COLUMNS]
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


def _comparisons(
    table: Sequence[Row], outcomes: Mapping[Key, Outcome], workdir: Path
) -> Iterator[dict]:
    """Compares the finished systems of each place and protocol with DS-AM."""
    for place in paper_numbers.CORPORA:
        for column in COLUMNS:
            reference = f"ds_am_{place}"
            folders = {
                row.config: workdir / outcomes[row.config, column].run.folder
                for row in table
                if row.place == place and outcomes[row.config, column].report
            }
            if len(folders) < 2 or reference not in folders:
                continue
            second = folders.pop(reference)
            pairs = [{"config": name} | _pair(first, second) for name, first in folders.items()]
            about = {"place": place, "protocol": column, "reference": reference}
            yield about | {"pairs": significance.adjust(pairs)}


@functools.cache
def _pair(first: Path, second: Path) -> dict:
    """Compares two runs; where that is impossible, the "note" says why."""
    try:
        return comparison.compare_runs([first, second])["pairs"][0] | {"note": ""}
    except ERRORS as error:
        return {"note": in_one_line(error)}


def write_page(path: Path, content: Mapping) -> None:
    """Writes the content of paper.json as one self-contained HTML file, whole or not at all.

    The links lead to the reports of the cells, in folders below that of the page.
    """
    cells = content["cells"]
    page = pages.render(
        "paper.html.jinja",
        content=content,
        names=content["titles"],
        papers=paper_numbers.TITLES,
        stand_ins=_stand_ins(content),
        runs={cell["workdir"]: cell["status"] for cell in cells + content["ds_am"]},
        tables=[(number, CAPTIONS[number], _groups(cells, number)) for number in CAPTIONS],
        protocols=list(_protocols(cells)),
        methods=list(_methods(cells)),
        systems={cell["config"]: cell["title"] for cell in cells},
        ds_am=sorted(content["ds_am"], key=lambda cell: cell["table"]),
        leaks=_leaks,
        forests=forests.of_paper(content),
    )
    write_text(path, page)


def _groups(cells: list[dict], number: int) -> list[tuple[str, str, list[dict]]]:
    """Groups a table's rows by (place, score); a row has the cells of both protocols."""
    rows = {}
    for cell in cells:
        if number in cell["tables"]:
            rows.setdefault(cell["config"], {})[cell["protocol"]] = cell
    groups = []
    for place in paper_numbers.CORPORA:
        in_place = [row for row in rows.values() if row["paper"]["place"] == place]
        scores = ("accuracy", "macro_f1") if number == 2 else ("accuracy",)
        groups += [(place, score, in_place) for score in scores if in_place]
    return groups


def _protocols(cells: list[dict]) -> Iterator[dict]:
    """Yields how each protocol was carried out in each place, and what its splits share."""
    for place in paper_numbers.CORPORA:
        for protocol in COLUMNS:
            runs = [c for c in cells if (c["place"], c["protocol"]) == (place, protocol)]
            shared = [cell["shared"] for cell in runs if cell["shared"]]
            yield {
                "place": place,
                "protocol": protocol,
                "folds": runs[0]["folds"],
                "text": PROTOCOLS[runs[0]["folds"]],
                "selected_on": runs[-1]["selected_on"],  # of DS-AM, which has an epoch to choose
                # Systems that skip a recording may share less than others.
                "shared": {kind: _range(shared, kind) for kind in ("speakers", "sentences")},
            }


def _range(shared: list[Mapping], kind: str) -> str:
    """Formats how many are shared in the cells that were run: "84", "80 to 84" or nothing."""
    counts = {counted[kind] for counted in shared if counted.get(kind) is not None}
    return " to ".join(map(str, sorted({min(counts), max(counts)}))) if counts else ""


def _methods(cells: list[dict]) -> Iterator[tuple[str, str]]:
    """Yields a place and how its intervals were computed, as a sentence."""
    for place in paper_numbers.CORPORA:
        methods = {c["interval"] for c in cells if c["place"] == place and c["interval"]}
        yield from ((place, method) for method in sorted(methods))


def _leaks(cell: Mapping) -> bool:
    """Tells whether the test fold chose the epoch, or training and test share speakers."""
    return cell["selected_on"] == "test" or bool((cell["shared"] or {}).get("speakers"))
