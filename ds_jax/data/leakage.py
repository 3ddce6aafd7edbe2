"""What must not happen: that a recording is heard on more than one side of a fold.

Names are not all: a corpus may hold the same recording under two names. `Utterance.digest` tells.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ds_jax.data.corpus import Corpus, Utterance

Splits = Mapping[str, Sequence[str]]  # names of the utterances of each side of a fold


class LeakError(ValueError):
    """What a fit or a choice must not see has reached it."""


def same_recordings(names: Iterable[str], utterances: Sequence[Utterance]) -> set[str]:
    """Finds the names of all recordings that are the same as some of those named, these included.

    Args:
        names: Of some utterances.
        utterances: All of the corpus; a digest that is not known is equal to none.
    """
    names = set(names)
    digests = {utterance.digest for utterance in utterances if utterance.name in names} - {""}
    return names | {utterance.name for utterance in utterances if utterance.digest in digests}


def excluded_duplicates(folds: Sequence[Splits], utterances: Sequence[Utterance]) -> set[str]:
    """Names of what some fold learns nothing from, since it tests or chooses on an equal recording.

    Args:
        folds: The sides of each.
        utterances: All of the corpus.
    """
    found = set()
    for sides in folds:
        judged = {*sides["dev"], *sides["test"]}
        found |= same_recordings(judged, utterances) - judged - {*sides["train"]}
    return found


def check_splits(sides: Splits, utterances: Sequence[Utterance]) -> None:
    """Checks that no recording is on two sides of a fold, be it under two names.

    Raises:
        LeakError: One is; the message names it.
    """
    digests = {utterance.name: utterance.digest for utterance in utterances}
    found = {}  # the first side and name of each recording
    for side, names in sides.items():
        for name in names:
            first_side, first = found.setdefault(digests[name] or name, (side, name))
            if first_side != side:
                raise LeakError(
                    f"{first!r} in {first_side} and {name!r} in {side} are the same recording: "
                    f"leave {first!r} out"
                )


def fold_digest(number: int, sides: Splits, digests: Mapping[str, str]) -> str:
    """By what the files of a fold are known to be its own: SHA-256, in hexadecimal digits.

    Args:
        number: The fold's.
        sides: Its own.
        digests: Of the recordings, by the names of their utterances; unknown ones are left out.
    """
    recordings = {side: sorted((n, digests.get(n, "")) for n in sides[side]) for side in sides}
    return hashlib.sha256(json.dumps([number, recordings], sort_keys=True).encode()).hexdigest()


def check_fold(place: Path, found: str, wanted: str) -> None:
    """Checks by their digests that what lies in a place is of the fold that it lies in.

    Raises:
        ValueError: It is not.
    """
    if found != wanted:
        raise ValueError(
            f"{place} is of another fold, or of other recordings than this one: delete "
            f"{place.parent} and train this fold again, or bring back its own"
        )


def check_recordings(digests: Mapping[str, str], utterances: Sequence[Utterance]) -> None:
    """Checks that a corpus still holds the recordings that its folds were made of.

    Args:
        digests: Of the recordings then, by the names of their utterances.
        utterances: All of the corpus.

    Raises:
        ValueError: A name is that of another recording now.
    """
    for utterance in utterances:
        if digests.get(utterance.name, utterance.digest) != utterance.digest:
            raise ValueError(
                f"{utterance.name!r} is another recording now than when the folds were made: bring "
                "back the corpus of the run, or give this one a --workdir of its own"
            )


def check_rows(
    what: str, rows: np.ndarray, corpus: Corpus, sides: Splits, allowed: Sequence[str]
) -> None:
    """Checks that the rows of a fit or of a choice are of the sides that it may see.

    Rows were found by the names of a side; here the way goes back, from rows to names.

    Args:
        what: The fit or choice, as the message calls it.
        rows: int [n], of the corpus' inputs.
        corpus: Whose they are.
        sides: Of the fold.
        allowed: The sides that they may be of.

    Raises:
        LeakError: One is of another side, or the same recording as one that is.
    """
    own = {name for side in allowed for name in sides[side]}
    other = {name for side in sides if side not in allowed for name in sides[side]}
    closed = same_recordings(other, corpus.utterances)
    for owner in np.unique(corpus.owners[rows]):
        name = corpus.utterances[owner].name
        if name not in own or name in closed:
            raise LeakError(
                f"{what} was given {name!r}, which is not of {' or '.join(allowed)} alone: this "
                "would make the scores worthless, and the run ends here"
            )
