"""Whether one system is better than another that was tested on the same utterances.

Utterances of one speaker are alike, so whole speakers are resampled and swapped, see `intervals`.
A t test over folds is given beside it, since it is what others report.
"""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

from ds_jax.evaluation import intervals
from ds_jax.evaluation.metrics import SCORES, confusion
from ds_jax.evaluation.predictions import Predictions, concatenate
from ds_jax.runtime import progress

# Random swaps where there are more ways than these; p is then found in steps of 1 / 10,000.
SWAPS = 9999
# Scores that differ by less are the same but for rounding.
_ROUNDING = 1e-10


def compare(
    first: Sequence[Predictions],
    second: Sequence[Predictions],
    train_sizes: Sequence[int],
    seed: int = 0,
) -> dict:
    """Compares two systems that were tested on the same folds.

    The p value is that of a two-sided permutation test: if the systems are equally good, whole
    speakers may change sides between them (Ernst 2004, Statistical Science 19(4)). Its statistic
    is the difference of the pooled scores; the interval is of that difference too, and drawn alike
    for both systems. With one or two speakers sentences or utterances take the speakers' place.

    Args:
        first: A system's predictions, one element a fold; rows in any order.
        second: The other system's, of the same folds in the same order.
        train_sizes: For each fold how many utterances were not tested but learnt from, those that
            chose the epoch included.
        seed: Of the random draws and swaps.

    Returns:
        What JSON can hold: for each of `metrics.SCORES` a dict of "difference" (first minus
        second), its 95 % interval "low" and "high" (None with a single cluster), "p", and "p_folds"
        from the t test over folds (None with one fold, or where all folds differ equally); the
        number of "clusters", their kind as "unit", the "smallest_p" that they could have shown,
        and the "method" in a phrase.

    Raises:
        ValueError: The systems were not tested on the same utterances, or there are none.
    """
    first, second = _aligned(first, second)
    if len(train_sizes) != len(first) or min(train_sizes) < 1:
        raise ValueError(
            f"train_sizes are {list(train_sizes)} and must be a positive number for each of the "
            f"{len(first)} folds"
        )
    pooled = concatenate(first), concatenate(second)
    names, unit, note = intervals.clusters(pooled[0])
    pairs = np.stack([intervals.confusions(names, system) for system in pooled], axis=1)
    count = len(pairs)
    swapped, every = _swapped(pairs, seed)
    ranges, range_method = _intervals(pairs, unit, seed)
    ratio = len(names) / sum(train_sizes)
    result = {}
    for name, score in SCORES.items():
        difference = _difference(score, pairs.sum(0))
        of_folds = [_difference(score, _pair_of(*fold)) for fold in zip(first, second, strict=True)]
        low, high = ranges[name]
        result[name] = {
            "difference": float(difference),
            "low": low,
            "high": high,
            "p": _p_of_swaps(difference, _difference(score, swapped), every),
            "p_folds": _p_of_folds(np.asarray(of_folds), ratio),
        }
    ways = f"in all {len(swapped)} ways" if every else f"at random {SWAPS} times"
    return result | {
        "clusters": count,
        "unit": unit,
        "smallest_p": 2 / 2**count if every else 1 / (SWAPS + 1),
        "method": f"{range_method}; p from swapping whole {unit} {ways}{note}",
    }


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjusts p values for there being several (Holm 1979), in their order.

    Compared with .05, they keep the chance of any false finding among all below .05. A None stays
    None and does not count.
    """
    known = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted, largest = list(p_values), 0.0
    for rank, (p, index) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        adjusted[index] = largest
    return adjusted


def _aligned(
    first: Sequence[Predictions], second: Sequence[Predictions]
) -> tuple[list[Predictions], list[Predictions]]:
    """Both systems' folds with rows ordered by utterance; raises unless these are the same."""
    if len(first) != len(second):
        raise ValueError(
            f"one system has {len(first)} folds and the other {len(second)}: "
            "only systems tested on the same folds can be compared"
        )
    if not sum(len(fold.labels) for fold in first):
        raise ValueError("there is no prediction to compare: the test sides are empty")
    first, second = (
        [fold.keep(np.argsort(fold.utterances, kind="stable")) for fold in system]
        for system in (first, second)
    )
    for fold, (one, other) in enumerate(zip(first, second, strict=True)):
        times, other_times = Counter(one.utterances), Counter(other.utterances)
        if lone := (times - other_times) | (other_times - times):
            raise ValueError(f"fold {fold}: only one of the systems was tested on {min(lone)!s}")
        for field in ("labels", "speakers", "sentences"):
            unlike = np.flatnonzero(getattr(one, field) != getattr(other, field))
            if unlike.size:
                name = one.utterances[unlike[0]]
                raise ValueError(f"fold {fold}: the systems disagree on the {field} of {name}")
    return first, second


