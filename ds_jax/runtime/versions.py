"""What a run records as it begins: the versions of its libraries, the time and the command."""

import datetime
import platform
import shlex
import sys
import tomllib
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path

from ds_jax.runtime.files import path_text

# Their next versions may round differently or draw other random numbers.
LIBRARIES = (
    *("jax", "jaxlib", "flax", "optax", "numpy", "scipy", "scikit-learn"),
    *("xgboost-cpu", "xgboost", "librosa", "opensmile", "soundfile", "soxr"),
    *("torch", "transformers", "keras"),
)


def program() -> str:
    """Returns the version of this program: that of the installed package, else of the checkout."""
    if version := _installed("ds_jax"):
        return version
    with (Path(__file__).parents[2] / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)["project"]["version"]


def current() -> dict[str, str]:
    """Returns the versions in use, by name; a library that is not installed is left out."""
    libraries = {name: version for name in LIBRARIES if (version := _installed(name))}
    return {"ds_jax": program(), "python": platform.python_version()} | libraries


def this_call() -> dict:
    """Returns the facts of this call of the program: `versions`, `began` and `command`.

    `began` is the time now, with its zone, to the second.
    """
    began = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    command = path_text(join_words(["python", *sys.argv]))
    return {"versions": current(), "began": began, "command": command}


def join_words(words: Iterable[str]) -> str:
    """Joins words to a shell command; double quotes hold a word with single ones where they can.

    So `--config.only="('statistics',)"` stays readable. `shlex.split` undoes it.
    """
    needs_single = set('"$`\\!')
    return " ".join(
        f'"{word}"' if "'" in word and not needs_single & {*word} else shlex.quote(word)
        for word in words
    )


def difference(before: Mapping[str, str]) -> str:
    """Lists the versions that have changed; returns "" if none has."""
    now = current()
    changed = [
        f"{name} {before.get(name, 'none')}, now {now.get(name, 'none')}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]
    return "; ".join(changed)


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
