"""The names of the files that a run leaves in its folder, the workdir.

config.json folds.json                                       the experiment and its folds
fold_00/ checkpoints/ metrics.jsonl predictions.csv          a fold; with gates also gates.npz,
                                                             and its generated.npz if there is any
report.json report.html                                      all folds together
evaluations/<corpus>/ predictions.csv report.json report.html
members/<name>/                                              the run of each member of an ensemble
"""

from collections.abc import Mapping
from pathlib import Path

CONFIG, FOLDS = "config.json", "folds.json"
CHECKPOINTS, TENSORBOARD = "checkpoints", "tensorboard"
METRICS, PREDICTIONS, GATES = "metrics.jsonl", "predictions.csv", "gates.npz"
GENERATED = "generated.npz"
REPORT, PAGE = "report.json", "report.html"
EVALUATIONS, MEMBERS = "evaluations", "members"


def fold_directory(workdir: Path, number: int) -> Path:
    """Returns the folder of a fold."""
    return workdir / f"fold_{number:02}"


def fold_number(directory: Path) -> int:
    """Returns the number of the fold whose folder this is."""
    return int(directory.name.removeprefix("fold_"))


def is_finished(directory: Path) -> bool:
    """Returns whether a fold is trained and tested: its predictions are written last."""
    return (directory / PREDICTIONS).is_file()


def finished_folds(workdir: Path) -> list[Path]:
    """Returns the folders of the finished folds, in their order."""
    return [path.parent for path in sorted(workdir.glob(f"fold_*/{PREDICTIONS}"))]


def evaluation_directory(workdir: Path, corpus: str) -> Path:
    """Returns the folder of an evaluation on another corpus."""
    return workdir / EVALUATIONS / corpus


def member_directories(workdir: Path, config: Mapping) -> dict[str, Path]:
    """Returns the folders of the runs that an ensemble is the mean of, by the members' names."""
    return {name: workdir / MEMBERS / name for name in config.get(MEMBERS, ())}
