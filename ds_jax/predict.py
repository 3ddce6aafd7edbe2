"""The emotions of one's own recordings."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ds_jax import representation, systems
from ds_jax.corpus import LABELS
from ds_jax.results import PREDICTIONS


def run(checkpoint: Path, recordings: Sequence[Path]) -> None:
    """Prints a line of seven probabilities for each recording, and a reason for each unusable one.

    Args:
        checkpoint: A run's folder, of which all finished folds' models are averaged; or a fold's.
        recordings: Files of any rate and number of channels that libsndfile decodes.

    Raises:
        FileNotFoundError: There is no checkpoint.
        ValueError: No recording was given, or some cannot be used; the others are printed first.
    """
    if not recordings:
        raise ValueError("give recordings: python launch.py --mode=predict --checkpoint=DIR a.wav")
    checkpoints = find_checkpoints(checkpoint)
    settings = representation.settings(systems.load_config(checkpoints[0]))
    usable, unusable = {}, []
    for path in recordings:
        try:
            _, usable[path] = representation.read(path, settings)
        except (ValueError, FileNotFoundError) as error:
            text = str(error)
            unusable.append(text if str(path) in text else f"{path}: {text}")
    if usable:
        distributions = _probabilities(checkpoints, usable)
        width = max(len(str(path)) for path in usable)
        print(" ".join([" " * width, "prediction", *(f"{label:>8}" for label in LABELS)]))
        for path, distribution in zip(usable, distributions, strict=True):
            shares = " ".join(f"{share:8.3f}" for share in distribution)
            print(f"{path!s:{width}} {LABELS[distribution.argmax()]:10} {shares}")
    if unusable:
        raise ValueError("; ".join(unusable))


def _probabilities(checkpoints: list[Path], usable: dict[Path, list[np.ndarray]]) -> np.ndarray:
    """float64 [recordings, 7]: the mean over models and windows."""
    inputs = representation.stack([window for windows in usable.values() for window in windows])
    owners = np.repeat(np.arange(len(usable)), [len(windows) for windows in usable.values()])
    total = np.zeros((len(usable), len(LABELS)))
    for _, judgement in systems.judge(dict.fromkeys(checkpoints, np.arange(len(inputs))), inputs):
        np.add.at(total, owners, judgement.probabilities)
    return total / total.sum(axis=1, keepdims=True)


def find_checkpoints(directory: Path) -> list[Path]:
    """Finds the `checkpoints` folders of a run's finished folds, of a fold, or the one given.

    Raises:
        FileNotFoundError: There is none.
    """
    if directory.name == "checkpoints":
        return [directory]
    finished = sorted(directory.glob(f"fold_*/{PREDICTIONS}"))
    found = [path.parent / "checkpoints" for path in finished]
    if not found and not (directory / "checkpoints").is_dir():
        raise FileNotFoundError(
            f"no finished fold in {directory}: give --checkpoint the folder of a run or of a fold"
        )
    return found or [directory / "checkpoints"]
