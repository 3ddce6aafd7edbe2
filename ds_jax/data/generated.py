"""The generated pictures that train the models of a fold: their file, and their place in a corpus.

Each stands by a recording of the fold's training split, whose class and length it takes. It is a
row of it as those of its variants are: nothing but training reads it.
"""

import dataclasses
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ds_jax.data import leakage
from ds_jax.data.corpus import Corpus, with_variants
from ds_jax.runtime.files import write_bytes


class Generated(NamedTuple):
    """Generated pictures.

    Attributes:
        pictures: uint8 [m, bands, widest], timelines that are 0 after their ends.
        names: The name of the utterance that each stands by.
    """

    pictures: np.ndarray
    names: list[str]


def write(path: Path, pictures: np.ndarray, names: Sequence[str], digest: str) -> None:
    """Writes the pictures of a fold; `digest` is the fold's, see `leakage.fold_digest`."""
    file = io.BytesIO()
    fields = {"names": np.asarray(names, str), "digest": np.asarray(digest)}
    np.savez_compressed(file, pictures=pictures, **fields)
    write_bytes(path, file.getvalue())


def is_whole(path: Path) -> bool:
    """Tells whether a file of generated pictures is there and undamaged."""
    try:
        _read(path)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zipfile.LargeZipFile):
        return False
    return True


def count(path: Path) -> int:
    """Returns how many pictures a file has; 0 where there is none."""
    return len(_read(path)[0].names) if path.is_file() else 0


def read(path: Path, digest: str) -> Generated:
    """Reads the pictures of a fold.

    Raises:
        ValueError: They are of another fold than that of the digest, whose test their generator
            may have seen.
    """
    generated, found = _read(path)
    leakage.check_fold(path, found, digest)
    return generated


def show(path: Path) -> Generated:
    """Reads the pictures of a fold to show them, of whichever fold they are."""
    return _read(path)[0]


def _read(path: Path) -> tuple[Generated, str]:
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
        return Generated(stored["pictures"], stored["names"].tolist()), str(stored["digest"])


def join(corpus: Corpus, generated: Generated) -> Corpus:
    """Returns a corpus with generated pictures at the end of its rows, as those of variants are."""
    places = {utterance.name: place for place, utterance in enumerate(corpus.utterances)}
    owners = np.asarray([places[name] for name in generated.names], np.int32)
    variant = dataclasses.replace(corpus, inputs=generated.pictures, owners=owners)
    return with_variants(corpus, [variant])
