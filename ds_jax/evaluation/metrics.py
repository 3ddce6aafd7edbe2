"""Scores that follow from confusion matrices alone, and the calibration of probabilities.

A confusion matrix is [..., k, k] with a row for each true class and a column for each prediction,
in the order of the run's k classes. All means are over the classes present among the true labels,
and a share of nothing is 0, as in scikit-learn with `labels` given and `zero_division=0`.
"""

from collections.abc import Mapping, Sequence

import numpy as np

BINS = 10  # of the reliability diagram


def confusion(labels: np.ndarray, predictions: np.ndarray, count: int) -> np.ndarray:
    """Counts how often each of `count` classes (row) was predicted as each (column), int64."""
    matrix = np.zeros((count, count), np.int64)
    np.add.at(matrix, (labels, predictions), 1)
    return matrix


def accuracy(matrix: np.ndarray) -> np.ndarray:
    """Returns the share of utterances that were recognised, float [...]."""
    return _ratio(_hits(matrix).sum(-1), matrix.sum((-2, -1)))


def uar(matrix: np.ndarray) -> np.ndarray:
    """Returns the unweighted average recall, the mean over the classes present, float [...]."""
    return _mean_over_present(_recall(matrix), matrix)


def macro_f1(matrix: np.ndarray) -> np.ndarray:
    """Returns the mean F1 of the classes present, float [...]."""
    return _mean_over_present(_f1(matrix), matrix)


SCORES = {"accuracy": accuracy, "uar": uar, "macro_f1": macro_f1}


def per_class(matrix: np.ndarray, classes: Sequence[str]) -> dict[str, dict[str, float | int]]:
    """Returns precision, recall, F1 and support of each class, from one [k, k] matrix."""
    precision, support = _ratio(_hits(matrix), matrix.sum(-2)), matrix.sum(-1)
    rows = np.stack([precision, _recall(matrix), _f1(matrix)], axis=-1).tolist()
    return {
        label: {"precision": p, "recall": r, "f1": f1, "support": count}
        for label, (p, r, f1), count in zip(classes, rows, support.tolist(), strict=True)
    }


def calibration_error(bins: Sequence[Mapping[str, float | int | None]]) -> float:
    """Computes the expected calibration error in 0..1 (Guo et al. 2017) from `calibration`.

    The distance between the mean probability and the share of correct predictions is averaged over
    the bins, weighted by their size.
    """
    filled = [row for row in bins if row["n"]]
    distances = (row["n"] * abs(row["confidence"] - row["accuracy"]) for row in filled)
    return sum(distances) / sum(row["n"] for row in filled)


def calibration(
    labels: np.ndarray, probabilities: np.ndarray
) -> list[dict[str, float | int | None]]:
    """Computes the reliability diagram: how often a prediction of some probability is correct.

    Args:
        labels: int [n].
        probabilities: Float [n, k].

    Returns:
        For each of `BINS` equally wide bins `low` and `high` of the highest probability, the number
        `n` of utterances in it, their mean highest probability `confidence`, and their `accuracy`;
        both None if n is 0.
    """
    confidence = probabilities.max(1)
    bin_of = np.minimum((confidence * BINS).astype(int), BINS - 1)
    counts = np.bincount(bin_of, minlength=BINS)
    total = np.bincount(bin_of, confidence, BINS)
    correct = np.bincount(bin_of, probabilities.argmax(1) == labels, BINS)
    return [
        {
            "low": index / BINS,
            "high": (index + 1) / BINS,
            "n": int(count),
            "confidence": float(total[index] / count) if count else None,
            "accuracy": float(correct[index] / count) if count else None,
        }
        for index, count in enumerate(counts)
    ]


def _hits(matrix: np.ndarray) -> np.ndarray:
    return np.diagonal(matrix, axis1=-2, axis2=-1)


def _recall(matrix: np.ndarray) -> np.ndarray:
    return _ratio(_hits(matrix), matrix.sum(-1))


def _f1(matrix: np.ndarray) -> np.ndarray:
    return _ratio(2 * _hits(matrix), matrix.sum(-1) + matrix.sum(-2))


def _mean_over_present(values: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    present = matrix.sum(-1) > 0
    return _ratio((values * present).sum(-1), present.sum(-1))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros(np.shape(whole)), where=np.asarray(whole) > 0)
