"""Finished runs beside each other: `--mode=compare`."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

from ds_jax.evaluation import predictions, significance
from ds_jax.evaluation.metrics import SCORES
from ds_jax.runtime import progress
from ds_jax.runtime.files import read_json, write_json
from ds_jax.runtime.workdir import FOLDS, PREDICTIONS, REPORT

# What is read of either file.
_FIELDS = {
    "folds.json": ("protocol", "folds"),
    "report.json": ("corpus", "protocol", "system", "selected_on", "utterances", *SCORES),
}
_TITLES = {"accuracy": "accuracy", "uar": "UAR", "macro_f1": "macro F1"}


@dataclasses.dataclass(frozen=True, eq=False)
class _Run:
    """A finished run as its files tell it.

    Attributes:
        workdir: Its folder.
        report: The content of report.json.
        folds: The folds of folds.json, each with lists of names "train", "dev" and "test".
        predictions: One element a fold.
    """

    workdir: Path
    report: dict
    folds: list[dict]
    predictions: list[predictions.Predictions]


def run(workdirs: Sequence[Path], output: Path | None = None) -> dict:
    """Compares every pair of runs, prints a table, and writes comparison.json if told where.

    Args:
        workdirs: Of two or more finished runs on the same test sides of a corpus.
        output: A folder for comparison.json; nothing is written without.

    Returns:
        What `compare_runs` returns.
    """
    result = compare_runs(workdirs)
    print(_text(result), flush=True)
    if output is not None:
        path = Path(output) / "comparison.json"
        write_json(path, result)
        print(f"comparison: {path}", flush=True)
    return result


def compare_runs(workdirs: Sequence[Path]) -> dict:
    """Compares every pair of runs; p values are also adjusted for all pairs, score by score.

    Args:
        workdirs: Of two or more finished runs on the same test sides of a corpus.

    Returns:
        What JSON can hold: "corpus"; "protocol"; "utterances", how many were tested; "runs", for
        each its "name" (system, and folder where systems are the same), "system", "workdir",
        "selected_on" (empty without epochs) and scores as in report.json; and "pairs", for each
        the names "first" and "second" and what `paired.compare` returns, a "p_holm" beside each
        score's "p".

    Raises:
        FileNotFoundError: A workdir holds no run, or the run is not finished.
        ValueError: There are fewer than two runs, one is given twice, or they were not tested on
            the same folds of the same corpus.
    """
    runs = _read_all(workdirs)
    return _content(runs, list(itertools.combinations(range(len(runs)), 2)))


def against(reference: Path, others: Sequence[Path]) -> dict:
    """Compares each of the other runs with one reference; p values are adjusted for these pairs.

    Args:
        reference: Workdir of the run that the others are compared with.
        others: Workdirs of the others.

    Returns:
        As `compare_runs`: the reference is the first of "runs" and the "second" of every pair, so
        a positive difference says that the other is better.

    Raises:
        FileNotFoundError, ValueError: As `compare_runs`.
    """
    runs = _read_all([reference, *others])
    return _content(runs, [(number, 0) for number in range(1, len(runs))])


def _read_all(workdirs: Sequence[Path]) -> list[_Run]:
    """Reads the runs; raises unless they were tested alike."""
    workdirs = [Path(workdir) for workdir in workdirs]
    if len(workdirs) < 2:
        raise ValueError(
            f"{len(workdirs)} run cannot be compared: name the folders of two or more, "
            "python launch.py --mode=compare RUN RUN"
        )
    places = [workdir.resolve() for workdir in workdirs]
    if twice := [place for place in places if places.count(place) > 1]:
        raise ValueError(f"{twice[0]} is given twice: name each run once")
    runs = [_read(workdir) for workdir in workdirs]
    for other in runs[1:]:
        _check_alike(runs[0], other)
    return runs


def _read(workdir: Path) -> _Run:
    folds = _json(workdir / FOLDS)
    if folds["protocol"] == "whole_corpus":
        raise ValueError(f"{workdir}: a run of protocol 'whole_corpus' tests nothing to compare")
    folds = folds["folds"]
    paths = [workdir / f"fold_{number:02}" / PREDICTIONS for number in range(len(folds))]
    if missing := [str(number) for number, path in enumerate(paths) if not path.is_file()]:
        raise FileNotFoundError(
            f"{workdir} is not finished, folds still to run: {', '.join(missing)}"
        )
    report = _json(workdir / REPORT)
    tested = [predictions.read(path) for path in paths]
    for path, fold, said in zip(paths, folds, tested, strict=True):
        if set(said.utterances) != set(fold["test"]):
            raise ValueError(f"{path} and the test side in folds.json differ: run the fold again")
    return _Run(workdir, report, folds, tested)


def _json(path: Path) -> dict:
    try:
        content = read_json(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(
            f"{path.parent} holds no finished run: {path.name} is missing"
        ) from error
    if lacking := [field for field in _FIELDS[path.name] if field not in content]:
        raise ValueError(f"{path} lacks {lacking[0]!r}: name the folder of a run")
    return content


def _check_alike(first: _Run, other: _Run) -> None:
    corpora = first.report["corpus"], other.report["corpus"]
    if corpora[0] != corpora[1]:
        raise ValueError(
            f"{other.workdir} was tested on {corpora[1]} and {first.workdir} on {corpora[0]}: "
            "compare runs on the same corpus"
        )
    counts = len(first.folds), len(other.folds)
    advice = "compare runs with the same folds, from one folds.json"
    if counts[0] != counts[1]:
        raise ValueError(
            f"{other.workdir} has {counts[1]} folds and {first.workdir} {counts[0]}: {advice}"
        )
    for number, (one, two) in enumerate(zip(first.folds, other.folds, strict=True)):
        if lone := set(one["test"]) ^ set(two["test"]):
            raise ValueError(
                f"{other.workdir} and {first.workdir} have other test sides in fold {number}, "
                f"{min(lone)} is in one only: {advice}"
            )


def _content(runs: Sequence[_Run], chosen: Sequence[tuple[int, int]]) -> dict:
    names = _names(runs)
    pairs = []
    for first, second in progress.bar("comparing", len(chosen), "pairs", chosen):
        found = _compare(runs[first], runs[second])
        pairs.append({"first": names[first], "second": names[second], **found})
    for score in SCORES:
        adjusted = significance.holm([pair[score]["p"] for pair in pairs])
        for pair, p in zip(pairs, adjusted, strict=True):
            pair[score]["p_holm"] = p
    return {
        "corpus": runs[0].report["corpus"],
        "protocol": runs[0].report["protocol"],
        "utterances": runs[0].report["utterances"],
        "runs": [
            {
                "name": name,
                "system": run.report["system"],
                "workdir": str(run.workdir),
                "selected_on": run.report["selected_on"] if _chooses_epoch(run) else "",
                **{score: run.report[score] for score in SCORES},
            }
            for name, run in zip(names, runs, strict=True)
        ],
        "pairs": pairs,
    }


def _chooses_epoch(run: _Run) -> bool:
    return run.report.get("chosen", "epoch") == "epoch"


def _names(runs: Sequence[_Run]) -> list[str]:
    """The system, and the folder behind it where systems are the same."""
    systems = [run.report["system"] for run in runs]
    folders = [run.workdir.name for run in runs]
    if len(set(folders)) < len(folders):
        folders = [str(run.workdir) for run in runs]
    return [
        system if systems.count(system) == 1 else f"{system} ({folder})"
        for system, folder in zip(systems, folders, strict=True)
    ]


def _compare(first: _Run, second: _Run) -> dict:
    # What both learnt from; if the rest was divided otherwise, the smaller is the safer guess.
    train_sizes = [
        min(len(fold["train"]) + len(fold.get("dev", ())) for fold in both)
        for both in zip(first.folds, second.folds, strict=True)
    ]
    try:
        return significance.compare(first.predictions, second.predictions, train_sizes)
    except ValueError as error:
        raise ValueError(f"{first.workdir} and {second.workdir}: {error}") from error


def _text(result: dict) -> str:
    """The comparison as plain text, a table of the runs and one of the pairs."""
    runs = [["run", "epoch chosen on", *_TITLES.values()]]
    for one in result["runs"]:
        scores = [_range(one[score]["value"], one[score], ".3f") for score in _TITLES]
        runs.append([one["name"], one["selected_on"] or "-", *scores])
    pairs = [["pair", "score", "difference", "p", "p (Holm)", "p (folds)"]]
    for pair in result["pairs"]:
        name = f"{pair['first']} - {pair['second']}"
        for score, title in _TITLES.items():
            found = pair[score]
            p_values = [_p(found[key]) for key in ("p", "p_holm", "p_folds")]
            pairs.append([name, title, _range(found["difference"], found, "+.3f"), *p_values])
            name = ""
    first = result["pairs"][0]
    clusters = f"{first['clusters']} {first['unit']}"
    lines = [
        f"{result['corpus']}, {result['utterances']} utterances, protocol {result['protocol']}",
        "",
        *_table(runs),
        "",
        *_table(pairs),
        "",
        f"Differences: {first['method']}.",
        f"With {clusters} this p is never below {first['smallest_p']:.2g}, however large a "
        "difference.",
        f"p (Holm) allows for {len(result['pairs'])} pairs; p (folds) is the corrected resampled t "
        "test, which allows for common training data but not for voices.",
    ]
    if {one["selected_on"] for one in result["runs"]} > {"test"}:
        lines.append("Runs whose epoch the test side chose have an advantage over the others.")
    return "\n".join(lines)


def _range(value: float, limits: dict, form: str) -> str:
    if limits["low"] is None:
        return f"{value:{form}}"
    return f"{value:{form}} ({limits['low']:{form}} to {limits['high']:{form}})"


def _p(value: float | None) -> str:
    if value is None:
        return "-"
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of columns as wide as their widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
