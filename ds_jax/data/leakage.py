"""Checks that no recording is in more than one split of a fold, under any name.

A corpus may hold the same recording under two names, which `Utterance.digest` reveals, or in
parts of one file that overlap.
"""

import bisect
import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter, itemgetter
from pathlib import Path

import numpy as np

from ds_jax.data.corpus import Corpus, Utterance

Splits = Mapping[str, Sequence[str]]  # the names of the utterances in train, dev and test


class LeakError(ValueError):
    """A fit or a choice was given an utterance that it must not see."""


def same_recordings(names: Iterable[str], utterances: Sequence[Utterance]) -> set[str]:
    """Finds the names of all utterances that share sound with a named one.

    They have the same recording, or a part of the same file that overlaps. The names themselves are
    part of the result. An unknown digest is equal to no other.
    """
    names = set(names)
    named = [utterance for utterance in utterances if utterance.name in names]
    digests = {utterance.digest for utterance in named} - {""}
    heard = _join_parts(named)
    return names | {u.name for u in utterances if u.digest in digests or _overlaps(u, heard)}


def _join_parts(utterances: Iterable[Utterance]) -> dict[str, list[list[float]]]:
    """Returns for each file the start and end of what utterances cover, in order and disjoint."""
    joined = {}
    for part in sorted(utterances, key=attrgetter("start")):
        spans = joined.setdefault(part.file, [])
        if spans and part.start < spans[-1][1]:
            spans[-1][1] = max(spans[-1][1], part.end)
        else:
            spans.append([part.start, part.end])
    joined.pop("", None)  # of which nothing is known
    return joined


def _overlaps(utterance: Utterance, joined: Mapping[str, list[list[float]]]) -> bool:
    spans = joined.get(utterance.file, [])
    later = bisect.bisect_right(spans, utterance.start, key=itemgetter(1))  # the first to end later
    return later < len(spans) and spans[later][0] < utterance.end


def check_splits(splits: Splits, utterances: Sequence[Utterance]) -> None:
    """Checks that no recording is in two splits of a fold, under one name or two, or in part.

    Raises:
        LeakError: A recording is in two splits.
    """
    for one, other in itertools.combinations(splits, 2):
        if both := same_recordings(splits[one], utterances).intersection(splits[other]):
            second = min(both)
            first = min(same_recordings([second], utterances).intersection(splits[one]))
            raise LeakError(
                f"{first!r} in {one} and {second!r} in {other} are the same recording, or parts of "
                f"one that overlap: leave {first!r} out"
            )


def fold_digest(number: int, splits: Splits, digests: Mapping[str, str]) -> str:
    """Returns a SHA-256 in hexadecimal digits that differs if the fold or its recordings differ.

    Args:
        number, splits: The number and the splits of the fold.
        digests: By the names of utterances; unknown ones may be missing.
    """
    recordings = {split: sorted((n, digests.get(n, "")) for n in splits[split]) for split in splits}
    return hashlib.sha256(json.dumps([number, recordings], sort_keys=True).encode()).hexdigest()


def check_fold(path: Path, found: str, expected: str) -> None:
    """Checks by `fold_digest` that a file in a fold's folder belongs to this fold.

    Raises:
        ValueError: It belongs to another fold.
    """
    if found != expected:
        raise ValueError(
            f"{path} is of another fold, or of other recordings than this one: delete "
            f"{path.parent} and train this fold again, or bring back its files"
        )


def check_recordings(digests: Mapping[str, str], utterances: Sequence[Utterance]) -> None:
    """Checks that a corpus still holds the recordings of which its folds were made.

    Args:
        digests: The digests of the recordings at that time, by the names of their utterances.
        utterances: All utterances of the corpus.

    Raises:
        ValueError: An utterance has another recording now.
    """
    for utterance in utterances:
        if digests.get(utterance.name, utterance.digest) != utterance.digest:
            raise ValueError(
                f"{utterance.name!r} is another recording now than when the folds were made: bring "
                "back the corpus of the run, or give this one another --workdir"
            )


def check_rows(
    what: str, rows: np.ndarray, corpus: Corpus, splits: Splits, allowed: Sequence[str]
) -> None:
    """Checks that the rows of a fit or of a choice belong to the splits that it may see.

    The rows were found by the names of a split; this check goes back from the rows to the names.
    Auxiliary recordings, which are in no split, may be seen where those of train may.

    Args:
        what: The fit or the choice, as the message calls it.
        rows: int [n], rows of the corpus' inputs.
        corpus, splits: The corpus, and the splits of the fold.
        allowed: The splits that the rows may belong to.

    Raises:
        LeakError: A row belongs to another split, or has the same recording as one that does.
    """
    visible = {name for split in allowed for name in splits[split]}
    hidden = {name for split in splits if split not in allowed for name in splits[split]}
    hidden = same_recordings(hidden, corpus.utterances)
    heard = {corpus.digests[name] for name in hidden} - {""}
    own = len(corpus.utterances)
    others = [(u, f" of {group.name}") for group in corpus.auxiliary for u in group.utterances]
    for owner in np.unique(corpus.owners[rows]):
        if owner < own:
            name, source = corpus.utterances[owner].name, ""
            leaks = name not in visible or name in hidden
        else:
            utterance, source = others[owner - own]
            name, leaks = utterance.name, "train" not in allowed or utterance.digest in heard
        if leaks:
            raise LeakError(
                f"{what} was given {name!r}{source}, which is not of {' or '.join(allowed)} alone: "
                "this would make the scores worthless, and the run ends here"
            )
