"""A corpus with more rows of inputs at its end, which train models and do nothing else."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from ds_jax.data.corpus import Corpus, StoredPictures
from ds_jax.features import extract


def with_variants(recorded: Corpus, variants: Sequence[Corpus]) -> Corpus:
    """Adds to a corpus the inputs of its variants, on which models are trained too.

    A variant of a recording that cannot be used itself, or is another one by now, is left out.
    """
    places = {
        (utterance.name, utterance.digest): place
        for place, utterance in enumerate(recorded.utterances)
    }
    owners, rows = [recorded.owners], []
    for variant in variants:
        own = [
            places.get((utterance.name, utterance.digest), -1) for utterance in variant.utterances
        ]
        of_rows = np.asarray(own, np.int32)[variant.owners]
        rows.append(np.flatnonzero(of_rows >= 0))
        owners.append(of_rows[rows[-1]])
    parts = [(recorded.inputs, np.arange(len(recorded.owners)))]
    parts += [(variant.inputs, used) for variant, used in zip(variants, rows, strict=True)]
    return extended(recorded, parts, owners)


def extended(
    corpus: Corpus,
    parts: Sequence[tuple[np.ndarray | StoredPictures, np.ndarray]],
    owners: Sequence[np.ndarray],
) -> Corpus:
    """Returns a corpus with more rows at the end, which nothing but training reads.

    Args:
        corpus: The corpus.
        parts: Inputs, and those of their rows that are taken: first all of the corpus itself.
        owners: For each part the owners of the rows that are taken, as `Corpus.owners`.
    """
    extra = corpus.extra + sum(map(len, owners[1:]))
    owners = np.concatenate(owners).astype(np.int32)
    return dataclasses.replace(corpus, inputs=_joined(parts), owners=owners, extra=extra)


def _joined(
    parts: Sequence[tuple[np.ndarray | StoredPictures, np.ndarray]],
) -> np.ndarray | StoredPictures:
    """Puts rows of inputs one after the other; some may stay on the disk, and then all are read."""
    if not any(isinstance(inputs, StoredPictures) for inputs, _ in parts):
        return extract.stack([inputs[row] for inputs, rows in parts for row in rows])
    places = [(inputs, row) for inputs, rows in parts for row in rows.tolist()]

    def read(position: int) -> np.ndarray:
        inputs, row = places[position]
        return inputs[row]

    shape = np.max([inputs.shape[1:] for inputs, _ in parts], axis=0)
    return StoredPictures(read, np.arange(len(places)), tuple(shape.tolist()))
