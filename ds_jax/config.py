"""The config of a run: its fields on the command line, and in the run's folder."""

import difflib
import json
import math
import runpy
import sys
import traceback
from collections.abc import Collection, Iterator, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import ml_collections
from absl import flags

from configs import base, paper
from ds_jax.runtime import checksums, errors, versions
from ds_jax.runtime.files import read_json, write_json
from ds_jax.runtime.workdir import CONFIG

CONFIGS = Path(__file__).parents[1] / "configs"
HELP = Path(__file__).with_name("cli_help.txt")
MODES = ("train", "evaluate", "predict", "features", "compare", "report", "export", "corpus")
# The modes in which a flag means something; flags that are not here do in all of them.
MODES_OF = {
    "fold": ("train",),
    "eval_on": ("evaluate",),
    "checkpoint": ("predict", "export"),
    "audio": ("train", "evaluate", "report"),
    "config": tuple(mode for mode in MODES if mode != "compare"),
    "workdir": tuple(mode for mode in MODES if mode != "features"),
    **dict.fromkeys(("corpora_dir", "data_dir"), ("train", "evaluate", "report", "corpus")),
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
# The smallest and the largest value of numbers that nothing else checks, by their last name.
RANGES = {
    **dict.fromkeys(("seed", "initialisation", "order", "dropout", "augmentation"), (0, 2**31 - 1)),
    "batch_size": (1, 1 << 16),
    **dict.fromkeys(("epochs", "plateau_patience", "stop_patience"), (1, 1_000_000)),
    **dict.fromkeys(("pretrained_learning_rate", "new_learning_rate"), (1e-12, 1.0)),
}
WANTED = {bool: "True or False", Integral: "a whole number", Real: "a number", str: "text"}
VERSIONS = "versions"  # what config.json holds besides fields: of the libraries, as the run began
WEIGHTS = "weights_sha256"  # likewise: of the file that `config.weights` names


def parse(arguments: list[str], default: str) -> list[str]:
    """Parses the flags, config fields included; a wrong one ends the program with one sentence.

    `--help` ends it too, with the text of `HELP`; `--helpfull` is absl's.

    Args:
        arguments: Of the command line.
        default: The config file where none is given.

    Returns:
        What stands there besides flags.
    """
    if {"-h", "--help", "-help"} & set(arguments):
        print(HELP.read_text(encoding="utf-8"), end="")
        sys.exit()
    try:
        check_arguments(arguments, default)
        given = _given_config(arguments) is not None
        if not given:
            arguments = [arguments[0], f"--config={default}", *arguments[1:]]
        rest = flags.FLAGS(arguments)
        flags.FLAGS["config"].present = int(given)
        return rest
    except flags.Error as error:
        sys.exit(f"error: {errors.of_flag(error)}")
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")


def check_arguments(arguments: Sequence[str], default: str) -> None:
    """Checks `--config=FILE` and `--config.x.y=VALUE` before they are parsed.

    Args:
        arguments: Of the command line.
        default: The config file where none is given.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: A field does not exist; the message names the nearest that does.
    """
    path = _given_config(arguments)
    fields = [f"config.{name}" for name, _ in _fields(load(default if path is None else path))]
    for argument in arguments:
        name = argument.lstrip("-").partition("=")[0]
        if argument.startswith("-") and name.startswith("config.") and name not in fields:
            nearest = difflib.get_close_matches(name, fields, n=1, cutoff=0.0)[0]
            raise ValueError(f"there is no field --{name}; the nearest is --{nearest}")


def _given_config(arguments: Sequence[str]) -> str | None:
    """The last `--config` of a command line, "" without a value; None where there is none."""
    path = None
    for index, argument in enumerate(arguments):
        name, given, value = argument.partition("=")
        if name in ("--config", "-config"):
            path = value if given else "".join(arguments[index + 1 : index + 2])
    return path


def load(path: str | Path) -> ml_collections.ConfigDict:
    """Reads a file of `configs/`.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: It defines no config.
    """
    if not str(path):
        raise ValueError("--config needs a file, such as --config=configs/ds_am_emodb.py")
    path = Path(path)
    if not path.is_file():
        names = [known.name for known in CONFIGS.glob("*.py")]
        near = difflib.get_close_matches(path.name, names, n=1)
        hint = f"; did you mean configs/{near[0]}?" if near else "; see configs/"
        raise FileNotFoundError(f"--config={path}: there is no such file{hint}")
    try:
        config = runpy.run_path(str(path))["get_config"]()
    except Exception as error:  # whatever Python finds in a user's file
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(path)]
        where = f", line {lines[-1]}" if lines else ""
        raise ValueError(
            f"--config={path}{where} is no config, which defines get_config(): "
            f"{type(error).__name__} {error}"
        ) from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise ValueError(f"--config={path} is no config: get_config() must return a ConfigDict")
    return config


