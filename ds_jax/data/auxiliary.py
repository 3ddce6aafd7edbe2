"""Recordings of other corpora that train the models too, and are in no split of a fold."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ds_jax.data.corpus import Auxiliary, Corpus
from ds_jax.data.extension import extended
from ds_jax.runtime import files, progress
from ds_jax.runtime.errors import ConfigError, number
from ds_jax.runtime.progress import many

MOST = 100.0  # times what the training utterances weigh


def parse(entry: str) -> tuple[str, float]:
    """Returns the corpus and the share of an entry of `config.auxiliary`, such as "ravdess=0.3".

    Raises:
        ConfigError: The entry has another form.
    """
    name, _, text = entry.rpartition("=")
    share = number(text)
    if not name or not 0 < share <= MOST:
        allowed = f"CORPUS=SHARE, such as 'ravdess=0.3', with a share above 0 and up to {MOST:g}"
        raise ConfigError("auxiliary", entry, allowed)
    return name, share


def shares(entries: Sequence[str], corpus: str) -> dict[str, float]:
    """Returns the share of each corpus that the entries of `config.auxiliary` name, in their order.

    Raises:
        ConfigError: An entry has another form, or names the run's `corpus` or an earlier one.
    """
    parsed = [parse(entry) for entry in entries]
    if len({corpus, *(name for name, _ in parsed)}) <= len(parsed):
        allowed = f"different corpora without {corpus!r}, which is that of the run"
        raise ConfigError("auxiliary", tuple(entries), allowed)
    return dict(parsed)


def join(corpus: Corpus, others: Sequence[tuple[Corpus, float]]) -> Corpus:
    """Adds recordings of other corpora, on which models are trained too.

    Classes that the corpus lacks are left out.

    Args:
        corpus: The corpus, which may have variants already.
        others: Other corpora, represented as the corpus is, each with its share, see `Auxiliary`.

    Raises:
        ValueError: Two corpora hold the same recording, or another corpus has none of the classes.
    """
    classes = {utterance.label for utterance in corpus.utterances}
    known = {u.digest: f"{u.name!r} of {corpus.name}" for u in corpus.utterances if u.digest}
    parts, owners = [(corpus.inputs, np.arange(len(corpus.owners)))], [corpus.owners]
    groups, count = [], len(corpus.utterances)
    for other, share in others:
        own = {u.digest: f"{u.name!r} of {other.name}" for u in other.utterances if u.digest}
        if both := [digest for digest in own if digest in known]:
            raise ValueError(
                f"{own[both[0]]} is the same recording as {known[both[0]]}: these corpora overlap, "
                "so that a speaker may be trained on under one name and tested under another. Take "
                f"{other.name} out of config.auxiliary"
            )
        known |= own
        utterances = tuple(u for u in other.utterances if u.label in classes)
        if not utterances:
            raise ValueError(
                f"{other.name} has no recording of the classes of {corpus.name}: take it out of "
                "config.auxiliary"
            )
        progress.say(
            f"{other.name}: the models are trained on {many(len(utterances), 'recording')} of it "
            f"too, which weigh {share:g} times as much as the training split"
        )
        groups.append(Auxiliary(other.name, other.title, other.licence, share, utterances))
        rows = other.rows_of(utterance.name for utterance in utterances)
        parts.append((other.inputs, rows))
        # Rows of an utterance follow each other, in the order of the utterances.
        owners.append(count + np.unique(other.owners[rows], return_inverse=True)[1])
        count += len(utterances)
    return dataclasses.replace(extended(corpus, parts, owners), auxiliary=tuple(groups))


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


def unite(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """Returns what several folds.json record together, each corpus with the digests of all."""
    united = {}
    for group in (group for path in paths for group in read(path)):
        united.setdefault(group["corpus"], group)["digests"].update(group["digests"])
    return list(united.values())


def check_joined(entries: Sequence[str], corpus: Corpus) -> None:
    """Checks that a corpus in memory has recordings of the corpora that `config.auxiliary` names.

    Raises:
        ValueError: It lacks those of a corpus, or has some of another one.
    """
    named, joined = list(shares(entries, corpus.name)), [group.name for group in corpus.auxiliary]
    if named != joined:
        raise ValueError(
            f"config.auxiliary names {', '.join(named) or 'no corpus'}, and auxiliary recordings "
            f"of {', '.join(joined) or 'no corpus'} are in memory: load {corpus.name} by the "
            "config of the run"
        )


def check_same(path: Path, groups: Sequence[Auxiliary]) -> None:
    """Checks that the auxiliary recordings are those that a folds.json records.

    Raises:
        ValueError: They are others.
    """
    before, now = ({x["corpus"]: x["digests"] for x in y} for y in (read(path), describe(groups)))
    if before != now:
        raise ValueError(
            f"{path}: the auxiliary recordings, of {' and '.join({**before, **now})}, are others "
            "now than when the run began: bring back these corpora, or give this run another "
            "--workdir"
        )


def counts(groups: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns for a report each "corpus", "title" and "licence", and its number of "recordings"."""
    return [
        {name: group[name] for name in ("corpus", "title", "licence")}
        | {"recordings": len(group["digests"])}
        for group in groups
    ]


def of_all(counted: Iterable[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Returns what `counts` gives of several models together, each corpus once."""
    return list({each["corpus"]: each for groups in counted for each in groups}.values())
