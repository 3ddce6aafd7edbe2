"""The config of a run: reads, checks, compares and writes it."""

import difflib
import json
import re
import runpy
import sys
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from ds_jax.runtime import files, versions
from ds_jax.runtime.errors import ConfigError, check_choice, naming
from ds_jax.runtime.workdir import CONFIG

# Two calls that share a workdir may differ in these: they change no fold, or not its beginning.
EPOCHS = "train.epochs"
MODEL = "embeddings.model"  # of which embeddings.sha256 says which it is, wherever it lies
FREE_FIELDS = ("eval_on", "parallel", EPOCHS, MODEL)
PUBLISHED = Path(__file__).parents[1] / "configs"  # which is only read, and named, as files
# Fields that name files, and what config.json calls the SHA-256 of the content: a run goes on where
# its files lie elsewhere, and not with others.
PATHS = {"weights": "weights_sha256", "folds.file": "folds_sha256"}
KINDS = {bool: "True or False", int: "a whole number", float: "a finite number", str: "text"}
# The fields that a run of an earlier version lacks, with the values that it had.
OLDER = {
    "classes": ["ANGER", "DISGUST", "FEAR", "JOY", "NEUTRAL", "SADNESS", "SURPRISE"],
    **{name: [] for name in ("label_map", "variants", "auxiliary")},
    "trim": 0.0,
    "channel": "mix",
    "raw_rate": 16_000,
    "adapt": "none",
}
# What config.json records of the run's beginning, besides the fields.
VERSIONS, BEGAN, COMMAND = "versions", "began", "command"
RECORDED = (VERSIONS, BEGAN, COMMAND, *PATHS.values())


def is_scheduled(train: Mapping) -> bool:
    """Tells whether the fields of `config.train` are those of a fixed number of epochs."""
    return "plateau_patience" not in train


def adapts(config: Mapping) -> bool:
    """Tells whether a system standardises by each speaker's own recordings, see `enrolment`."""
    return config.get("adapt", OLDER["adapt"]) == "speaker"


def last_member(config: ConfigDict) -> ConfigDict:
    """Returns the config whose inputs a report shows: of an ensemble that of its last member."""
    while "members" in config:
        config = [*config.members.values()][-1]
    return config


def experiments(config: ConfigDict) -> Iterator[ConfigDict]:
    """Yields a config and, of an ensemble, those of all its members."""
    yield config
    for member in config.get("members", {}).values():
        yield from experiments(member)


def load(path: str | Path) -> ConfigDict:
    """Runs a Python file that defines `get_config()`, such as those in configs/.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file fails, or defines no config.
    """
    path = Path(path)
    if not path.is_file():
        folders = PUBLISHED, Path("configs"), path.parent
        known = {file.name: file for folder in folders for file in folder.glob("*.py")}
        near = difflib.get_close_matches(path.name, known, n=1)
        hint = f"did you mean {known[near[0]]}?" if near else f"see {PUBLISHED}"
        raise FileNotFoundError(f"--config={path}: there is no such file; {hint}")
    try:
        config = runpy.run_path(str(path))["get_config"]()
    except Exception as error:  # the file is a user's program, which may fail in any way
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(path)]
        line = f", line {lines[-1]}" if lines else ""
        raise ValueError(
            f"--config={path}{line} is no config, which defines get_config(): "
            f"{type(error).__name__} {error}"
        ) from error
    if not isinstance(config, ConfigDict):
        raise ValueError(f"--config={path} is no config: get_config() must return a ConfigDict")
    return config


def check_fields(config: ConfigDict, schemas: Mapping[str, Callable[[], ConfigDict]]) -> None:
    """Checks that a config has the fields of its system, with values of the same types.

    ConfigDict's own type safety accepts None for any field, True for a number, and a NaN.

    Args:
        config: The config.
        schemas: For each system a function that returns its fields, each with a valid value.

    Raises:
        ConfigError: A field is missing or unknown, or its value has another type.
    """
    check_choice("system", config.get("system"), schemas)
    schema = schemas[config.system]()
    values = config.to_dict()
    example, inner = schema.to_dict(), {}  # configs of systems of their own
    if "members" in example:
        inner = {f"members.{name}": member for name, member in config.members.items()}
    if "rows" in example:
        for name, row in config.rows.items():
            if "experiment" not in row:
                raise ConfigError(f"rows.{name}.experiment", None, "a config of one experiment")
            inner[f"rows.{name}.experiment"] = row.experiment
            del values["rows"][name]["experiment"]
        example["rows"] = {name: {"title": "", "after": ""} for name in values["rows"]}
        (folds, *_) = example["corpora"].values()
        example["corpora"] = dict.fromkeys(values["corpora"], folds)
    for content in (values, example):
        content.pop("members", None)
    _check_group("", values, example, list(flatten(schema)))  # first, since members share some
    for group, experiment in inner.items():
        with naming(f"{group}."):
            check_fields(experiment, schemas)


