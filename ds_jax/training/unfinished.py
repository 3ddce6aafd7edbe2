"""An epoch that SIGTERM broke off: what it had come to, so that it is gone on with."""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ds_jax.data import leakage
from ds_jax.training import arrays

DIRECTORY = "unfinished"  # in a fold's folder


class Unfinished(NamedTuple):
    """An epoch under way.

    Attributes:
        variables: What evaluation needs.
        optimizer: What resuming needs besides.
        losses: float32 [steps taken].
        seconds: That they took.
    """

    variables: Any
    optimizer: Any
    losses: np.ndarray
    seconds: float


def save(directory: Path, epoch: int, fold: str, what: Unfinished) -> None:
    """Writes it to a fold's folder, in place of an earlier one.

    Args:
        directory: The fold's.
        epoch: Its number.
        fold: Of `leaks.fold_digest`.
        what: To be saved.

    Raises:
        OSError: The folder cannot be written.
    """
    remove(directory)
    digest = np.frombuffer(bytes.fromhex(fold), np.uint8)
    arrays.save(directory / DIRECTORY, {**what._asdict(), "epoch": epoch, "fold": digest})


def load(
    directory: Path, epoch: int, fold: str, variables: Any, optimizer: Any
) -> Unfinished | None:
    """Reads it.

    Args:
        directory: The fold's.
        epoch: The number of the epoch that comes next.
        fold: Of `leaks.fold_digest`.
        variables: A tree like that which was saved.
        optimizer: Likewise.

    Returns:
        What the epoch had come to; None where there is none, or that of another epoch.

    Raises:
        ValueError: It is damaged, or of another fold.
    """
    if not arrays.is_whole(directory / DIRECTORY):
        return None
    named = arrays.load(directory / DIRECTORY)
    names = ("epoch", "fold", "losses", "seconds")
    alone = {name: named.pop(f"['{name}']", np.int32(0)) for name in names}
    state = arrays.shape(named, {"variables": variables, "optimizer": optimizer})
    if int(alone["epoch"]) != epoch or state is None:
        return None
    leakage.check_fold(directory / DIRECTORY, alone["fold"].tobytes().hex(), fold)
    return Unfinished(**state, losses=alone["losses"], seconds=float(alone["seconds"]))


def remove(directory: Path) -> None:
    """Removes it, once the epoch is saved."""
    shutil.rmtree(directory / DIRECTORY, ignore_errors=True)
