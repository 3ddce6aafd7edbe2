"""95 % intervals of the scores that allow for utterances of one speaker being alike.

Utterances are not independent: a speaker who is hard to understand is so throughout. With 50
speakers of 41 utterances and a usual spread between speakers, an interval that takes utterances for
independent covers the truth in 6 or 7 of 10 cases; one that resamples speakers, in 93 of 100.
"""

import numpy as np
from scipy import stats

from ds_jax.data.corpus import LABELS
from ds_jax.evaluation.metrics import SCORES
from ds_jax.evaluation.predictions import Predictions
from ds_jax.runtime import progress

DRAWS = 5000
# With fewer clusters the percentile bootstrap is too narrow: it covers .85 with 6 speakers,
# .92 with 10, where the t interval covers .94 and .96.
ENOUGH = 10


def intervals(
    predictions: Predictions, seed: int = 0
) -> tuple[dict[str, tuple[float, float] | None], str]:
    """The 95 % interval of each score of pooled predictions.

    Ten speakers or more are resampled (percentile bootstrap); of three to nine each is left out in
    turn (jackknife, t interval). One or two say nothing of other speakers: then sentences are
    resampled or, with fewer than ten of them or an unknown one, utterances. All rows of a speaker,
    sentence or utterance go together, those of several splits too.

    Returns:
        For "accuracy", "uar" and "macro_f1" (low, high), or None if there is one utterance only;
        and a sentence that says how they were found.
    """
    names, kind, note = clusters(predictions)
    matrices = confusions(names, predictions)
    count = len(matrices)
    if count < 2:
        return dict.fromkeys(SCORES), "no interval can be given from a single utterance"
    if kind == "speakers" and count < ENOUGH:
        found = {name: jackknife(matrices, score) for name, score in SCORES.items()}
        method = f"95 % t intervals from leaving out each of the {count} speakers (jackknife)"
    else:
        resampled = resample(matrices, seed)
        found = {name: percentiles(score(resampled)) for name, score in SCORES.items()}
        method = f"95 % percentile bootstrap over {count} {kind} ({DRAWS} draws)"
    if any(low == high for low, high in found.values()):
        note += f"; a width of zero says that all {kind} scored alike, not that this is certain"
    return found, method + note


def clusters(predictions: Predictions) -> tuple[np.ndarray, str, str]:
    """What is resampled as a whole.

    Returns:
        Its name in each row, str [n]; its kind: "speakers", "sentences" or "utterances"; and a note
        of its limits, to be put behind a sentence, empty where there are none.
    """
    voices = len(np.unique(predictions.speakers))
    if voices > 2:
        return predictions.speakers, "speakers", ""
    note = f", which speaks of {'this voice' if voices == 1 else 'these two voices'} only"
    sentences = np.unique(predictions.sentences)
    if len(sentences) >= ENOUGH and "" not in sentences:
        return predictions.sentences, "sentences", note
    return predictions.utterances, "utterances", note


def confusions(names: np.ndarray, predictions: Predictions) -> np.ndarray:
    """int64 [clusters, 7, 7], ordered by the cluster's name, which `names` [n] gives each row."""
    ordered, cluster = np.unique(names, return_inverse=True)
    matrices = np.zeros((len(ordered), len(LABELS), len(LABELS)), np.int64)
    np.add.at(matrices, (cluster, predictions.labels, predictions.predictions), 1)
    return matrices


def resample(matrices: np.ndarray, seed: int) -> np.ndarray:
    """Float [DRAWS, 7, 7]: sums of as many clusters as there are, drawn with replacement.

    The generator's raw output is used because NumPy promises it, unlike `Generator.integers`, to
    stay the same in every version. One draw at a time keeps thousands of clusters small.
    """
    count = len(matrices)
    source = np.random.PCG64(seed)
    flat = matrices.reshape(count, -1).astype(np.float64)
    sums = np.empty((DRAWS, flat.shape[1]))
    for draw in progress.bar("resampling", DRAWS, "draws", range(DRAWS)):
        chosen = (source.random_raw(count) % count).astype(np.int64)
        sums[draw] = np.bincount(chosen, minlength=count) @ flat
    return sums.reshape(DRAWS, *matrices.shape[1:])


def percentiles(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def jackknife(matrices: np.ndarray, score) -> tuple[float, float]:
    """The t interval on pseudo-values (Tukey); of the accuracy with equally many utterances each,
    it is the t interval on the speakers' means."""
    count = len(matrices)
    total = matrices.sum(0)
    without = score(total - matrices)
    error = np.sqrt((count - 1) / count * np.square(without - without.mean()).sum())
    half = stats.t.ppf(0.975, count - 1) * error
    value = score(total)
    return float(max(0.0, value - half)), float(min(1.0, value + half))
