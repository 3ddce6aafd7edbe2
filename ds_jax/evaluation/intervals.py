"""95 % intervals of the scores, which allow for the similarity of one speaker's utterances.

Utterances are not independent: all utterances of some speakers are hard to recognise. With 50
speakers of 41 utterances and a usual spread between speakers, an interval that treats utterances as
independent covers the truth in 6 or 7 of 10 cases, and one that resamples speakers in 93 of 100.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import scipy.special

from ds_jax.evaluation.metrics import SCORES
from ds_jax.evaluation.predictions import Predictions
from ds_jax.runtime import progress

Ranges = dict[str, tuple[float | None, float | None]]  # (low, high) of each score

DRAWS, SEED = 5000, 0  # of the resampling
# Up to so many clusters have a t interval. A percentile bootstrap is narrower, by sqrt(1 - 1/n) and
# by 1.96 over the quantile of Student's t: it holds a true mean in .87 of cases with 6 clusters, in
# .90 with 10 and in .93 with 20, from where on less than .02 is missing.
MOST_T_CLUSTERS = 20
# Fewer sentences are too few to stand for all sentences.
_MIN_SENTENCES = 10


def intervals(predictions: Predictions) -> tuple[Ranges, str]:
    """Computes the 95 % interval of each score of pooled predictions.

    The rule is that of `of_clusters`, with speakers as the clusters. One or two speakers are no
    sample of all speakers, and unknown ones cannot be resampled: then the clusters are sentences
    or, if there are fewer than ten or some are unknown, utterances. All rows of a cluster stay
    together, in several splits too.

    Returns:
        For "accuracy", "uar" and "macro_f1" (low, high), both None with a single cluster; and the
        method as a phrase.
    """
    names, kind, note = clusters(predictions)
    ranges, method = of_clusters(confusions(names, predictions), kind, SCORES)
    if any(low is not None and low == high for low, high in ranges.values()):
        note += f"; a width of zero says that all {kind} scored alike, not that this is certain"
    return ranges, method + note


def of_clusters(
    matrices: np.ndarray,
    kind: str,
    scores: Mapping[str, Callable[[np.ndarray], np.ndarray]],
    lowest: float = 0.0,
) -> tuple[Ranges, str]:
    """Computes the 95 % intervals of some scores of the sum of all clusters.

    Up to `MOST_T_CLUSTERS` clusters are left out in turn (jackknife), for a t interval. More are
    resampled (percentile bootstrap).

    Args:
        matrices: int64 [clusters, ..., k, k], the confusion matrices of each cluster.
        kind: What the clusters are, see `clusters`.
        scores: Functions of sums of such matrices, [n, ..., k, k] to [n].
        lowest: The lowest value of a score; the highest is 1.

    Returns:
        For each score (low, high), both None with a single cluster; and the method as a phrase.
    """
    count = len(matrices)
    if count < 2:
        ranges = dict.fromkeys(scores, (None, None))
        return ranges, "no interval can be given from a single utterance"
    if count <= MOST_T_CLUSTERS:
        ranges = {
            name: _t_interval(*_jackknife(matrices, score), count - 1, lowest)
            for name, score in scores.items()
        }
        return ranges, f"95 % t interval over {count} {kind} (jackknife)"
    resampled = _resample(matrices)
    limits = [0.025, 0.975]
    ranges = {
        name: tuple(np.quantile(score(resampled), limits).tolist())
        for name, score in scores.items()
    }
    return ranges, f"95 % percentile bootstrap over {count} {kind} ({DRAWS} draws)"


def of_means(
    sets: Sequence[np.ndarray],
    scores: Mapping[str, Callable[[np.ndarray], np.ndarray]],
    lowest: float = 0.0,
) -> tuple[Ranges, str]:
    """Computes the 95 % t intervals of the means of some scores over corpora.

    The corpora count equally and are independent, so the error of a mean is the root of the sum of
    their squared jackknife errors, over their number. Its degrees of freedom are those of
    Satterthwaite (1946, Biometrics Bulletin 2(6)), as corpora have unlike errors and numbers of
    clusters. The rule is the same for any number of clusters.

    Args:
        sets: For each corpus the confusion matrices of its clusters, int64 [clusters, ..., k, k].
        scores, lowest: As in `of_clusters`.

    Returns:
        For each score (low, high), both None if a corpus has a single cluster; and the method as a
        phrase.
    """
    freedoms = np.asarray([len(matrices) - 1 for matrices in sets])
    if not freedoms.all():
        ranges = dict.fromkeys(scores, (None, None))
        return ranges, "no interval can be given where a corpus has a single cluster"
    ranges = {}
    for name, score in scores.items():
        values, errors = np.transpose([_jackknife(matrices, score) for matrices in sets])
        squares = np.square(errors)
        whole = squares.sum()
        # Where no cluster differs from another, any number of degrees gives a width of zero.
        freedom = whole**2 / (np.square(squares) / freedoms).sum() if whole else 1.0
        ranges[name] = _t_interval(values.mean(), np.sqrt(whole) / len(sets), freedom, lowest)
    return (
        ranges,
        f"95 % t interval of the mean over {len(sets)} corpora (jackknife, Satterthwaite)",
    )


def clusters(predictions: Predictions) -> tuple[np.ndarray, str, str]:
    """Chooses the clusters that are resampled as a whole.

    Returns:
        The name of each row's cluster, str [n]; the kind: "speakers", "sentences" or "utterances";
        and a note on the limits of the method, which continues a sentence, or is empty.
    """
    speakers = np.unique(predictions.speakers)
    if "" in speakers:
        note = (
            "; the speakers are unknown, and as utterances of one are alike, it may be too narrow"
        )
    elif len(speakers) > 2:
        return predictions.speakers, "speakers", ""
    else:
        voices = "this voice" if len(speakers) == 1 else "these two voices"
        note = f", which speaks of {voices} only"
    sentences = np.unique(predictions.sentences)
    if len(sentences) >= _MIN_SENTENCES and "" not in sentences:
        return predictions.sentences, "sentences", note
    return predictions.utterances, "utterances", note


def confusions(names: np.ndarray, predictions: Predictions) -> np.ndarray:
    """Counts a confusion matrix for each cluster, int64 [clusters, k, k], ordered by name."""
    ordered, cluster = np.unique(names, return_inverse=True)
    count = len(predictions.classes)
    matrices = np.zeros((len(ordered), count, count), np.int64)
    np.add.at(matrices, (cluster, predictions.labels, predictions.predictions), 1)
    return matrices


def _resample(matrices: np.ndarray) -> np.ndarray:
    """Sums as many clusters as there are, drawn with replacement; float [DRAWS, ..., k, k].

    NumPy promises that the raw output of a generator stays the same in every version, unlike that
    of `Generator.integers`. One draw at a time needs little memory for thousands of clusters.
    """
    count = len(matrices)
    source = np.random.PCG64(SEED)
    flat = matrices.reshape(count, -1).astype(np.float64)
    sums = np.empty((DRAWS, flat.shape[1]))
    for draw in progress.bar("resampling", DRAWS, "draws", range(DRAWS)):
        chosen = (source.random_raw(count) % count).astype(np.int64)
        sums[draw] = np.bincount(chosen, minlength=count) @ flat
    return sums.reshape(DRAWS, *matrices.shape[1:])


def _jackknife(
    matrices: np.ndarray, score: Callable[[np.ndarray], np.ndarray]
) -> tuple[float, float]:
    """Computes a score of the sum of all clusters, and its standard error on pseudo-values (Tukey).

    For the accuracy of speakers with equally many utterances it is the error of their means' mean.
    """
    count = len(matrices)
    total = matrices.sum(0)
    without = score(total - matrices)
    error = np.sqrt((count - 1) / count * np.square(without - without.mean()).sum())
    return score(total), error


def _t_interval(value: float, error: float, freedom: float, lowest: float) -> tuple[float, float]:
    """Computes the 95 % interval of Student's t with some degrees of freedom, in `lowest` to 1."""
    half = scipy.special.stdtrit(freedom, 0.975) * error
    return float(max(lowest, value - half)), float(min(1.0, value + half))
