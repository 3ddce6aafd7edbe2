"""Recordings of other corpora that train the models too, and are in no split of a fold."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ds_jax.data.corpus import Auxiliary, Corpus, Utterance
from ds_jax.data.extension import extended
from ds_jax.runtime import files, progress
from ds_jax.runtime.errors import ConfigError
from ds_jax.runtime.progress import many

MOST = 100.0  # recordings for each utterance of the corpus


def parse(entry: str) -> tuple[str, float]:
    """Returns the corpus and the share of an entry of `config.auxiliary`, such as "ravdess=0.3".

    Raises:
        ConfigError: The entry has another form.
    """
    name, _, text = entry.rpartition("=")
    try:
        share = float(text)
    except ValueError:
        share = np.nan
    if not name or not 0 < share <= MOST:
        allowed = f"CORPUS=SHARE, such as 'ravdess=0.3', with a share above 0 and up to {MOST:g}"
        raise ConfigError("auxiliary", entry, allowed)
    return name, share


def join(corpus: Corpus, others: Sequence[tuple[Corpus, float]], seed: int) -> Corpus:
    """Adds recordings of other corpora, on which models are trained too.

    Recordings that the corpus holds itself are left out, and so are classes that it lacks. The
    recordings that are taken are the first in the order of SHA-256 digests of seed, corpus and
    name.

    Args:
        corpus: The corpus, which may have variants already.
        others: Other corpora, represented as the corpus is, each with the number of recordings to
            take for each utterance of the corpus; all are taken where there are fewer.
        seed: Each seed takes other recordings.

    Raises:
        ValueError: Another corpus has no recording that can be taken.
    """
    classes = {utterance.label for utterance in corpus.utterances}
    known = {*corpus.digests.values()} - {""}
    parts, owners = [(corpus.inputs, np.arange(len(corpus.owners)))], [corpus.owners]
    groups, count = [], len(corpus.utterances)
    for other, share in others:
        usable = [u for u in other.utterances if u.label in classes and u.digest not in known]
        if not usable:
            raise ValueError(
                f"{other.name} has no recording of the classes of {corpus.name} that is not in "
                f"{corpus.name} too: take it out of config.auxiliary"
            )
        wanted = max(1, round(share * len(corpus.utterances)))
        taken = {u.name for u in sorted(usable, key=_order(seed, other.name))[:wanted]}
        progress.say(
            f"{other.name}: {many(len(taken), 'recording')} of {len(usable)} train the models too"
        )
        utterances = tuple(u for u in other.utterances if u.name in taken)
        groups.append(Auxiliary(other.name, other.title, other.licence, utterances))
        known |= {u.digest for u in utterances} - {""}
        rows = other.rows_of(taken)
        parts.append((other.inputs, rows))
        # Rows of an utterance follow each other, in the order of the utterances.
        owners.append(count + np.unique(other.owners[rows], return_inverse=True)[1])
        count += len(utterances)
    return extended(corpus, parts, owners, auxiliary=tuple(groups))


def _order(seed: int, corpus: str):
    def digest(utterance: Utterance) -> bytes:
        return hashlib.sha256(f"{seed}:auxiliary:{corpus}:{utterance.name}".encode()).digest()

    return digest


def describe(groups: Sequence[Auxiliary]) -> list[dict[str, Any]]:
    """Returns what folds.json records: each "corpus", "title" and "licence", and its "digests"."""
    return [
        {
            "corpus": group.name,
            "title": group.title,
            "licence": group.licence,
            "digests": {utterance.name: utterance.digest for utterance in group.utterances},
        }
        for group in groups
    ]


def read(path: Path) -> list[dict[str, Any]]:
    """Reads what a folds.json records of auxiliary recordings, see `describe`.

    Raises:
        ValueError: The file is damaged.
    """
    return files.read_json(path).get("auxiliary", [])


def check_same(path: Path, groups: Sequence[Auxiliary]) -> None:
    """Checks that the auxiliary recordings are those that a folds.json records.

    Raises:
        ValueError: They are others.
    """
    for before, now in zip(read(path), describe(groups), strict=True):
        if before["digests"] != now["digests"]:
            raise ValueError(
                f"{path}: the recordings of {now['corpus']} that train the models too are others "
                "now than when the run began: bring back the corpus, or give this run another "
                "--workdir"
            )


def counts(groups: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns for a report each "corpus", "title" and "licence", and its number of "recordings"."""
    return [
        {name: group[name] for name in ("corpus", "title", "licence")}
        | {"recordings": len(group["digests"])}
        for group in groups
    ]
