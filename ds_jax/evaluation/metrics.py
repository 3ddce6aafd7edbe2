"""Scores that follow from confusion matrices alone, and the calibration of probabilities.

A confusion matrix is [..., k, k] with a row for each true class and a column for each prediction,
in the order of the run's k classes. All means are over the classes present among the true labels,
and a share of nothing is 0, as in scikit-learn with `labels` given and `zero_division=0`.
"""

from collections.abc import Sequence

import numpy as np


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
    columns = zip(
        classes, _precision(matrix), _recall(matrix), _f1(matrix), matrix.sum(1), strict=True
    )
    return {
        label: {
            "precision": float(precision),
            "recall": float(recall),
            "f1": float(f1),
            "support": int(support),
        }
        for label, precision, recall, f1, support in columns
    }


def calibration_error(labels: np.ndarray, probabilities: np.ndarray, bins: int = 10) -> float:
    """Computes the expected calibration error (Guo et al. 2017).

    Args:
        labels: int [n].
        probabilities: Float [n, k].
        bins: The number of equally wide ranges of the highest probability. The distance between its
            mean and the share of correct predictions is averaged over them, weighted by their size.

    Returns:
        The error in 0..1.
    """
    return sum(
        row["n"] * abs(row["confidence"] - row["accuracy"])
        for row in calibration(labels, probabilities, bins)
        if row["n"]
    ) / len(labels)


def calibration(
    labels: np.ndarray, probabilities: np.ndarray, bins: int = 10
) -> list[dict[str, float | int | None]]:
    """Computes the reliability diagram: how often a prediction of some probability is correct.

    Args:
        labels: int [n].
        probabilities: Float [n, k].
        bins: The same as for `calibration_error`.

    Returns:
        For each bin `low` and `high` of the highest probability, the number `n` of utterances in
        it, their mean highest probability `confidence`, and their `accuracy`; both None if n is 0.
    """
    confidence = probabilities.max(1)
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    counts = np.bincount(bin_of, minlength=bins)
    total = np.bincount(bin_of, confidence, bins)
    correct = np.bincount(bin_of, probabilities.argmax(1) == labels, bins)
    return [
        {
            "low": index / bins,
            "high": (index + 1) / bins,
            "n": int(count),
            "confidence": float(total[index] / count) if count else None,
            "accuracy": float(correct[index] / count) if count else None,
        }
        for index, count in enumerate(counts)
    ]


def _hits(matrix: np.ndarray) -> np.ndarray:
    return np.diagonal(matrix, axis1=-2, axis2=-1)


def _precision(matrix: np.ndarray) -> np.ndarray:
    return _ratio(_hits(matrix), matrix.sum(-2))


def _recall(matrix: np.ndarray) -> np.ndarray:
    return _ratio(_hits(matrix), matrix.sum(-1))


def _f1(matrix: np.ndarray) -> np.ndarray:
    return _ratio(2 * _hits(matrix), matrix.sum(-1) + matrix.sum(-2))


def _mean_over_present(values: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    present = matrix.sum(-1) > 0
    return _ratio((values * present).sum(-1), present.sum(-1))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros(np.shape(whole)), where=np.asarray(whole) > 0)
