"""Tests whether one system is better than another that was tested on the same utterances.

Utterances of one speaker are alike, so whole speakers are resampled and swapped, see `intervals`.
The t test over folds is there because publications report it.
"""

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import scipy.special

from ds_jax.evaluation import intervals
from ds_jax.evaluation.metrics import SCORES
from ds_jax.evaluation.predictions import Predictions, concatenate
from ds_jax.runtime import progress

# The number of random swaps, where there are more ways to swap; p then has steps of 1 / 10,000.
SWAPS = 9999
# Scores that differ by less differ by rounding alone.
_ROUNDING = 1e-10


def compare(
    first: Sequence[Predictions], second: Sequence[Predictions], train_sizes: Sequence[int]
) -> dict:
    """Compares two systems that were tested on the same folds.

    The p value is that of a two-sided permutation test: if the systems are equally good, the
    predictions for a whole speaker can be swapped between them (Ernst 2004, Statistical Science
    19(4)). Its statistic is the difference of the pooled scores. The interval is that of the
    difference too, with the same draws for both systems. With one or two speakers, sentences or
    utterances are swapped in place of speakers.

    Args:
        first: The predictions of a system for each fold; their rows may have any order.
        second: The predictions of the other system for the same folds in the same order.
        train_sizes: The number of utterances in train and dev of each fold.

    Returns:
        An object of JSON: for each of `metrics.SCORES` a dict of "difference" (first minus
        second), its 95 % interval "low" and "high" (None with a single cluster), "p", and "p_folds"
        from the t test over folds (None with one fold, or where all folds differ equally); the
        number of "clusters", their kind as "unit", the "smallest_p" that these clusters allow, and
        the "method" as a phrase.

    Raises:
        ValueError: The systems were not tested on the same utterances, or there are none.
    """
    first, second = _aligned(first, second)
    _, unit, note = intervals.clusters(concatenate(first))
    pairs = pairs_of(first, second)
    folds = zip(first, second, strict=True)
    of_folds = np.asarray([[one.confusion, other.confusion] for one, other in folds])
    count = len(pairs)
    swapped, every = _swapped(pairs)
    ranges, range_method = intervals.of_clusters(pairs, unit, _DIFFERENCES, lowest=-1.0)
    ratio = sum(len(fold.labels) for fold in first) / sum(train_sizes)
    result = {}
    for name, difference in _DIFFERENCES.items():
        measured = difference(pairs.sum(0))
        low, high = ranges[name]
        result[name] = {
            "difference": float(measured),
            "low": low,
            "high": high,
            "p": _p_of_swaps(measured, difference(swapped), every),
            "p_folds": _p_of_folds(difference(of_folds), ratio),
        }
    ways = f"in all {len(swapped)} ways" if every else f"at random {SWAPS} times"
    return result | {
        "clusters": count,
        "unit": unit,
        "smallest_p": 2 / 2**count if every else 1 / (SWAPS + 1),
        "method": f"{range_method}; p from swapping whole {unit} {ways}{note}",
    }


def pairs_of(first: Sequence[Predictions], second: Sequence[Predictions]) -> np.ndarray:
    """Counts both systems' confusion matrices for each speaker, int64 [clusters, 2, k, k].

    The systems are those that `compare` takes, and the clusters those of `intervals.clusters`.

    Raises:
        ValueError: As `compare`.
    """
    pooled = [concatenate(system) for system in _aligned(first, second)]
    names, _, _ = intervals.clusters(pooled[0])
    return np.stack([intervals.confusions(names, system) for system in pooled], axis=1)


