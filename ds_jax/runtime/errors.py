"""Errors as one sentence each, which says what is wrong and what to do."""

import contextlib
import difflib
import errno
import math
import os
import re
import sys
import traceback
from collections.abc import Collection, Iterable, Iterator
from numbers import Integral, Real

from absl import flags

PACKAGES = ("ds_jax", "datasets")
KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false"}


class ConfigError(ValueError):
    """A field of the config has a value that it cannot have.

    Attributes:
        field: The full name of the field, such as "picture.size".
        value: The value.
        allowed: The values that it can have, as a phrase after "must be".
    """

    def __init__(self, field: str, value: object, allowed: str):
        super().__init__(f"{field}={value!r} must be {allowed}")
        self.field, self.value, self.allowed = field, value, allowed


def one_of(values: Iterable[str]) -> str:
    """Returns the phrase for `ConfigError.allowed` that lists the allowed values."""
    return f"one of {', '.join(map(repr, values))}"


def check_choice(field: str, value: object, allowed: Collection) -> None:
    """Checks that a field of the config holds one of some values.

    Raises:
        ConfigError: It does not; the error names a value that is spelt alike.
    """
    if value not in list(allowed):  # a list, since a value need not be hashable
        near = difflib.get_close_matches(str(value).lower(), map(str, allowed), n=1)
        hint = f" (the nearest is {near[0]!r})" if near else ""
        raise ConfigError(field, value, one_of(allowed) + hint)


def check_number(field: str, value: object, kind: type, low: float, high: float) -> None:
    """Checks that a field of the config holds a finite number of a kind, int or float, in a range.

    Raises:
        ConfigError: It does not.
    """
    number = Integral if kind is int else Real
    valid = isinstance(value, number) and not isinstance(value, bool)
    if not (valid and low <= value <= high and abs(value) <= sys.float_info.max):
        limits = f"from {low} to {high}" if high < math.inf else f"of {low} or more"
        raise ConfigError(field, value, f"{KINDS[kind.__name__]} {limits}")


@contextlib.contextmanager
def naming(before: str, after: str = "") -> Iterator[None]:
    """Adds to the field that an error of a block names, such as "members.first." before it.

    Raises:
        ConfigError: The block raised one.
    """
    try:
        yield
    except ConfigError as error:
        raise ConfigError(before + error.field + after, error.value, error.allowed) from error


def number(text: str) -> float:
    """Returns the number that a text is; NaN if it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def first_line(error: Exception) -> str:
    """Returns the first line of what another library says, or the kind of its error."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def in_one_line(error: Exception) -> str:
    """Returns the message of an error, or its kind, without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


def sentence(error: Exception) -> str | None:
    """Returns the sentence that a user reads of an error; None for an unforeseen error."""
    if isinstance(error, flags.Error):
        return _flag_sentence(error)
    if "RESOURCE_EXHAUSTED" in str(error):  # a RuntimeError of JAX
        return (
            "a device's memory is full: end other programs that use it, or train with a lower "
            "--config.train.batch_size or --config.picture.size, in a --workdir of its own"
        )
    if isinstance(error, MemoryError):
        return "the machine's memory is full: end other programs, or give it fewer recordings"
    if isinstance(error, ModuleNotFoundError) and error.name.partition(".")[0] not in PACKAGES:
        return f"the package {error.name} is not installed: pip install -r requirements.txt"
    if isinstance(error, OSError) and error.strerror:
        place = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        if "temporary directory" in error.strerror:  # raised by tempfile
            return f"{error.strerror}: set TMPDIR to a folder that can be written"
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return f"{place}{error.strerror}" + (": free some space, then start again" if full else "")
    if isinstance(error, OSError) or _is_raised_here(error):
        return str(error) or type(error).__name__
    return None


def _is_raised_here(error: Exception) -> bool:
    """Returns whether this program raised an error, and no library."""
    if not isinstance(error, ValueError | FloatingPointError):
        return False
    names = [frame.f_globals["__name__"] for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(names) and names[-1].partition(".")[0] in PACKAGES


def _flag_sentence(error: flags.Error) -> str:
    """Returns the sentence for a flag that cannot be parsed."""
    if isinstance(error, flags.UnrecognizedFlagError):
        name = error.flagname.removeprefix("no") if error.flagname else ""
        near = difflib.get_close_matches(error.flagname, flags.FLAGS, n=1)
        near = near or difflib.get_close_matches(name, flags.FLAGS, n=1)
        hint = f"; the nearest is --{near[0]}" if near else ""
        return f"there is no flag --{error.flagname}{hint}; --help shows them"
    if wrong := re.match(r"flag --([^=]+)=(.*?): ", str(error), re.DOTALL):
        name, value = wrong.groups()
        parser = flags.FLAGS[name].parser
        if isinstance(parser, flags.EnumParser):
            values = parser.enum_values
            near = difflib.get_close_matches(value, values, n=1, cutoff=0.0)[0]
            return f"--{name}={value} is not one of {', '.join(values)}; the nearest is {near}"
        if kind := KINDS.get(parser.flag_type()):
            low = getattr(parser, "lower_bound", None)
            limits = "" if low is None else f" from {low} to {parser.upper_bound}"
            return f"--{name}={value} must be {kind}{limits}"
    if missing := re.fullmatch(r"Missing value for flag (\S+)", str(error)):
        return f"{missing[1]} needs a value: {missing[1]}=VALUE"
    return str(error)
