"""Standardises by a speaker's own recordings, whose labels nobody looks at: `config.adapt`.

A system that was fitted so knows how speech departs from its speaker's usual voice. It answers for
somebody new after enrolment, which measures the mean and the deviation of their recordings.
"""

from collections import Counter
from typing import NamedTuple

import numpy as np

from ds_jax.data.corpus import Corpus
from ds_jax.data.names import plain
from ds_jax.runtime.progress import many

# Recordings of a speaker: with fewer, answers were worse than without any (docs/evaluation.md).
LEAST = 10
LIMIT = 6.0  # standard deviations at which what is standardised is cut off
# The names, without case and punctuation, by which tables say that they do not know a speaker.
UNKNOWN = (
    *("", "na", "nan", "none", "null", "unknown", "unk", "anonymous", "unbekannt", "anonym"),
    *("desconocido", "desconocida", "anonimo", "anonima", "sconosciuto", "sconosciuta"),
)


class Usual(NamedTuple):
    """What is usual for a speaker.

    Attributes:
        mean: float64 [d].
        deviation: float64 [d]; 1 for a feature that does not vary.
    """

    mean: np.ndarray
    deviation: np.ndarray


def check(corpus: Corpus) -> None:
    """Checks that a corpus knows its speakers, and has enough recordings of each.

    Raises:
        ValueError: It does not.
    """
    speakers = [utterance.speaker for utterance in corpus.utterances]
    counts = Counter(speakers)
    if unknown := [name for name in counts if plain(name) in UNKNOWN]:
        raise ValueError(
            f"{corpus.name} has unknown speakers ({unknown[0]!r}), who may be several people: "
            "adapt='speaker' standardises by each speaker's own recordings. Name the speakers, or "
            "take adapt='none'"
        )
    name, count = min(counts.items(), key=lambda item: item[1])
    if count < LEAST:
        raise ValueError(
            f"{corpus.name} has {many(count, 'recording')} of the speaker {name!r}, and "
            f"adapt='speaker' needs {LEAST} or more of each: leave the speaker out, or take "
            "adapt='none'"
        )


def check_given(given: bool, needed: bool) -> None:
    """Checks that an enrolment is given to models that need one, and to no others.

    Raises:
        ValueError: It is missing, or of no use.
    """
    if given and not needed:
        raise ValueError(
            "the models take everybody as they come (adapt='none'): leave the enrolment out"
        )
    if needed and not given:
        raise ValueError(
            "the models know speakers by their own recordings (adapt='speaker'): name a folder "
            f"with {LEAST} recordings or more of the person who will be heard, by --enrol=FOLDER, "
            "or ds_jax.load(RUN, enrol=FOLDER) in Python; they need no labels"
        )


def check_count(count: int) -> None:
    """Checks that there are enough recordings of somebody new.

    Raises:
        ValueError: There are not.
    """
    if count < LEAST:
        raise ValueError(
            f"the enrolment has {many(count, 'recording')} and needs {LEAST} or more, since fewer "
            "do not tell what is usual for a speaker"
        )


def rows_of_speakers(corpus: Corpus) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns the rows of `inputs` of each speaker, int [m].

    First come those that are measured, and then those that are standardised: variants of
    recordings, which no enrolment has, are the latter alone.
    """
    names = np.asarray([utterance.speaker for utterance in corpus.utterances])[corpus.owners]
    recorded = np.arange(len(names)) < len(corpus.recorded_owners)
    return [
        (np.flatnonzero((names == name) & recorded), np.flatnonzero(names == name))
        for name in np.unique(names)
    ]


def frames(features: np.ndarray) -> np.ndarray:
    """Returns all frames of features, [frames, d], of which a vector is one.

    Args:
        features: float32 [n, d], or [n, frames, d] with NaN beyond a sequence's end.
    """
    rows = features.reshape(-1, features.shape[-1])
    return rows[~np.isnan(rows[:, 0])]


def measure(features: np.ndarray) -> Usual:
    """Measures all `frames` of a speaker's features."""
    rows = frames(features).astype(np.float64)
    return usual(rows.mean(axis=0), rows.std(axis=0))


def usual(mean: np.ndarray, deviation: np.ndarray) -> Usual:
    """Returns what is usual, float64 [d] each; one that is constant but for rounding stays so."""
    varies = deviation > 1e-6 * np.maximum(1e-6, np.abs(mean))
    return Usual(mean, np.where(varies, deviation, 1))


def standardise(features: np.ndarray, usual: Usual) -> np.ndarray:
    """Returns features of a speaker as deviations from what is usual, float32, at most `LIMIT`."""
    deviations = (features - usual.mean) / usual.deviation
    return np.clip(deviations, -LIMIT, LIMIT).astype(np.float32)


def standardise_speakers(features: np.ndarray, corpus: Corpus) -> np.ndarray:
    """Standardises the features of each row of a corpus by the recordings of its speaker.

    Args:
        features: One row for each of `corpus.inputs`, as `frames` takes them.
        corpus: The corpus.
    """
    standardised = np.empty(features.shape, np.float32)
    for measured, rows in rows_of_speakers(corpus):
        standardised[rows] = standardise(features[rows], measure(features[measured]))
    return standardised
