"""Files that are written whole or not at all, and JSON that tells when it is damaged."""

import contextlib
import hashlib
import io
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, TextIO

CHECKSUM = "checksum"  # the field of a sealed object that all others are checked against
ABANDONED = 24 * 3600  # seconds after which nobody uses a temporary folder any more
UNFINISHED = ".tmp"  # ends the name of a file that is being written


def cache_directory() -> Path:
    """The user's cache folder of this program: `$XDG_CACHE_HOME/ds_jax` or `~/.cache/ds_jax`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ds_jax"


def write_text(path: str | Path, text: str) -> None:
    """Writes UTF-8 text, line ends as given, so that no reader ever sees half of it."""
    write_bytes(path, text.encode())


def write_bytes(path: str | Path, content: bytes) -> None:
    """Writes bytes so that no reader ever sees half of them, not even after a power failure."""
    with _open(path) as file:
        file.write(content)


def write_json(path: str | Path, content: Mapping, sealed: bool = False) -> None:
    """Writes strict, indented JSON; a NaN or an infinity is a ValueError.

    Args:
        path: The file.
        content: An object of JSON.
        sealed: Whether `read_json` is to tell if the file was damaged.
    """
    content = seal(content) if sealed else content
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | Path) -> dict:
    """Reads an object of JSON, without the field by which it was sealed.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no JSON object, or is not as it was written.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are both of this kind.
        raise ValueError(f"{path} is not a JSON file, or a damaged one: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold an object of JSON")
    return unseal(path, content)


def seal(content: Mapping) -> dict:
    """Adds to an object of JSON the field that tells whether it was damaged."""
    return {**content, CHECKSUM: _digest(content)}


def unseal(path: str | Path, content: Mapping) -> dict:
    """Takes off what `seal` has added; without it an object is taken as it is.

    Raises:
        ValueError: The object is not as it was sealed.
    """
    content = dict(content)
    checksum = content.pop(CHECKSUM, None)
    if checksum not in (None, _digest(content)):
        raise ValueError(
            f"{path} is damaged: it is not as it was written. Bring back a copy; or, if it was "
            f'changed by hand, take its field "{CHECKSUM}" out'
        )
    return content


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
    with _open(path) as file:
        text = io.TextIOWrapper(file, "utf-8", newline="")
        try:
            yield text
        finally:
            text.detach()  # writes what it still holds


def sync(path: str | Path) -> None:
    """Makes a file's content last, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def explain_write_errors(path: Path, *also: Path) -> Iterator[None]:
    """Says which file could not be written, and what to do.

    Args:
        path: What is written, a file or a folder with all that is below.
        also: Other names of it. What goes wrong with other files is told as it is.

    Raises:
        OSError: It could not be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or not _concerns(error.filename, path, *also):
            raise
        raise OSError(
            f"{path} cannot be written ({error.strerror}): make room or see to its folder, and "
            "start again; what is there is whole"
        ) from error


def remove_unfinished(directory: Path) -> None:
    """Removes what killed processes have left half-written; only where no other one writes."""
    for left in directory.glob(f"*{UNFINISHED}"):
        left.unlink(missing_ok=True)


def remove_abandoned(directory: Path) -> None:
    """Removes temporary folders that killed processes have left, a day old or older.

    Younger ones may be in use: what is cached for a user is written without a lock.
    """
    for left in directory.glob(f"{tempfile.gettempprefix()}*"):
        with contextlib.suppress(OSError):  # another process may remove it too
            if left.is_dir() and time.time() - left.stat().st_mtime > ABANDONED:
                shutil.rmtree(left)


@contextlib.contextmanager
def _open(path: str | Path) -> Iterator[BinaryIO]:
    path = Path(path)
    # A name of its own: runs on several machines may write the same file at the same time.
    beside = path.with_name(f"{path.name}.{uuid.uuid4().hex}{UNFINISHED}")
    try:
        with explain_write_errors(path, beside):
            path.parent.mkdir(parents=True, exist_ok=True)
            with beside.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())  # or a power failure might leave a name without content
            os.replace(beside, path)
            sync(path.parent)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def _concerns(name: str | None, path: Path, *also: Path) -> bool:
    """Whether an error's file is one of these, below or above it; errors of writing name none."""
    if name is None or Path(name) in also:
        return True
    return Path(name).is_relative_to(path) or path.is_relative_to(name)


def _digest(content: Mapping) -> str:
    # As it comes back from JSON: lists in place of tuples, names in place of other keys.
    text = json.dumps(json.loads(json.dumps(content)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