def unknown_field(name: str, value: object, names: Collection[str]) -> ConfigError:
    """Returns the error of a field that is none of those of a config; it names the nearest."""
    (near,) = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
    return ConfigError(name, value, f"left out: there is no such field; the nearest is {near}")


def _check_group(
    group: str, values: Mapping[str, Any], schema: Mapping[str, Any], names: Collection[str]
) -> None:
    for key in {**values, **schema}:  # a misspelt name before the one that is missing
        name = group + key
        if key not in schema:
            raise unknown_field(name, values[key], names)
        if key not in values:
            raise ConfigError(name, None, "given: start from a config of the same system")
        value, example = values[key], schema[key]
        if not _fits(value, example):
            raise ConfigError(name, value, _kind(name, example))
        if isinstance(example, dict):
            _check_group(f"{name}.", value, example, names)


def _fits(value: Any, example: Any) -> bool:
    """Returns whether a value has the type of an example; True is no number, neither is NaN."""
    if isinstance(value, bool):
        return isinstance(example, bool)
    if isinstance(example, tuple):  # JSON has lists instead; an empty one may hold names
        element = example[0] if example else ""
        return isinstance(value, tuple | list) and all(_fits(part, element) for part in value)
    if isinstance(example, float):
        return isinstance(value, int | float) and abs(value) <= sys.float_info.max
    return isinstance(value, type(example))


def _kind(name: str, example: Any) -> str:
    """Returns the phrase for the type of an example."""
    if isinstance(example, dict):
        return f"a group of fields, such as {name}.{next(iter(example))}"
    if isinstance(example, tuple):
        return f"a tuple, of {KINDS[type(example[0] if example else '')]} each"
    return KINDS[type(example)]


def expand_paths(config: ConfigDict) -> None:
    """Makes the paths in a config and its members absolute, so that they hold in any folder.

    Raises:
        ValueError: A path begins with a `~` that is no home folder.
    """
    for experiment in experiments(config):
        values = flatten(experiment)
        for name in (*PATHS, MODEL):
            value = values.get(name)
            if value and (name != MODEL or _is_path(value)):
                path = str(files.expand(value).absolute())
                experiment.update_from_flattened_dict({name: path})


def _is_path(model: str) -> bool:
    """Tells whether a model is named by a path; other names are those of the Hugging Face Hub."""
    return model.startswith((".", "/", "~")) or files.expand(model).exists()


def check_same(config: ConfigDict, workdir: Path) -> None:
    """Checks that a workdir holds this experiment, maybe with fewer epochs, or none yet.

    Raises:
        ValueError: The workdir holds another; the message names the first field that differs.
    """
    if not (workdir / CONFIG).is_file():
        return
    before = read(workdir)
    epochs = flatten(before)
    for name, wanted in flatten(config).items():
        if _own_name(name) == EPOCHS and wanted < epochs.get(name, wanted):
            raise ValueError(
                f"{workdir / CONFIG} has {name}={epochs[name]}, and now it is {wanted}: a run may "
                "be given more epochs, not fewer. Give this one a --workdir of its own."
            )
    if different := difference(before, config):
        raise ValueError(
            f"{workdir / CONFIG} is of another experiment: {different} now. Give this one a "
            "--workdir of its own."
        )


def has_grown(config: ConfigDict, workdir: Path) -> bool:
    """Returns whether a config has more epochs than the run in a workdir, if there is one."""
    before = flatten(read(workdir)) if (workdir / CONFIG).is_file() else {}
    return flatten(config).get(EPOCHS, 0) > before.get(EPOCHS, float("inf"))


def difference(before: ConfigDict, now: ConfigDict) -> str:
    """Describes the first field in which two configs differ; returns "" if all are the same.

    `FREE_FIELDS` and `PATHS` may differ, but not the epochs of a schedule, which make the rate of
    each step. The description ends where its reader adds the place of `now`.
    """
    first, second = (
        flatten(ConfigDict(complete(_with_lists(config).to_dict()))) for config in (before, now)
    )
    for name in sorted({*first, *second}):
        own = _own_name(name)
        free = own != EPOCHS or f"{name.removesuffix('epochs')}plateau_patience" in second
        if own in {*FREE_FIELDS, *PATHS} and free:
            continue
        if first.get(name) != second.get(name):
            return f"{name} is {first.get(name)!r} there and {second.get(name)!r}"
    return ""


