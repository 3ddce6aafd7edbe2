"""Files that are written whole or not at all."""

import contextlib
import json
import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO


def cache_directory() -> Path:
    """The user's cache folder of this program: `$XDG_CACHE_HOME/ds_jax` or `~/.cache/ds_jax`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ds_jax"


def write_text(path: str | Path, text: str) -> None:
    """Writes UTF-8 text, line ends as given, so that no reader ever sees half of it."""
    write_bytes(path, text.encode())


def write_bytes(path: str | Path, content: bytes) -> None:
    """Writes bytes so that no reader ever sees half of them."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own: runs on several machines may write the same file at the same time.
    beside = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        beside.write_bytes(content)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_json(path: str | Path, content: dict) -> None:
    """Writes strict, indented JSON; a NaN or an infinity is a ValueError."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def check_writable(directory: str | Path, flag: str = "--workdir") -> None:
    """Makes a folder if need be, before the work whose files go there.

    Args:
        directory: The folder.
        flag: By which another one is named.

    Raises:
        OSError: It cannot be made or written.
    """
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise OSError(
            f"{directory} cannot be written ({error.strerror}): name another folder by {flag}"
        ) from error


@contextlib.contextmanager
def open_text(path: str | Path) -> Iterator[TextIO]:
    """Opens a file for UTF-8 text that is written piece by piece, and that is whole or not there.

    Yields:
        The file; it takes its name when the block ends without an error.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with beside.open("w", encoding="utf-8", newline="") as file:
            yield file
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
