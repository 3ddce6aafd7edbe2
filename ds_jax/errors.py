"""How the program ends when something goes wrong: in one sentence that says the way out."""

import contextlib
import difflib
import errno
import gc
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from absl import flags

from ds_jax import paths

# Ended by Ctrl-C, and by whoever stopped reading the output, as a shell tells of it.
INTERRUPTED, UNREAD = 128 + 2, 128 + 13
PACKAGES = ("ds_jax", "datasets")
AGAIN = 0.1  # seconds after which an interrupt comes again that nobody could take
KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false"}


@contextlib.contextmanager
def told(goes_on: bool, debug: bool = False) -> Iterator[None]:
    """Ends the program with one sentence where a user can mend what went wrong.

    Errors that nobody foresaw pass with their traceback, for whoever mends the program.

    Args:
        goes_on: Whether the same command goes on where it was stopped.
        debug: Whether all errors pass.
    """
    handler = signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
        sys.stdout.flush()
    except KeyboardInterrupt:
        if debug:
            raise
        how = "goes on after the last epoch that was saved" if goes_on else "starts anew"
        print(f"\nstopped; the same command {how}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # it is flushed at exit
        sys.exit(UNREAD)
    except Exception as error:
        if debug or (said := sentence(error)) is None:
            raise
        # Names of files may be hostile.
        sys.exit("\n".join(paths.printable(line) for line in f"error: {said}".split("\n")))
    finally:
        signal.signal(signal.SIGINT, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raises KeyboardInterrupt, where it is not lost."""
    callbacks = {getattr(callback, "__code__", None) for callback in gc.callbacks}
    if frame is None or frame.f_code not in callbacks:
        raise KeyboardInterrupt
    # Python ignores what is raised while it collects garbage, and JAX has a callback there.
    threading.Timer(AGAIN, os.kill, (os.getpid(), number)).start()


def sentence(error: Exception) -> str | None:
    """What to tell a user of an error; None of one that nobody foresaw."""
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
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return f"{place}{error.strerror}" + (": free some space, then start again" if full else "")
    if isinstance(error, OSError) or _is_raised_here(error):
        return str(error)
    return None


def _is_raised_here(error: Exception) -> bool:
    """Whether this program made a sentence of it, and not a library, unforeseen."""
    if not isinstance(error, ValueError | FloatingPointError) or error.__traceback__ is None:
        return False
    place = error.__traceback__
    while place.tb_next:
        place = place.tb_next
    return place.tb_frame.f_globals["__name__"].partition(".")[0] in PACKAGES


def of_flag(error: flags.Error) -> str:
    """What to tell a user of a flag that cannot be parsed."""
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
            return f"--{name}={value} must be {kind}"
    if missing := re.fullmatch(r"Missing value for flag (\S+)", str(error)):
        return f"{missing[1]} needs a value: {missing[1]}=VALUE"
    return str(error)
