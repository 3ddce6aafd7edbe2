"""From predictions to the content of report.json."""

from collections.abc import Mapping, Sequence

import numpy as np

from ds_jax.data.corpus import LABELS
from ds_jax.data.folds import PROTOCOLS
from ds_jax.evaluation import metrics
from ds_jax.evaluation.intervals import intervals
from ds_jax.evaluation.predictions import Predictions


def evaluate(
    predictions: Predictions,
    *,
    corpus: str,
    system: str,
    protocol: str,
    selected_on: str,
    shared: Mapping[str, int | None],
    folds: Sequence[Mapping],
) -> dict:
    """Evaluates pooled predictions.

    Args:
        predictions: Of all folds together.
        corpus: The corpus that was tested on.
        system: What gave the predictions, for example "DS-AM".
        protocol: One of `folds.PROTOCOLS`.
        selected_on: "dev" or "test": the side that chose the epoch.
        shared: How many "speakers", "sentences" and "recordings" of the test sides were trained
            on, see `folds.shared`; None where they were not counted.
        folds: A record for each fold, see `fold_record`.

    Returns:
        A dict of what JSON can hold, the content of report.json.

    Raises:
        ValueError: There is no prediction to evaluate, or an argument is not one of its values.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol is {protocol!r} and must be one of {', '.join(PROTOCOLS)}")
    if selected_on not in ("dev", "test"):
        raise ValueError(f"selected_on is {selected_on!r} and must be 'dev' or 'test'")
    matrix = _confusion(predictions)
    ranges, method = intervals(predictions)
    return {
        "corpus": corpus,
        "system": system,
        "protocol": protocol,
        "protocol_text": PROTOCOLS[protocol],
        "selected_on": selected_on,
        "n": len(predictions.labels),
        "utterances": len(np.unique(predictions.utterances)),
        "labels": list(LABELS),
        "classes_present": [LABELS[index] for index in np.unique(predictions.labels)],
        **{name: _score(matrix, name, ranges[name]) for name in metrics.SCORES},
        "interval": method,
        "calibration_error": metrics.calibration_error(
            predictions.labels, predictions.probabilities
        ),
        "calibration": metrics.calibration(predictions.labels, predictions.probabilities),
        "confusion": matrix.tolist(),
        "per_class": metrics.per_class(matrix),
        "speakers": _accuracy_of_speakers(predictions),
        "speaker_n": {
            str(speaker): int(count)
            for speaker, count in zip(
                *np.unique(predictions.speakers, return_counts=True), strict=True
            )
        },
        "shared": dict(shared),
        "folds": [dict(fold) for fold in folds],
    }


def fold_record(fold: int, predictions: Predictions) -> dict:
    """A fold's line in the report: its number, how many were tested, the three scores."""
    matrix = _confusion(predictions)
    scores = {name: float(score(matrix)) for name, score in metrics.SCORES.items()}
    return {"fold": fold, "n": len(predictions.labels), **scores}


def _confusion(predictions: Predictions) -> np.ndarray:
    if not len(predictions.labels):
        raise ValueError("there is no prediction to evaluate: the test side is empty")
    return metrics.confusion(predictions.labels, predictions.predictions)


def _score(
    matrix: np.ndarray, name: str, range_: tuple[float, float] | None
) -> dict[str, float | None]:
    low, high = range_ or (None, None)
    return {"value": float(metrics.SCORES[name](matrix)), "low": low, "high": high}


def _accuracy_of_speakers(predictions: Predictions) -> dict[str, float]:
    right = predictions.labels == predictions.predictions
    return {
        str(speaker): float(right[predictions.speakers == speaker].mean())
        for speaker in np.unique(predictions.speakers)
    }
