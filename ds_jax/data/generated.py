"""The generated pictures that train the models of a fold: their file, and their place in a corpus.

Each stands by a recording of the fold's training split, whose class and length it takes. It is a
row of it as those of its variants are: nothing but training reads it.
"""

import dataclasses
import io
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ds_jax.data import leakage
from ds_jax.data.corpus import Corpus, with_variants
from ds_jax.runtime import files


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
    files.write_bytes(path, file.getvalue())


def is_whole(path: Path) -> bool:
    """Tells whether a file of generated pictures is there and can be read."""
    try:
        _parse(path.read_bytes())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return False
    return True


def read(path: Path, digest: str) -> Generated:
    """Reads the pictures of a fold, to train on them.

    Raises:
        ValueError: They are of another fold than that of the digest, whose test their generator
            may have seen.
    """
    generated, found = _parse(path.read_bytes())
    leakage.check_fold(path, found, digest)
    return generated


def show(path: Path) -> Generated:
    """Reads the pictures of a finished fold, to show them.

    Raises:
        ValueError: The file is damaged.
    """
    return _parse(files.check_content(path, path.read_bytes()))[0]


def count(path: Path) -> int:
    """Returns how many pictures the file of a finished fold has; 0 where there is no file.

    Raises:
        ValueError: The file is damaged.
    """
    return len(show(path).names) if path.is_file() else 0


def _parse(content: bytes) -> tuple[Generated, str]:
    """Returns the pictures in the bytes of a file, and the digest of their fold."""
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        return Generated(stored["pictures"], stored["names"].tolist()), str(stored["digest"])


def join(corpus: Corpus, generated: Generated) -> Corpus:
    """Returns a corpus with generated pictures at the end of its rows, as those of variants are."""
    places = {utterance.name: place for place, utterance in enumerate(corpus.utterances)}
    owners = np.asarray([places[name] for name in generated.names], np.int32)
    variant = dataclasses.replace(corpus, inputs=generated.pictures, owners=owners)
    return with_variants(corpus, [variant])
