"""Compares finished runs that were tested on the same folds, pair by pair."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

from ds_jax.data.fold_files import read_entries
from ds_jax.evaluation import predictions, significance, summary
from ds_jax.evaluation.metrics import SCORES
from ds_jax.evaluation.summary import RunSummary
from ds_jax.runtime import progress
from ds_jax.runtime.progress import many
from ds_jax.runtime.workdir import FOLDS, PREDICTIONS, REPORT, fold_directory, is_finished


@dataclasses.dataclass(frozen=True, eq=False)
class _Run:
    """A finished run, read from its files."""

    workdir: Path
    report: RunSummary
    folds: list[dict]  # lists of names "train", "dev" and "test"
    predictions: list[predictions.Predictions]  # of each fold


def compare_runs(workdirs: Sequence[Path]) -> dict:
    """Compares every pair of runs; p values are also adjusted for all pairs, score by score.

    Args:
        workdirs: The folders of two or more finished runs with the same test splits of a corpus.

    Returns:
        An object of JSON: "corpus"; "protocol"; "utterances", the number of those tested; "runs",
        for each its "name" (the system, and the folder where systems are the same), "system",
        "workdir", "selected_on", "adapt", "auxiliary", "interval" and scores as in report.json; and
        "pairs", for each the names "first" and "second" and the result of `significance.compare`,
        with a "p_holm" for each score.

    Raises:
        FileNotFoundError: A workdir holds no run, or the run is not finished.
        ValueError: There are fewer than two runs, one is given twice, or they were not tested on
            the same folds of the same corpus.
    """
    runs = _read_all(workdirs)
    names = _names(runs)
    pairs, count = [], len(runs) * (len(runs) - 1) // 2
    chosen = itertools.combinations(range(len(runs)), 2)
    for first, second in progress.bar("comparing", count, "pairs", chosen):
        result = _compare(runs[first], runs[second])
        pairs.append({"first": names[first], "second": names[second], **result})
    fields = ("selected_on", "adapt", "auxiliary", "interval", *SCORES)
    return {
        "corpus": runs[0].report.corpus,
        "protocol": runs[0].report.protocol,
        "utterances": runs[0].report.utterances,
        "runs": [
            {
                **{"name": name, "system": run.report.system, "workdir": str(run.workdir)},
                **{field: getattr(run.report, field) for field in fields},
            }
            for name, run in zip(names, runs, strict=True)
        ],
        "pairs": significance.adjust(pairs),
    }


def _read_all(workdirs: Sequence[Path]) -> list[_Run]:
    """Reads the runs; raises unless there are several, each given once, of one corpus."""
    workdirs = [Path(workdir) for workdir in workdirs]
    if len(workdirs) < 2:
        raise ValueError(
            f"{many(len(workdirs), 'run')} cannot be compared: name the folders of two or more, "
            "python launch.py --mode=compare RUN RUN"
        )
    folders = [workdir.resolve() for workdir in workdirs]
    if repeated := [folder for folder in folders if folders.count(folder) > 1]:
        raise ValueError(f"{repeated[0]} is given twice: name each run once")
    runs = [_read(workdir) for workdir in workdirs]
    for run in runs:
        if run.report.corpus != runs[0].report.corpus:
            raise ValueError(
                f"{run.workdir} was tested on {run.report.corpus} and {runs[0].workdir} on "
                f"{runs[0].report.corpus}: compare runs on the same corpus"
            )
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
        for both in zip(first.folds, second.folds, strict=False)  # `significance` counts them
    ]
    try:
        return significance.compare(first.predictions, second.predictions, train_sizes)
    except ValueError as error:
        raise ValueError(f"{first.workdir} and {second.workdir}: {error}") from error
