"""Names of files as text, whatever bytes they are made of, and the files below a folder."""

import os
from pathlib import Path


def shown(path: str | Path) -> str:
    r"""A path as text that can be written as UTF-8; a byte that is none is spelt, as in `\xff`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def printable(text: str) -> str:
    r"""Text as one line for a terminal: what would move the cursor is spelt, as in `\n`."""
    spelt = [c if c.isprintable() else c.encode("unicode_escape").decode() for c in text]
    return "".join(spelt)


def below(folder: Path) -> tuple[list[Path], list[OSError]]:
    """All that is no folder below a folder, at any depth, and the folders that cannot be read.

    Hidden files and folders are left out. Links to folders are followed; a folder that is reached
    twice, in a circle of links or otherwise, is taken once. Links that lead nowhere, pipes and
    devices are among the files.
    """
    found, errors, seen = [], [], set()
    for root, folders, files in os.walk(folder, onerror=errors.append, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(root, name) for name in files if not name.startswith(".")]
    return sorted(found), errors
