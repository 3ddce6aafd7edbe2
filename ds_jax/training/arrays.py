"""A tree of arrays in a folder, with a checksum."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors.numpy

from ds_jax.runtime import files
from ds_jax.runtime.files import write_bytes

FILE = "arrays.safetensors"


def save(directory: Path, tree: Any) -> None:
    """Writes the leaves of a tree by their places in it, and last of all their checksum.

    Raises:
        OSError: The folder cannot be written.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    named = {jax.tree_util.keystr(path): np.asarray(leaf, order="C") for path, leaf in leaves}
    content = safetensors.numpy.save(named)
    write_bytes(directory / FILE, content)
    files.write_checksums(directory, {FILE: files.sha256(content)})


def is_whole(directory: Path) -> bool:
    """Whether `save` came to its end in the folder."""
    return (directory / files.CHECKSUMS).is_file()


def damage(directory: Path) -> str:
    """Says which file is missing or is not as it was written; empty where all are."""
    if not is_whole(directory):
        return f"{directory / files.CHECKSUMS} is missing"
    return files.find_damage(directory)


def load(directory: Path) -> dict[str, np.ndarray]:
    """Reads what was saved: arrays by their places in the tree.

    Raises:
        ValueError: The folder is damaged.
    """
    if found := damage(directory):
        raise ValueError(found)
    return safetensors.numpy.load_file(directory / FILE)


def shape(named: dict[str, np.ndarray], like: Any) -> Any:
    """Makes a tree of what was loaded.

    Args:
        named: Arrays by their places.
        like: A tree of the same places and shapes.

    Returns:
        A tree of host arrays; None where places or shapes differ.
    """
    leaves = jax.tree_util.tree_leaves_with_path(like)
    shapes = {jax.tree_util.keystr(path): leaf.shape for path, leaf in leaves}
    if {name: array.shape for name, array in named.items()} != shapes:
        return None
    return jax.tree.unflatten(jax.tree.structure(like), [named[name] for name in shapes])
