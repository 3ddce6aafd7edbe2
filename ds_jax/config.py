"""The config of a run: its fields on the command line, and in the run's folder."""

import argparse
import difflib
import json
import runpy
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ml_collections
from absl import app

from ds_jax import versions
from ds_jax.files import read_json, write_json

FILE = "config.json"
MODES = ("train", "evaluate", "predict", "features", "compare", "report", "export", "corpus")
# The modes in which a flag means something; flags that are not here do in all of them.
MODES_OF = {
    "fold": ("train",),
    "eval_on": ("evaluate",),
    "checkpoint": ("predict", "export"),
    "audio": ("train", "evaluate", "report"),
    "distributed": ("train", "evaluate"),
    **dict.fromkeys(("format", "window", "hop", "explain"), ("predict",)),
    **dict.fromkeys(("output", "labels"), ("features",)),
}
# In the others a run's own config.json rules.
MODES_OF_FIELDS = ("train", "features", "corpus")
MODES_OF_RECORDINGS = ("predict", "features")
# Folds on devices, see `devices.share`.
PARALLEL = ("auto", "folds", "batch")
# What may differ between two calls that share a workdir: it changes no fold.
FREE_FIELDS = ("eval_on", "parallel")
PATHS = ("weights", "folds.file")
VERSIONS = "versions"  # what config.json holds besides fields: of the libraries, as the run began


def parse(arguments: list[str], default: str) -> list[str]:
    """Parses the flags, config fields included; a wrong one ends the program with one sentence.

    Args:
        arguments: Of the command line.
        default: The config file where none is given.

    Returns:
        What stands there besides flags.
    """
    try:
        check_arguments(arguments, default)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    if not any(argument.partition("=")[0] in ("--config", "-config") for argument in arguments):
        arguments = [arguments[0], f"--config={default}", *arguments[1:]]
    return app.parse_flags_with_usage(arguments)


def check_arguments(arguments: Sequence[str], default: str) -> None:
    """Checks `--config=FILE` and `--config.x.y=VALUE` before they are parsed.

    Args:
        arguments: Of the command line.
        default: The config file where none is given.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: A field does not exist; the message names the nearest that does.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", default=default)
    path = parser.parse_known_args(arguments)[0].config
    fields = [f"config.{name}" for name, _ in _fields(load(path))]
    for argument in arguments:
        name = argument.lstrip("-").partition("=")[0]
        if argument.startswith("-") and name.startswith("config.") and name not in fields:
            nearest = difflib.get_close_matches(name, fields, n=1, cutoff=0.0)[0]
            raise ValueError(f"there is no field --{name}; the nearest is --{nearest}")


def load(path: str | Path) -> ml_collections.ConfigDict:
    """Reads a file of `configs/`.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: It defines no config.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"--config={path}: there is no such file; see configs/")
    try:
        return runpy.run_path(str(path))["get_config"]()
    except (KeyError, SyntaxError) as error:
        raise ValueError(f"--config={path} is no config: it defines no get_config()") from error


def check_flags(mode: str, given: Iterable[str], paths: Sequence[Path], system: str) -> None:
    """Refuses what belongs to another mode; a run's own config.json rules once it is trained.

    Args:
        mode: The value of --mode.
        given: Names of the flags on the command line.
        paths: What stands there besides flags.
        system: Of the config.

    Raises:
        ValueError: A flag or a path belongs to another mode.
    """
    if paths and mode not in (*MODES_OF_RECORDINGS, "compare"):
        raise ValueError(
            f"'{paths[0]}' is no flag; recordings belong to --mode=predict or --mode=features, and "
            "folders of runs to --mode=compare"
        )
    if system == "paper" and "fold" in given:
        raise ValueError("--fold is for one experiment, and the paper's tables are many")
    if system == "paper" and (mode == "corpus" or "audio" in given):
        what = "--mode=corpus" if mode == "corpus" else "--audio"
        raise ValueError(f"{what} is for one experiment, and the paper's tables are many")
    for name in given:
        modes = MODES_OF_FIELDS if name.startswith("config.") else MODES_OF.get(name, (mode,))
        if mode not in modes:
            raise ValueError(
                f"--{name} is for --mode={' and --mode='.join(modes)} and does nothing in "
                f"--mode={mode}"
            )


def check(config: ml_collections.ConfigDict) -> None:
    """Checks what no constructor checks.

    Raises:
        ValueError: A field has an impossible value.
    """
    if config.select_on not in ("dev", "test"):
        raise ValueError(f"select_on={config.select_on!r} is not one of 'dev', 'test'")
    if config.get("parallel", "auto") not in PARALLEL:
        raise ValueError(
            f"parallel={config.parallel!r} is not one of {', '.join(map(repr, PARALLEL))}"
        )
    if config.seed < 0:
        raise ValueError(f"seed={config.seed} must not be negative")
    for name, value in config.get("seeds", {}).items():
        if value < 0:
            raise ValueError(f"seeds.{name}={value} must not be negative")
    for name, value in config.get("train", {}).items():
        if not value > 0:
            raise ValueError(f"train.{name}={value} must be above 0")


def check_same(config: ml_collections.ConfigDict, workdir: Path) -> None:
    """Checks that a workdir holds this experiment, if it holds one.

    Raises:
        ValueError: It holds another; the message names the first field that differs.
    """
    if not (workdir / FILE).is_file():
        return
    before, now = dict(_fields(read(workdir))), dict(_fields(_as_read(config)))
    for name in sorted((set(before) | set(now)) - set(FREE_FIELDS)):
        if before.get(name) != now.get(name):
            raise ValueError(
                f"{workdir / FILE} is of another experiment: {name} is {before.get(name)!r} there "
                f"and {now.get(name)!r} now. Give this one a --workdir of its own."
            )


def write(config: ml_collections.ConfigDict, workdir: Path) -> None:
    """Writes config.json: the fields, and the versions that the run begins with."""
    content = _as_read(config).to_dict() | {VERSIONS: versions.current()}
    write_json(workdir / FILE, content, sealed=True)


def read(workdir: Path) -> ml_collections.ConfigDict:
    """Reads the config that a run was trained by.

    Raises:
        FileNotFoundError: There is no run in the folder.
        ValueError: The file is damaged.
    """
    content = _read(workdir)
    content.pop(VERSIONS, None)
    return ml_collections.ConfigDict(content)


def changed_versions(workdir: Path) -> str:
    """Says which libraries have another version than when the run began; empty if none has."""
    return versions.difference(_read(workdir).get(VERSIONS, {}))


def _read(workdir: Path) -> dict:
    path = workdir / FILE
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}: train first, or name the run by --workdir")
    return read_json(path)


def described(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """`x.y` and its value for every field, as a report may tell them: files by their names."""
    fields = dict(_fields(_as_read(config)))
    return fields | {name: Path(fields[name]).name for name in PATHS if fields.get(name)}


def chosen_folds(text: str) -> list[int] | None:
    """Reads `3` or `0-4`; None, which is all folds, from an empty text.

    Raises:
        ValueError: The text is neither.
    """
    if not text:
        return None
    first, _, last = text.partition("-")
    if not first.isdecimal() or not (last or first).isdecimal() or int(last or first) < int(first):
        raise ValueError(f"--fold={text}: give a number such as 3, or a range such as 0-4")
    return list(range(int(first), int(last or first) + 1))


def _as_read(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The config as `read` gives it: JSON has lists and no tuples."""
    return ml_collections.ConfigDict(json.loads(json.dumps(config.to_dict())))


def _fields(config: ml_collections.ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields `x.y` and its value for every field that holds no fields."""
    for name, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            yield from _fields(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