def compare_sets(sets: Sequence[np.ndarray]) -> dict:
    """Compares two systems on several corpora, each of which counts equally.

    The p value is that of `compare`, of the mean difference over the corpora; speakers are swapped
    within each at random. The interval is that of `intervals.of_means`. The sets are what
    `pairs_of` returns for each corpus.

    Returns:
        An object of JSON as that of `compare`, without "p_folds"; "low" and "high" are None if a
        corpus has a single cluster.
    """
    source, result = np.random.PCG64(intervals.SEED), {}
    swapped = [_swapped(pairs)[0] for pairs in sets]
    chosen = [(source.random_raw(SWAPS) % len(every)).astype(np.int64) for every in swapped]
    ranges, range_method = intervals.of_means(sets, _DIFFERENCES, lowest=-1.0)
    for name, difference in _DIFFERENCES.items():
        measured = np.mean([difference(pairs.sum(0)) for pairs in sets])
        draws = [difference(every)[rows] for every, rows in zip(swapped, chosen, strict=True)]
        p = _p_of_swaps(measured, np.mean(draws, axis=0), every=False)
        low, high = ranges[name]
        result[name] = {"difference": float(measured), "low": low, "high": high, "p": p}
    method = f"p from swapping whole clusters in each of {len(sets)} corpora at random"
    return result | {
        "clusters": sum(map(len, sets)),
        "method": f"{range_method}; {method} {SWAPS} times",
    }


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusts p values for multiple comparisons (Holm 1979), in their order.

    If those below .05 are called significant, the chance of any false one among all is below .05.
    """
    adjusted, largest = list(p_values), 0.0
    for rank, (p, index) in enumerate(sorted((p, index) for index, p in enumerate(p_values))):
        largest = max(largest, min(1.0, p * (len(p_values) - rank)))
        adjusted[index] = largest
    return adjusted


def adjust(pairs: Sequence[Mapping]) -> list[dict]:
    """Sets "p_holm" in the scores of results of `compare`; one without scores does not count."""
    adjusted = [dict(pair) for pair in pairs]
    for score in SCORES:
        compared = [pair for pair in adjusted if score in pair]
        p_values = holm([pair[score]["p"] for pair in compared])
        for pair, p in zip(compared, p_values, strict=True):
            pair[score] = pair[score] | {"p_holm": p}
    return adjusted


def _aligned(
    first: Sequence[Predictions], second: Sequence[Predictions]
) -> tuple[list[Predictions], list[Predictions]]:
    """Orders the rows of both systems by utterance; raises unless these are the same."""
    if len(first) != len(second):
        raise ValueError(
            f"one system has {progress.many(len(first), 'fold')} and the other {len(second)}: "
            "compare runs with the same folds, from one folds.json"
        )
    if not sum(len(fold.labels) for fold in first):
        raise ValueError("there is no prediction to compare: the test splits are empty")
    first, second = (
        [fold.keep(np.argsort(fold.utterances, kind="stable")) for fold in system]
        for system in (first, second)
    )
    for fold, (left, right) in enumerate(zip(first, second, strict=True)):
        if left.classes != right.classes:
            both = " and ".join(", ".join(system.classes) for system in (left, right))
            raise ValueError(f"the systems have different classes: {both}")
        counts = Counter(left.utterances), Counter(right.utterances)
        if single := (counts[0] - counts[1]) | (counts[1] - counts[0]):
            raise ValueError(
                f"fold {fold}: only one of the systems was tested on {min(single)!s}: compare runs "
                "with the same folds, from one folds.json"
            )
        for field in ("labels", "speakers", "sentences"):
            unlike = np.flatnonzero(getattr(left, field) != getattr(right, field))
            if unlike.size:
                name = left.utterances[unlike[0]]
                raise ValueError(f"fold {fold}: the systems disagree on the {field} of {name}")
    return first, second


def _difference(score: Callable, pairs: np.ndarray) -> np.ndarray:
    """Subtracts the second's score from the first's, float [...], from [..., 2, k, k]."""
    values = score(pairs)
    return values[..., 0] - values[..., 1]


_DIFFERENCES = {name: functools.partial(_difference, score) for name, score in SCORES.items()}


def _swapped(pairs: np.ndarray) -> tuple[np.ndarray, bool]:
    """Pools the matrices after each swap, float [swaps, 2, k, k]; tells whether these are all.

    The raw output of the generator stays the same in every version of NumPy, see `intervals`.
    """
    count = len(pairs)
    gain = (pairs[:, 1] - pairs[:, 0]).reshape(count, -1).astype(np.float64)
    every = 2**count <= SWAPS
    if every:
        moved = (np.arange(2**count)[:, None] >> np.arange(count) & 1) @ gain
    else:
        source = np.random.PCG64(intervals.SEED)
        swaps = progress.bar("swapping", SWAPS, "swaps", range(SWAPS))
        moved = np.stack([(source.random_raw(count) & 1) @ gain for _ in swaps])
    moved = moved.reshape(-1, *pairs.shape[2:])
    first, second = pairs.sum(0)
    return np.stack([first + moved, second - moved], axis=1), every


def _p_of_swaps(difference: float, swapped: np.ndarray, every: bool) -> float:
    """Returns the share of swaps with no smaller a difference; the measured one is among them."""
    as_large = int(np.sum(np.abs(swapped) >= abs(difference) - _ROUNDING))
    if every:
        return as_large / len(swapped)
    return (as_large + 1) / (len(swapped) + 1)  # Phipson and Smyth 2010


def _p_of_folds(differences: np.ndarray, ratio: float) -> float | None:
    """Computes the corrected resampled t test, two-sided (Nadeau and Bengio 2003, ML 52).

    Args:
        differences: Float [folds].
        ratio: The size of a test split over that of train and dev. Folds share training data, so
            their scores vary less than those of independent trials.
    """
    count = len(differences)
    if count < 2:
        return None
    if np.ptp(differences) < _ROUNDING:  # without variance there is no t
        return 1.0 if abs(differences[0]) < _ROUNDING else None
    error = np.sqrt((1 / count + ratio) * differences.var(ddof=1))
    return float(2 * scipy.special.stdtr(count - 1, -abs(differences.mean()) / error))
