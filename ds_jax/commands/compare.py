"""Compares finished runs that were tested on the same folds: `--mode=compare`."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

from ds_jax.data.folds import read_entries
from ds_jax.evaluation import predictions, significance, summary
from ds_jax.evaluation.metrics import SCORES
from ds_jax.evaluation.summary import RunSummary
from ds_jax.report import pages
from ds_jax.runtime import progress
from ds_jax.runtime.files import write_json
from ds_jax.runtime.workdir import FOLDS, PREDICTIONS, REPORT, fold_directory, is_finished

_TITLES = {"accuracy": "accuracy", "uar": "UAR", "macro_f1": "macro F1"}


@dataclasses.dataclass(frozen=True, eq=False)
class _Run:
    """A finished run, read from its files."""

    workdir: Path
    report: RunSummary
    folds: list[dict]  # lists of names "train", "dev" and "test"
    predictions: list[predictions.Predictions]  # of each fold


def run(workdirs: Sequence[Path], output: Path | None = None) -> dict:
    """Compares every pair of runs as `compare_runs` does, and prints a table.

    Args:
        workdirs: The folders of the runs.
        output: The folder of comparison.json; nothing is written if None.

    Returns:
        The content of comparison.json.
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
        workdirs: The folders of two or more finished runs with the same test splits of a corpus.

    Returns:
        An object of JSON: "corpus"; "protocol"; "utterances", the number of those tested; "runs",
        for each its "name" (the system, and the folder where systems are the same), "system",
        "workdir", "selected_on" (empty without epochs) and scores as in report.json; and "pairs",
        for each the names "first" and "second" and the result of `significance.compare`, with a
        "p_holm" for each score.

    Raises:
        FileNotFoundError: A workdir holds no run, or the run is not finished.
        ValueError: There are fewer than two runs, one is given twice, or they were not tested on
            the same folds of the same corpus.
    """
    runs = _read_all(workdirs)
    return _compare_all(runs, list(itertools.combinations(range(len(runs)), 2)))


def against(reference: Path, others: Sequence[Path]) -> dict:
    """Compares some runs with a reference as `compare_runs` does; p is adjusted for these pairs.

    Args:
        reference: The folder of the reference. It is the "second" of every pair, so that a positive
            difference means that the other run is better.
        others: The folders of the other runs.
    """
    runs = _read_all([reference, *others])
    return _compare_all(runs, [(number, 0) for number in range(1, len(runs))])


def _read_all(workdirs: Sequence[Path]) -> list[_Run]:
    """Reads the runs; raises unless they were tested on the same folds."""
    workdirs = [Path(workdir) for workdir in workdirs]
    if len(workdirs) < 2:
        raise ValueError(
            f"{len(workdirs)} run cannot be compared: name the folders of two or more, "
            "python launch.py --mode=compare RUN RUN"
        )
    folders = [workdir.resolve() for workdir in workdirs]
    if repeated := [folder for folder in folders if folders.count(folder) > 1]:
        raise ValueError(f"{repeated[0]} is given twice: name each run once")
    runs = [_read(workdir) for workdir in workdirs]
    for other in runs[1:]:
        _check_comparable(runs[0], other)
    return runs


def _read(workdir: Path) -> _Run:
    protocol, entries = read_entries(_existing(workdir / FOLDS))
    if protocol == "whole_corpus":
        raise ValueError(f"{workdir}: a run of protocol 'whole_corpus' tests nothing to compare")
    directories = [fold_directory(workdir, number) for number in range(len(entries))]
    if missing := [str(k) for k, folder in enumerate(directories) if not is_finished(folder)]:
        raise FileNotFoundError(
            f"{workdir} is not finished, folds still to run: {', '.join(missing)}"
        )
    report = summary.read(_existing(workdir / REPORT))
    tested = [predictions.read(directory / PREDICTIONS) for directory in directories]
    for directory, entry, rows in zip(directories, entries, tested, strict=True):
        if set(rows.utterances) != set(entry["test"]):
            raise ValueError(
                f"{directory / PREDICTIONS} and the test split in folds.json differ: run the fold "
                "again"
            )
    return _Run(workdir, report, entries, tested)


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} holds no finished run: {path.name} is missing")
    return path


def _check_comparable(first: _Run, other: _Run) -> None:
    if other.report.corpus != first.report.corpus:
        raise ValueError(
            f"{other.workdir} was tested on {other.report.corpus} and {first.workdir} on "
            f"{first.report.corpus}: compare runs on the same corpus"
        )
    advice = "compare runs with the same folds, from one folds.json"
    if len(other.folds) != len(first.folds):
        raise ValueError(
            f"{other.workdir} has {len(other.folds)} folds and {first.workdir} "
            f"{len(first.folds)}: {advice}"
        )
    for number, entries in enumerate(zip(first.folds, other.folds, strict=True)):
        tests = [set(entry["test"]) for entry in entries]
        if single := tests[0] ^ tests[1]:
            raise ValueError(
                f"{other.workdir} and {first.workdir} have other test splits in fold {number}, "
                f"{min(single)} is in only one of them: {advice}"
            )


def _compare_all(runs: Sequence[_Run], chosen: Sequence[tuple[int, int]]) -> dict:
    """Compares the chosen pairs of runs, given by their positions."""
    names = _names(runs)
    pairs = []
    for first, second in progress.bar("comparing", len(chosen), "pairs", chosen):
        result = _compare(runs[first], runs[second])
        pairs.append({"first": names[first], "second": names[second], **result})
    for score in SCORES:
        adjusted = significance.holm([pair[score]["p"] for pair in pairs])
        for pair, p in zip(pairs, adjusted, strict=True):
            pair[score]["p_holm"] = p
    return {
        "corpus": runs[0].report.corpus,
        "protocol": runs[0].report.protocol,
        "utterances": runs[0].report.utterances,
        "runs": [
            {
                "name": name,
                "system": run.report.system,
                "workdir": str(run.workdir),
                "selected_on": run.report.selected_on if run.report.chosen == "epoch" else "",
                **{score: getattr(run.report, score) for score in SCORES},
            }
            for name, run in zip(names, runs, strict=True)
        ],
        "pairs": pairs,
    }


def _names(runs: Sequence[_Run]) -> list[str]:
    """Returns the system of each run, with the folder behind it where systems are the same."""
    systems = [run.report.system for run in runs]
    folders = [run.workdir.name for run in runs]
    if len(set(folders)) < len(folders):
        folders = [str(run.workdir) for run in runs]
    return [
        system if systems.count(system) == 1 else f"{system} ({folder})"
        for system, folder in zip(systems, folders, strict=True)
    ]


def _compare(first: _Run, second: _Run) -> dict:
    # The systems may have trained on different numbers of utterances: the smaller is the safer one.
    train_sizes = [
        min(len(fold["train"]) + len(fold.get("dev", ())) for fold in both)
        for both in zip(first.folds, second.folds, strict=True)
    ]
    try:
        return significance.compare(first.predictions, second.predictions, train_sizes)
    except ValueError as error:
        raise ValueError(f"{first.workdir} and {second.workdir}: {error}") from error


def _text(result: dict) -> str:
    """Formats a comparison as plain text, with a table of the runs and one of the pairs."""
    runs = [["run", "epoch chosen on", *_TITLES.values()]]
    for run in result["runs"]:
        scores = [pages.with_interval(run[score]["value"], run[score]) for score in _TITLES]
        runs.append([run["name"], run["selected_on"] or "-", *scores])
    pairs = [["pair", "score", "difference", "p", "p (Holm)", "p (folds)"]]
    for pair in result["pairs"]:
        name = f"{pair['first']} - {pair['second']}"
        for score, title in _TITLES.items():
            values = pair[score]
            difference = pages.with_interval(values["difference"], values, "+.3f")
            p = [pages.p_value(values[key], missing="-") for key in ("p", "p_holm", "p_folds")]
            pairs.append([name, title, difference, *p])
            name = ""
    first = result["pairs"][0]
    lines = [
        f"{result['corpus']}, {result['utterances']} utterances, protocol {result['protocol']}",
        "",
        *pages.table(runs, left=2),
        "",
        *pages.table(pairs, left=2),
        "",
        f"Differences: {first['method']}.",
        f"With {first['clusters']} {first['unit']} this p is never below "
        f"{first['smallest_p']:.2g}, however large a difference is.",
        f"p (Holm) is adjusted for {len(result['pairs'])} pairs; p (folds) is that of the "
        "corrected resampled t test, which allows for common training data but not for speakers.",
    ]
    if {run["selected_on"] for run in result["runs"]} > {"test"}:
        lines.append("Runs whose epoch the test fold chose have an advantage over the others.")
    return "\n".join(lines)