def load_beside(file: Path, name: str) -> ml_collections.ConfigDict:
    """Reads the config of a name, such as "ds_am_elra", from the folder of another file."""
    return load(file.with_stem(name))


def of_mode(
    mode: str, given: ml_collections.ConfigDict, workdir: Path
) -> ml_collections.ConfigDict | None:
    """The config that a mode goes by: the one given, that of a run, or none of either.

    Raises:
        FileNotFoundError: There is no run in the workdir.
    """
    if mode in MODES_OF_FIELDS:
        return given
    return read(workdir) if mode in ("evaluate", "report") else None


def corpora(config: ml_collections.ConfigDict, mode: str, eval_on: str) -> dict[str, str]:
    """The corpora that a mode needs, by the flag or field that names them."""
    if mode == "evaluate" and eval_on:
        return {"--eval_on": eval_on}
    named = {field: config[field] for field in ("corpus", "elra", "emomatch") if field in config}
    if mode == "train" and config.system != "paper":
        named |= {f"eval_on={tuple(config.eval_on)}, of which": name for name in config.eval_on}
    return named


def check_flags(mode: str, given: Collection[str], paths: Sequence[Path], system: str) -> None:
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
        if str(paths[0]) in MODES:
            raise ValueError(f"'{paths[0]}' is no flag: write --mode={paths[0]}")
        raise ValueError(
            f"'{paths[0]}' is no flag; recordings belong to --mode=predict or --mode=features, and "
            "folders of runs to --mode=compare"
        )
    if system == "paper" and "fold" in given:
        raise ValueError("--fold is for one experiment, and the paper's tables are many")
    if system == "paper" and (mode == "corpus" or "audio" in given):
        what = "--mode=corpus" if mode == "corpus" else "--audio"
        raise ValueError(f"{what} is for one experiment, and the paper's tables are many")
    if mode == "predict" and {"checkpoint", "workdir"} <= set(given):
        raise ValueError(
            "--workdir does nothing in --mode=predict beside --checkpoint: leave it out"
        )
    for name in given:
        modes = MODES_OF_FIELDS if name.startswith("config.") else MODES_OF.get(name, (mode,))
        if mode not in modes:
            raise ValueError(
                f"--{name} is for --mode={' and --mode='.join(modes)} and does nothing in "
                f"--mode={mode}"
            )


def check(config: ml_collections.ConfigDict) -> None:
    """Checks that a config has the fields of its system, and what no constructor checks.

    Raises:
        ValueError: A field is missing or unknown, or has a wrong type or an impossible value.
    """
    check_fields(config, base.of_system(config.system))
    for name, value in _fields(config):
        low, high = RANGES.get(name.rpartition(".")[2], (-math.inf, math.inf))
        if isinstance(value, Real) and not low <= value <= high:
            raise ValueError(f"{name}={value!r} must be a number from {low} to {high}")
    for name, allowed in {"select_on": ("dev", "test"), "parallel": PARALLEL}.items():
        if name in config and config[name] not in allowed:
            options = ", ".join(map(repr, allowed))
            raise ValueError(f"{name}={config[name]!r} is not one of {options}")
    if config.folds.protocol == "whole_corpus" and config.corpus in config.eval_on:
        raise ValueError(
            f"eval_on={tuple(config.eval_on)} names {config.corpus!r}, on all of which "
            "folds.protocol='whole_corpus' trains: name other corpora"
        )


def check_paper(config: ml_collections.ConfigDict) -> None:
    """Checks that a config has the fields of configs/paper.py, with values of their types."""
    check_fields(config, paper.get_config())


