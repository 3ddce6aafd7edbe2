"""The generated pictures that train the models of a fold: their file, and their place in a corpus.

Each stands by a recording of the fold's training split, whose class and length it takes. It is a
row of it as those of its variants are: nothing but training reads it.
"""

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ds_jax.data.corpus import Corpus
from ds_jax.data.extension import with_variants
from ds_jax.runtime import files
from ds_jax.runtime.workdir import PREDICTIONS


class Generated(NamedTuple):
    """Generated pictures.

    Attributes:
        pictures: uint8 [m, bands, widest], timelines that are 0 after their ends.
        names: The name of the utterance that each stands by.
    """

    pictures: np.ndarray
    names: list[str]


def write(path: Path, pictures: np.ndarray, names: Sequence[str], digest: str) -> None:
    """Writes the pictures of a fold; `digest` says what they were drawn from, and how."""
    file = io.BytesIO()
    fields = {"names": np.asarray(names, str), "digest": np.asarray(digest)}
    np.savez_compressed(file, pictures=pictures, **fields)
    files.write_bytes(path, file.getvalue())


def is_whole(path: Path) -> bool:
    """Tells whether a file of generated pictures is there and can be read."""
    try:
        _parse(path, path.read_bytes())
    except (OSError, ValueError):
        return False
    return True


def read(path: Path, digest: str) -> Generated:
    """Reads the pictures of a fold, to train on them.

    Raises:
        ValueError: The file is damaged, or its digest is another one: the generator may have seen
            what this fold tests.
    """
    generated, found = _parse(path, path.read_bytes())
    if found != digest:
        raise ValueError(
            f"{path} is of another fold, or was drawn from other recordings or by another config: "
            f"delete {path.parent} and train this fold again, or bring back its files"
        )
    return generated


def show(path: Path) -> Generated:
    """Reads the pictures of a finished fold, to show them.

    Raises:
        ValueError: The file is damaged.
    """
    return _parse(path, files.check_content(path, path.read_bytes()))[0]


def count(path: Path) -> int:
    """Returns how many pictures the file of a finished fold has; 0 where there is no file.

    Raises:
        ValueError: The file is damaged.
    """
    return len(show(path).names) if path.is_file() else 0


def _parse(path: Path, content: bytes) -> tuple[Generated, str]:
    """Returns the pictures in the bytes of a file, and the digest of what they were drawn from."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            return Generated(stored["pictures"], stored["names"].tolist()), str(stored["digest"])
    except Exception as error:  # NumPy raises errors of many kinds for a damaged file
        raise ValueError(
            f"{path} is damaged ({error}): delete {path.parent / PREDICTIONS} and run the fold "
            "again, which draws the pictures anew"
        ) from error


def join(corpus: Corpus, generated: Generated) -> Corpus:
    """Returns a corpus with generated pictures at the end of its rows, as those of variants are."""
    places = {utterance.name: place for place, utterance in enumerate(corpus.utterances)}
    owners = np.asarray([places[name] for name in generated.names], np.int32)
    variant = dataclasses.replace(corpus, inputs=generated.pictures, owners=owners)
    return with_variants(corpus, [variant])
