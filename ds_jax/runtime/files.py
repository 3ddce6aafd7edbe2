"""Files that are written whole or not at all, the checksums that reveal damage, and file names."""

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

CHECKSUM = "checksum"  # the field of a sealed JSON object that holds the hash of all others
CHECKSUMS = "checksums.json"  # holds the hashes of the other files in its folder
ADVICE = "Run the command that made it again: it repeats nothing that is whole"
ABANDONED = 24 * 3600  # seconds after which nobody uses a temporary folder any more
UNFINISHED = ".tmp"  # ends the name of a file that is being written


def cache_directory() -> Path:
    """Returns this program's cache folder: `$XDG_CACHE_HOME/ds_jax` or `~/.cache/ds_jax`.

    Raises:
        OSError: There is no home folder.
    """
    try:
        return expand(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "ds_jax"
    except ValueError as error:
        raise OSError(f"{error}: set HOME or XDG_CACHE_HOME to a folder for the cache") from error


def expand(path: str | Path) -> Path:
    """Returns a path whose leading `~` or `~user` became that user's home folder, as in a shell.

    Raises:
        ValueError: There is no such home folder, and no file or folder of that very name.
    """
    expanded = Path(os.path.expanduser(path))
    if str(expanded).startswith("~") and not os.path.lexists(expanded):
        home = expanded.parts[0]
        raise ValueError(f"{path}: there is no home folder {home}; ./{path} is a path without one")
    return expanded


def write_text(path: str | Path, text: str) -> None:
    """Writes UTF-8 text, line ends unchanged, so that no reader ever sees half of it.

    What UTF-8 cannot encode, as in names of files in another encoding, is spelt as in JSON.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_bytes(path: str | Path, content: bytes) -> None:
    """Writes bytes so that no reader ever sees half of them, not even after a power failure."""
    with _open(path) as file:
        file.write(content)


@contextlib.contextmanager
def open_text(path: str | Path) -> Iterator[TextIO]:
    """Opens a file for UTF-8 text that is written piece by piece.

    Yields:
        The file; it takes its name only when the block ends without an error.
    """
    with _open(path) as file:
        text = io.TextIOWrapper(file, "utf-8", newline="")
        try:
            yield text
        finally:
            text.detach()  # which flushes its buffer


@contextlib.contextmanager
def _open(path: str | Path) -> Iterator[BinaryIO]:
    path = Path(path)
    # The name is unique: runs on several machines may write the same file at the same time.
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}{UNFINISHED}")
    try:
        with explain_write_errors(path, partial):
            make_folder(path.parent)
            with partial.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())  # or a power failure might leave a name without content
            os.replace(partial, path)
            sync(path.parent)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def sync(path: str | Path) -> None:
    """Writes a file's content, or the names in a folder, through to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def explain_write_errors(path: Path, *also: Path) -> Iterator[None]:
    """Turns an error of writing into a sentence that names the file and what to do.

    Args:
        path: The file that is written, or the folder with everything below it.
        also: Its other names. Errors of other files pass unchanged.

    Raises:
        OSError: The file could not be written.
    """
    try:
        yield
    except OSError as error:
        name = error.filename  # None for errors of writing itself
        concerned = name is None or Path(name) in also
        if not concerned:
            concerned = Path(name).is_relative_to(path) or path.is_relative_to(name)
        if error.errno is None or not concerned:
            raise
        raise OSError(
            f"{path} cannot be written ({error.strerror}): make room or see to its folder, and "
            "start again; what is there is whole"
        ) from error


def make_folder(directory: Path, advice: str = "make room or see to the folder above") -> None:
    """Creates a folder, and those above it, if it is missing.

    Raises:
        OSError: It cannot be created; `advice` is what a user can do.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"the folder {directory} cannot be made ({error.filename}: {error.strerror}): {advice}"
        ) from error


def check_writable(directory: str | Path, flag: str = "--workdir") -> None:
    """Creates a folder if it is missing, and checks that files can be written there.

    Raises:
        OSError: The folder cannot be created or written; `flag` is that which names another one.
    """
    make_folder(Path(directory), f"name another folder by {flag}")
    try:
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise OSError(
            f"{directory} cannot be written ({error.strerror}): name another folder by {flag}"
        ) from error


def remove_unfinished(directory: Path) -> None:
    """Removes files that killed processes left half-written; call it under the folder's lock."""
    for left in directory.glob(f"*{UNFINISHED}"):
        left.unlink(missing_ok=True)


def remove_abandoned(directory: Path) -> None:
    """Removes temporary folders of killed processes that are at least a day old.

    Younger ones may be in use: the user's cache is written without a lock.
    """
    for left in directory.glob(f"{tempfile.gettempprefix()}*"):
        with contextlib.suppress(OSError):  # another process may remove it too
            if left.is_dir() and time.time() - left.stat().st_mtime > ABANDONED:
                shutil.rmtree(left)


def write_json(path: str | Path, content: Mapping, sealed: bool = False) -> None:
    """Writes a strict, indented JSON object; `read_json` notices damage of a sealed one.

    Raises:
        ValueError: The content holds a NaN or an infinity.
    """
    content = seal(content) if sealed else content
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | Path) -> dict:
    """Reads a JSON object, and removes its seal.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file holds no JSON object, or is damaged.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are both of this kind.
        raise ValueError(f"{path} is not a JSON file, or a damaged one: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold an object of JSON")
    return unseal(path, content)


def seal(content: Mapping) -> dict:
    """Adds to a JSON object the field that reveals damage."""
    return {**content, CHECKSUM: _hash_of_fields(content)}


def unseal(path: str | Path, content: Mapping) -> dict:
    """Removes the field that `seal` adds; an object without this field is returned unchanged.

    Raises:
        ValueError: The object is not what was sealed.
    """
    content = dict(content)
    checksum = content.pop(CHECKSUM, None)
    if checksum not in (None, _hash_of_fields(content)):
        raise ValueError(
            f"{path} is damaged: it is not as it was written. Bring back a copy; or, if it was "
            f'changed by hand, take its field "{CHECKSUM}" out'
        )
    return content


def _hash_of_fields(content: Mapping) -> str:
    # JSON turns tuples into lists, and keys that are not text into text.
    text = json.dumps(json.loads(json.dumps(content)), sort_keys=True)
    return sha256(text.encode())


def sha256(content: bytes | Path) -> str:
    """Returns the SHA-256 of bytes or of a file, in hexadecimal digits."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_checksums(directory: Path, hashes: Mapping[str, str]) -> None:
    """Writes checksums.json: the `sha256` of each file, by its path below the folder."""
    write_json(directory / CHECKSUMS, {"sha256": dict(sorted(hashes.items()))}, sealed=True)