def _difference(score: Callable, pairs: np.ndarray) -> np.ndarray:
    """Float [...]: the first's score minus the second's, from int or float [..., 2, 7, 7]."""
    values = score(pairs)
    return values[..., 0] - values[..., 1]


def _pair_of(*systems: Predictions) -> np.ndarray:
    """int64 [2, 7, 7]: the confusion matrices of both systems in a fold."""
    return np.stack([confusion(system.labels, system.predictions) for system in systems])


def _intervals(
    pairs: np.ndarray, unit: str, seed: int
) -> tuple[dict[str, tuple[float | None, float | None]], str]:
    """The 95 % interval of each score's difference, found as `intervals` finds a score's."""
    count = len(pairs)
    if count < 2:
        return dict.fromkeys(SCORES, (None, None)), "no interval from a single cluster"
    if unit == "speakers" and count < intervals.ENOUGH:
        found = {name: _jackknife(pairs, score) for name, score in SCORES.items()}
        return found, f"95 % t intervals from leaving out each of the {count} speakers (jackknife)"
    resampled = intervals.resample(pairs, seed)
    found = {
        name: intervals.percentiles(_difference(score, resampled)) for name, score in SCORES.items()
    }
    return found, f"95 % percentile bootstrap over {count} {unit} ({intervals.DRAWS} draws)"


def _jackknife(pairs: np.ndarray, score: Callable) -> tuple[float, float]:
    # From -1 to 1 and back, since a score's interval is kept between 0 and 1.
    low, high = intervals.jackknife(pairs, lambda sums: (1 + _difference(score, sums)) / 2)
    return 2 * low - 1, 2 * high - 1


def _swapped(pairs: np.ndarray, seed: int) -> tuple[np.ndarray, bool]:
    """Float [swaps, 2, 7, 7]: pooled matrices after clusters changed sides; if these are all.

    Raw output of the generator stays the same in every version of NumPy, see `intervals`.
    """
    count = len(pairs)
    gain = (pairs[:, 1] - pairs[:, 0]).reshape(count, -1).astype(np.float64)
    every = 2**count <= SWAPS
    if every:
        moved = (np.arange(2**count)[:, None] >> np.arange(count) & 1) @ gain
    else:
        source = np.random.PCG64(seed)
        swaps = progress.bar("swapping", SWAPS, "swaps", range(SWAPS))
        moved = np.stack([(source.random_raw(count) & 1) @ gain for _ in swaps])
    moved = moved.reshape(-1, *pairs.shape[2:])
    first, second = pairs.sum(0)
    return np.stack([first + moved, second - moved], axis=1), every


def _p_of_swaps(difference: float, swapped: np.ndarray, every: bool) -> float:
    """The share of swaps that give no smaller a difference, what was found being one of them."""
    as_large = int(np.sum(np.abs(swapped) >= abs(difference) - _ROUNDING))
    if every:
        return as_large / len(swapped)
    return (as_large + 1) / (len(swapped) + 1)  # Phipson and Smyth 2010


def _p_of_folds(differences: np.ndarray, ratio: float) -> float | None:
    """The corrected resampled t test, two-sided (Nadeau and Bengio 2003, Machine Learning 52).

    Args:
        differences: Float [folds].
        ratio: Utterances tested a fold, over those learnt from: folds share what they learn from,
            so their scores vary less than those of independent trials would.
    """
    count = len(differences)
    if count < 2:
        return None
    if np.ptp(differences) < _ROUNDING:  # nothing to measure a difference by
        return 1.0 if abs(differences[0]) < _ROUNDING else None
    error = np.sqrt((1 / count + ratio) * differences.var(ddof=1))
    return float(2 * stats.t.sf(abs(differences.mean()) / error, count - 1))