def check_fields(config: ml_collections.ConfigDict, like: ml_collections.ConfigDict) -> None:
    """Checks that a config has the fields of another, with values of the same types.

    Raises:
        ValueError: The message names the field, its value and what is allowed.
    """
    found, wanted = dict(_fields(config)), dict(_fields(like))
    for name, value in found.items():
        if name not in wanted and (within := [one for one in wanted if one.startswith(f"{name}.")]):
            raise ValueError(f"{name}={value!r} must hold fields, such as {within[0]}")
    for name, like_value in wanted.items():
        start = f"{name}."
        if within := {
            one.removeprefix(start): found[one] for one in found if one.startswith(start)
        }:
            _check_type(name, within, like_value)  # fields where a value should be
        if name not in found:
            raise ValueError(
                f"{name} is missing, which system={config.system!r} needs: start from a config of "
                "this system"
            )
    for name, value in found.items():
        if name not in wanted:
            nearest = difflib.get_close_matches(name, wanted, n=1, cutoff=0.0)[0]
            raise ValueError(f"there is no field {name} (={value!r}); the nearest is {nearest}")
        _check_type(name, value, wanted[name])


def _check_type(name: str, value: Any, like: Any) -> None:
    if isinstance(like, tuple):
        # Of an empty one nothing is known but that all such hold names.
        kind = _kind(like[0] if like else "")
        if not isinstance(value, tuple | list) or not all(_is(one, kind) for one in value):
            raise ValueError(f"{name}={value!r} must be a tuple, of {WANTED[kind]} each")
    elif not _is(value, _kind(like)):
        raise ValueError(f"{name}={value!r} must be {WANTED[_kind(like)]}")


def _kind(like: Any) -> type:
    return next(kind for kind in WANTED if isinstance(like, kind))


def _is(value: Any, kind: type) -> bool:
    """Whether a value is of a kind; True is no number, and neither is infinity."""
    if kind in (Integral, Real) and (isinstance(value, bool) or not isinstance(value, Real)):
        return False
    return isinstance(value, kind) and (kind is not Real or math.isfinite(value))


def check_same(config: ml_collections.ConfigDict, workdir: Path) -> None:
    """Checks that a workdir holds this experiment, if it holds one.

    Raises:
        ValueError: It holds another; the message names the first field that differs.
    """
    if not (workdir / CONFIG).is_file():
        return
    if different := difference(read(workdir), config):
        raise ValueError(
            f"{workdir / CONFIG} is of another experiment: {different} now. Give this one a "
            "--workdir of its own."
        )


def difference(there: ml_collections.ConfigDict, here: ml_collections.ConfigDict) -> str:
    """Says in which field two configs differ first; empty if in none but `FREE_FIELDS`."""
    before, now = dict(_fields(_as_read(there))), dict(_fields(_as_read(here)))
    for name in sorted((set(before) | set(now)) - set(FREE_FIELDS)):
        if before.get(name) != now.get(name):
            return f"{name} is {before.get(name)!r} there and {now.get(name)!r}"
    return ""


def write(config: ml_collections.ConfigDict, workdir: Path) -> None:
    """Writes config.json: the fields, and the versions and weights that the run begins with."""
    content = _as_read(config).to_dict() | {VERSIONS: versions.current()}
    content |= {WEIGHTS: _digest_of_weights(config)}
    write_json(workdir / CONFIG, content, sealed=True)


def read(workdir: Path) -> ml_collections.ConfigDict:
    """Reads the config that a run was trained by.

    Raises:
        FileNotFoundError: There is no run in the folder.
        ValueError: The file is damaged.
    """
    content = _read(workdir)
    for name in (VERSIONS, WEIGHTS):
        content.pop(name, None)
    if "seeds" in content:  # of a run that is older than this seed, which changed nothing
        content["seeds"].setdefault("augmentation", content["seed"])
    return ml_collections.ConfigDict(content)


def changed_versions(workdir: Path) -> str:
    """Says which libraries have another version than when the run began; empty if none has."""
    return versions.difference(_read(workdir).get(VERSIONS, {}))


def check_weights(config: ml_collections.ConfigDict, workdir: Path) -> None:
    """Checks that a run goes on with the file of weights that it began with.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: It is another one.
    """
    before, now = _read(workdir).get(WEIGHTS), _digest_of_weights(config)
    if before not in (None, now):
        raise ValueError(
            f"weights={config.weights!r} is another file than the run in {workdir} began with: its "
            f"SHA-256 was {before} and is {now} now. Bring back that of then, or give this one a "
            "--workdir of its own."
        )


def _digest_of_weights(config: ml_collections.ConfigDict) -> str:
    """Of one's own file; empty without, since the published ones have hashes of their own."""
    path = config.get("weights")
    return checksums.digest(Path(path).expanduser()) if path else ""


def _read(workdir: Path) -> dict:
    path = workdir / CONFIG
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
