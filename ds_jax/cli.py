"""The command line: its flags' rules, the fields of a config on it, --help and --version."""

import os
import re
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from absl import flags

from ds_jax import config as configuration
from ds_jax.runtime import shutdown, versions

HELP = Path(__file__).with_name("cli_help.txt")
# What each mode takes; "config." are the fields of --config. Flags that are not here, such as
# --debug, go with every mode. Without "config.", the config of the run itself holds.
_RUN = ("config", "workdir", "corpora_dir", "data_dir")
MODES = {
    "train": (*_RUN, "config.", "fold", "audio", "figures", "distributed"),
    "evaluate": (*_RUN, "eval_on", "channel", "raw_rate", "audio", "figures", "distributed"),
    "predict": (
        "config",
        "workdir",
        "checkpoint",
        "format",
        "window",
        "hop",
        "explain",
        "enrol",
        "channel",
        "raw_rate",
    ),
    "serve": ("config", "workdir", "checkpoint", "channel", "enrol", "host", "port", "name"),
    "features": ("config", "config.", "output", "labels"),
    "compare": ("workdir", "figures"),
    "report": (*_RUN, "audio", "figures"),
    "export": ("config", "workdir", "checkpoint", "format"),
    "corpus": (*_RUN, "config.", "audio"),
}
# The modes that take recordings or runs besides flags.
MODES_WITH_PATHS = ("predict", "features", "compare")
# What --format can be, by mode; the first if it is not given.
FORMATS = {"predict": ("table", "csv", "json"), "export": ("stablehlo", "onnx")}


def parse(arguments: Sequence[str], default: str) -> list[str]:
    """Parses the command line into absl's flags; a mistake ends the program with one sentence.

    --help and --version end it too; --helpfull is absl's.

    Args:
        arguments: The command line, the program's name first.
        default: The config file if --config is not given.

    Returns:
        The program's name, and the arguments that are no flags.
    """
    if {"-h", "--help", "-help"} & {*arguments}:
        print(HELP.read_text(encoding="utf-8"), end="")
        sys.exit()
    if {"--version", "-version"} & {*arguments}:
        print(f"ds_jax {versions.program()}")
        sys.exit()
    with shutdown.exits_cleanly(resumes=False):
        try:
            os.getcwd()
        except FileNotFoundError as error:
            raise FileNotFoundError("the current folder is gone: change to another one") from error
        arguments = _expand_config_file(arguments)
        path = _config_file(arguments)
        check_config(arguments, default if path is None else path)
        if path is None:
            arguments = [arguments[0], f"--config={default}", *arguments[1:]]
        rest = flags.FLAGS(arguments)
        flags.FLAGS["config"].present = int(path is not None)
    return rest


def check_config(arguments: Sequence[str], path: str) -> None:
    """Checks the config file, and that it has the fields that the command line changes.

    Args:
        arguments: The command line.
        path: The config file.

    Raises:
        ConfigError: A field does not exist.
        FileNotFoundError: The config file does not exist.
        ValueError: The config file fails, or defines no config.
    """
    if not path:
        raise ValueError("--config needs a file, such as --config=configs/ds_am_emodb.py")
    names = configuration.flatten(configuration.load(path))
    for argument in arguments:
        given = re.match(r"--?(?:no)?config\.([^=]+)=?(.*)", argument, re.DOTALL)
        if given and given[1] not in names:
            raise configuration.unknown_field(*given.groups(), names)


def _expand_config_file(arguments: Sequence[str]) -> list[str]:
    """Puts the home folder for the ~ of --config=~/FILE, which shells leave as it is."""
    expanded, names = [], ("--config", "-config")
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name in names:
            argument = name + equals + os.path.expanduser(value)
        elif expanded and expanded[-1] in names:
            argument = os.path.expanduser(argument)
        expanded.append(argument)
    return expanded


def _config_file(arguments: Sequence[str]) -> str | None:
    """Returns the last --config of a command line, "" if it has no value; None without any."""
    path = None
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, equals, value = argument.partition("=")
        if name in ("--config", "-config"):
            path = value if equals else following
    return path


def given_flags() -> list[str]:
    """Returns the names of the flags on the command line."""
    return [name for name in flags.FLAGS if flags.FLAGS[name].present]


def check_flags(mode: str, names: Collection[str], paths: Sequence[Path], many: bool) -> None:
    """Checks that a mode takes the flags and paths of the command line.

    Args:
        mode: The value of --mode.
        names: The flags on the command line.
        paths: The arguments that are no flags.
        many: Whether the config is of many experiments, as that of the paper's tables is.

    Raises:
        ValueError: A flag or a path belongs to another mode.
    """
    if paths and mode not in MODES_WITH_PATHS:
        if str(paths[0]) in MODES:
            raise ValueError(f"'{paths[0]}' is no flag: write --mode={paths[0]}")
        raise ValueError(
            f"'{paths[0]}' is no flag; recordings belong to --mode=predict or --mode=features, and "
            "folders of runs to --mode=compare"
        )
    if many:
        single = [f"--{name}" for name in ("fold", "audio") if name in names]
        single += ["--mode=corpus"] if mode == "corpus" else []
        if single:
            raise ValueError(f"{single[0]} is for one experiment, and this config is of many")
    elif mode == "train" and "figures" in names:
        raise ValueError(
            "--figures is for --mode=report, which draws the figures of a finished run, and does "
            "nothing in --mode=train of one experiment"
        )
    if mode in ("predict", "serve") and {"checkpoint", "workdir"} <= {*names}:
        raise ValueError(f"--workdir does nothing in --mode={mode} with --checkpoint: leave it out")
    if mode in ("predict", "serve", "export") and {"checkpoint", "config"} <= {*names}:
        raise ValueError(f"--config does nothing in --mode={mode} with --checkpoint: leave it out")
    for name in names:
        flag = "config." if name.startswith("config.") else name
        modes = [mode for mode, taken in MODES.items() if flag in taken]
        if modes and mode not in modes:
            raise ValueError(
                f"--{name} is for --mode={' and --mode='.join(modes)} and does nothing in "
                f"--mode={mode}"
            )


def choose_format(mode: str, given: str | None) -> str:
    """Returns the format of a mode's output, if it has one.

    Args:
        mode: The value of --mode.
        given: The value of --format; None if it is not given.

    Raises:
        ValueError: It belongs to another mode.
    """
    allowed = FORMATS.get(mode, ("",))
    if given is not None and given not in allowed:
        raise ValueError(f"--format={given}: --mode={mode} writes {' or '.join(allowed)}")
    return given or allowed[0]


def parse_folds(text: str) -> list[int] | None:
    """Parses the numbers of folds: `3`, `0-4` or `0,2`; "" means all folds, and gives None.

    Raises:
        ValueError: The text is none of these.
    """
    numbers = set()
    for part in text.split(",") if text else ():
        limits = re.fullmatch(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", part)
        first, last = (int(limits[1]), int(limits[2] or limits[1])) if limits else (1, 0)
        if first > last:
            raise ValueError(f"--fold={text}: give numbers such as 3, 0-4 or 0,2")
        numbers.update(range(first, last + 1))
    return sorted(numbers) if text else None