def find_damage(directory: Path) -> str:
    """Says which file of a folder is missing or damaged; returns "" if none is.

    A folder without checksums.json counts as whole: another program has filled it.
    """
    try:
        hashes = _read_checksums(directory)
    except ValueError as error:
        return str(error)
    for name, expected in hashes.items():
        path = directory / name
        if not path.is_file():
            return f"{path} is missing"
        if sha256(path) != expected:
            return f"{path} is damaged: it is not as it was written"
    return ""


def check_content(path: Path, content: bytes) -> bytes:
    """Checks bytes that were read from a file against its folder's checksums; returns them.

    Raises:
        ValueError: The file is damaged.
    """
    if _read_checksums(path.parent).get(path.name) not in (None, sha256(content)):
        raise ValueError(f"{path} is damaged: it is not as it was written. {ADVICE}")
    return content


def _read_checksums(directory: Path) -> dict[str, str]:
    try:
        return read_json(directory / CHECKSUMS).get("sha256", {})
    except FileNotFoundError:
        return {}


def path_text(path: str | Path) -> str:
    r"""Returns a path as text that UTF-8 can encode; other bytes are spelt out, as in `\xff`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def printable(text: str) -> str:
    r"""Returns text as one line for a terminal; control characters are spelt out, as in `\n`."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def files_below(folder: Path) -> tuple[list[Path], list[OSError]]:
    """Lists the files below a folder, at any depth, and the errors of unreadable folders.

    Hidden files and folders are left out. Links to folders are followed; a folder that is reached
    twice, through a circle of links for example, is read once. Broken links, pipes and devices
    count as files.
    """
    found, errors, seen = [], [], set()
    for root, folders, names in os.walk(folder, onerror=errors.append, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        # Programs leave hidden files, such as .DS_Store, .git or macOS' ._01.wav beside each 01.wav
        # of a copy, which holds no sound: nobody records into them.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(root, name) for name in names if not name.startswith(".")]
    return sorted(found), errors