def _own_name(name: str) -> str:
    """Returns what a field is called in the config of the member of an ensemble that has it."""
    return re.sub(r"^(members\.[^.]+\.)+", "", name)


def write(config: ConfigDict, workdir: Path) -> None:
    """Writes config.json: the fields, and what is recorded of the call that the run begins with.

    The record of a run that is given more epochs stays, but for the command, which is the latest.
    """
    record = versions.this_call() | _hashes(config)
    if (workdir / CONFIG).is_file():
        record |= {**recorded(workdir), COMMAND: record[COMMAND]}
    files.write_json(workdir / CONFIG, _with_lists(config).to_dict() | record, sealed=True)


def read(workdir: Path) -> ConfigDict:
    """Reads the config that a run was trained by.

    Raises:
        FileNotFoundError: There is no run in the folder.
        ValueError: The file is damaged.
    """
    content = complete(_read_json(workdir))
    return ConfigDict({name: v for name, v in content.items() if name not in RECORDED})


def complete(content: dict[str, Any]) -> dict[str, Any]:
    """Adds the fields that the config of an earlier version's run or model lacks, as they were."""
    content = OLDER | content
    if "seeds" in content:
        content["seeds"] = {"augmentation": content["seed"]} | content["seeds"]
    if "features" in content:
        none = {"model": "", "layer": 0, "sha256": "", "size": 0}
        content["embeddings"] = none | content.get("embeddings", {})
    if content.get("system") == "ds_am_statistics":
        content["generate"] = {"share": 0.0, "steps": 1000} | content.get("generate", {})
        content["seeds"] = {"generation": content["seed"]} | content["seeds"]
        older = {"mixup": 0.0, "least_share": 0.6, "most_hidden": 0.3}
        content["train"] = older | content["train"]
    if isinstance(content.get("picture"), dict):
        content["picture"] = {"subtract_band_means": False} | content["picture"]
        if isinstance(content.get("model"), dict):
            content["model"] = {"backbone": "vgg16"} | content["model"]
    if "members" in content:
        members = {name: complete(member) for name, member in content["members"].items()}
        content = {"merging": "mean", "emphasis": ""} | content | {"members": members}
    return content


def recorded(workdir: Path) -> dict[str, Any]:
    """Returns what config.json records of the run's beginning; older runs lack some of it.

    Raises:
        FileNotFoundError, ValueError: As `read`.
    """
    return {name: value for name, value in _read_json(workdir).items() if name in RECORDED}


def check_files(config: ConfigDict, workdir: Path) -> None:
    """Checks that a run goes on with the files that it began with, wherever they lie now.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: It is another one.
    """
    before, now = _read_json(workdir), _hashes(config)
    for field, name in PATHS.items():
        if before.get(name) not in (None, now[name]):  # older runs lack some
            raise ValueError(
                f"{field}={flatten(config).get(field)!r} is another file than the run in {workdir} "
                f"began with: its SHA-256 was {before[name] or 'of no file'} and is "
                f"{now[name] or 'of no file'} now. Bring back the first file, or give this "
                "experiment a --workdir of its own."
            )


def _hashes(config: ConfigDict) -> dict[str, str]:
    """Returns the hashes of a user's files; "" without one: published files have known hashes."""
    values = flatten(config)
    return {
        name: files.sha256(Path(path).expanduser()) if (path := values.get(field)) else ""
        for field, name in PATHS.items()
    }


def _read_json(workdir: Path) -> dict:
    path = workdir / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}: train first, or name the run by --workdir")
    return files.read_json(path)


def public(config: ConfigDict) -> ConfigDict:
    """Returns a config for readers elsewhere: the files that it names are without their folders."""
    shown = _with_lists(config)
    for name, value in flatten(shown).items():
        own = _own_name(name)
        if own in PATHS or (own == MODEL and Path(value).is_absolute()):
            shown.update_from_flattened_dict({name: Path(value).name})
    return shown


def describe(config: ConfigDict) -> dict[str, Any]:
    """Returns each field by its full name for a report, as `public` shows it."""
    return flatten(public(config))


def flatten(config: ConfigDict, group: str = "") -> dict[str, Any]:
    """Returns the value of each field by its full name, such as "picture.size"."""
    values = {}
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            values |= flatten(value, f"{group}{name}.")
        else:
            values[group + name] = value
    return values


def _with_lists(config: ConfigDict) -> ConfigDict:
    """Returns a config as `read` does: JSON has lists and no tuples."""
    return ConfigDict(json.loads(json.dumps(config.to_dict())))
