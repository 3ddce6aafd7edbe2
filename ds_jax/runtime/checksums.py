"""Checksums of the files in a folder, by which damage is told from what was written."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from ds_jax.runtime.files import read_json, write_json

FILE = "checksums.json"
ADVICE = "Run what has made it once more: what is whole is not done again"


def write(directory: Path, digests: Mapping[str, str]) -> None:
    """Writes checksums.json.

    Args:
        directory: The folder.
        digests: What `digest` gives of each file, by its name or its path below the folder.
    """
    write_json(directory / FILE, {"sha256": dict(sorted(digests.items()))}, sealed=True)


def digest(content: bytes | Path) -> str:
    """SHA-256 of bytes or of a file, in hexadecimal digits."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def damage(directory: Path) -> str:
    """Says which file is missing or is not as it was written; empty where all are.

    A folder without checksums.json is taken as it is: somebody else has filled it.
    """
    try:
        known = _read(directory)
    except ValueError as error:
        return str(error)
    for name, wanted in known.items():
        path = directory / name
        if not path.is_file():
            return f"{path} is missing"
        if digest(path) != wanted:
            return f"{path} is damaged: it is not as it was written"
    return ""


def check(path: Path, content: bytes) -> bytes:
    """Checks what was read of a file, and returns it.

    Raises:
        ValueError: It is not as it was written, going by the checksums in its folder.
    """
    if _read(path.parent).get(path.name) not in (None, digest(content)):
        raise ValueError(f"{path} is damaged: it is not as it was written. {ADVICE}")
    return content


def _read(directory: Path) -> dict[str, str]:
    try:
        return read_json(directory / FILE).get("sha256", {})
    except FileNotFoundError:
        return {}
