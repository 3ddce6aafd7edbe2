"""Finds a user's recordings, and draws them or computes their features on all cores.

However many and however long the recordings are, only a few of them are in memory.
"""

import collections
import contextlib
import glob
import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import joblib
import numpy as np

from ds_jax.features import audio, extract, remarks
from ds_jax.features.remarks import Heard, Remark
from ds_jax.features.source import SUFFIXES
from ds_jax.runtime import progress
from ds_jax.runtime.files import explain_write_errors, files_below, path_text, printable
from ds_jax.runtime.progress import few

STANDARD_INPUT = "-"
CHUNK = 16  # windows of a recording that a thread represents before it passes them on

Paths = str | os.PathLike | Iterable[str | os.PathLike]
Answer = TypeVar("Answer")


class Recording(NamedTuple):
    """A recording that was found.

    Attributes:
        path: The file.
        folder: The given folder that holds it, or the folder of a file that was given by name.
        title: Its name in messages and results.
    """

    path: Path
    folder: Path
    title: str


class Window(NamedTuple):
    """A part of a recording, or all of it.

    Attributes:
        recording: The recording.
        seconds: The length of the whole recording.
        start: Seconds.
        end: Seconds.
        rate: The rate in Hz at which it was read.
        represented: A picture, features or samples.
    """

    recording: Recording
    seconds: float
    start: float
    end: float
    rate: int
    represented: np.ndarray

    @property
    def times(self) -> dict[str, str | float]:
        """The fields with which every record of a window begins; times are in seconds."""
        start, end = round(self.start, 6), round(self.end, 6)
        return {"recording": self.recording.title, "start": start, "end": end}


class Unusable(NamedTuple):
    """An argument, a recording or a part of one that cannot be used.

    Attributes:
        title: Its name.
        reason: A sentence that contains the name.
    """

    title: str
    reason: str


# What is read of a recording: windows of it, what of it cannot be used, and remarks on its title.
Item = Window | Unusable | tuple[Remark, str]


def find(arguments: Paths) -> tuple[list[Recording], list[Unusable]]:
    """Finds the recordings that the arguments of a command line name.

    An argument is a file of any name; a folder, whose files with one of `SUFFIXES` are taken at any
    depth, in the order of their paths and without hidden ones; a pattern such as "*/anger/*.wav"
    (`**` is any depth), whose matches are taken likewise; or "-". A note is printed about the other
    files of folders.

    Returns:
        The recordings in the given order, and the arguments that lead to none.
    """
    found, unusable, others = [], [], []
    if isinstance(arguments, str | os.PathLike):  # a caller in Python has a single one
        arguments = [arguments]
    for argument in map(os.path.expanduser, map(str, arguments)):
        if argument == STANDARD_INPUT:
            found.append(Recording(Path(argument), Path(), argument))
            continue
        exists = os.path.lexists(argument)
        matches = [argument] if exists else sorted(glob.glob(argument, recursive=True))
        count = len(found)
        for match in map(Path, matches):
            if not match.is_dir():
                found.append(Recording(match, match.parent, path_text(match)))
                continue
            paths, errors = files_below(match)
            for path in paths:
                if path.name.lower().endswith(SUFFIXES):
                    found.append(Recording(path, match, path_text(path)))
                else:
                    others.append(path)
            for error in errors:
                title = path_text(error.filename)
                unusable.append(Unusable(title, f"{title} cannot be read: {error.strerror}"))
        if len(found) == count:
            title = path_text(argument)
            unusable.append(Unusable(title, f"{title}{_why_empty(argument, matches)}"))
    taken = {recording.path for recording in found}
    if others := [path for path in dict.fromkeys(others) if path not in taken]:
        progress.say(_describe_others(others))
    return found, unusable


@contextlib.contextmanager
def standard_input(recordings: Sequence[Recording]) -> Iterator[list[Recording]]:
    """Keeps the bytes of standard input in a file while the block runs.

    Yields:
        The recordings; "-" has the path of that file.

    Raises:
        ValueError: "-" is among the recordings more than once.
    """
    titles = [recording.title for recording in recordings]
    if titles.count(STANDARD_INPUT) > 1:
        raise ValueError("'-' was given more than once: standard input can be read only once")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "standard_input"
        if STANDARD_INPUT in titles:
            with explain_write_errors(path), path.open("wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file)
        yield [
            recording._replace(path=path) if recording.title == STANDARD_INPUT else recording
            for recording in recordings
        ]


def process(
    recordings: Sequence[Recording],
    settings: extract.Settings,
    windowing: audio.Windowing,
    batch_size: int,
    start: Callable[[np.ndarray, int], Callable[[], Any]],
    unusable: list[Unusable],
    quiet: bool = False,
    say: Callable[[str], None] = progress.say,
) -> Iterator[tuple[list[Window], Any]]:
    """Applies a network to recordings, batch after batch of one shape.

    Finally it prints what is odd about some of the recordings.

    While the devices compute a batch, the caller has the batch before, and all cores read the next.

    Args:
        recordings: Any number of recordings of any length.
        settings: How pictures are drawn, or which features are computed.
        windowing: How each recording is cut.
        batch_size: The largest number of windows in a batch.
        start: Starts the work on a batch, given its inputs and the number of rows to which each
            batch is padded; returns a function that waits for the result.
        unusable: A list to which everything that cannot be used is added.
        quiet: Whether there is no progress bar, not even on a terminal.
        say: What prints a line about the recordings.

    Yields:
        Windows in the order of the recordings and of time, and the result of their batch.
    """
    items = _read(recordings, settings, windowing, 2 * batch_size, quiet)
    rows, started, found = 0, None, {}
    for batch in _batches(items, batch_size, unusable, found):
        rows = rows or len(batch)  # the first batch is the largest
        inputs = extract.batch([item.represented for item in batch], settings)
        previous, started = started, (batch, start(inputs, rows))
        if previous:
            yield previous[0], previous[1]()
    if started:
        yield started[0], started[1]()
    for line in remarks.lines(found, settings):
        say(line)


def answer(
    paths: Paths,
    unusable: list[Unusable] | None,
    work: Callable[[list[Recording], list[Unusable]], Iterator[Answer]],
) -> Iterator[Answer]:
    """Finds recordings and passes on what some work gives for them, for a caller in Python.

    Args:
        paths: As `find`.
        unusable: A list to which all is added that cannot be used; None makes it an error.
        work: A function such as `process` of the recordings, and of the list to which it adds.

    Raises:
        ValueError: A recording cannot be used, and `unusable` is None.
    """
    found, bad = find(paths)

    def check() -> None:
        if bad and unusable is None:
            raise ValueError(
                f"{printable(bad[0].reason)}; unusable=[] goes on, and lists what cannot be used"
            )

    check()
    for each in work(found, bad) if found else ():
        check()
        yield each
    check()
    if unusable is not None:
        unusable += bad


def complaint(unusable: Sequence[Unusable]) -> str:
    """Formats what could not be used as the text of an error, one line for each."""
    if len(unusable) == 1:
        return printable(unusable[0].reason)
    reasons = "".join(f"\n  {printable(item.reason)}" for item in unusable)
    return f"{len(unusable)} could not be used, all others are done:{reasons}"


def _why_empty(argument: str, matches: Sequence[str]) -> str:
    """Says, after its name, why an argument leads to no recording."""
    if not matches and glob.has_magic(argument):
        return ": no file or folder matches this pattern"
    if not matches:
        return ": there is no such file"
    return (
        f" holds no audio: looked for files ending in {', '.join(SUFFIXES)}, at any depth; "
        "give a recording with another ending by its name"
    )


def _describe_others(paths: Iterable[Path]) -> str:
    """Says which files of folders are passed over, with the first few of each suffix."""
    by_suffix = collections.defaultdict(list)
    for path in paths:
        by_suffix[printable(path_text(path.suffix.lower()))].append(printable(path_text(path)))
    groups = [
        f"{len(names)} {f'of {suffix}' if suffix else 'without a suffix'} ({few(names)})"
        for suffix, names in sorted(by_suffix.items())
    ]
    return (
        "note: passed over, since their suffixes are none of recordings (a file that is given by "
        f"its name is read, whatever it is called): {few(groups)}"
    )


def _read(
    recordings: Sequence[Recording],
    settings: extract.Settings,
    windowing: audio.Windowing,
    ahead: int,
    quiet: bool,
) -> Iterator[Item]:
    """Reads and represents recordings in order, at most `ahead` of them before they are needed.

    The work is done in threads, since most of it runs outside Python: threads start at once, and
    their results need no copy.
    """
    remaining, queue = iter(recordings), collections.deque()
    bar = progress.bar("recordings", len(recordings), "recordings", shown=not quiet)
    with bar, ThreadPoolExecutor(joblib.cpu_count()) as pool:

        def submit(windows: Iterator[Item]) -> tuple:
            return windows, pool.submit(lambda: list(itertools.islice(windows, CHUNK)))

        def submit_next(count: int) -> None:
            for recording in itertools.islice(remaining, count):
                queue.append(submit(_windows(recording, settings, windowing)))

        try:
            submit_next(ahead)
            while queue:
                windows, chunk = queue.popleft()
                chunk = chunk.result()
                if len(chunk) == CHUNK:  # the recording may have more windows
                    queue.appendleft(submit(windows))
                else:
                    submit_next(1)
                    bar.update()
                yield from chunk
        finally:
            pool.shutdown(cancel_futures=True)


def _windows(
    recording: Recording, settings: extract.Settings, windowing: audio.Windowing
) -> Iterator[Item]:
    """Yields the windows of a recording, the parts that cannot be used, and remarks."""
    title, heard = recording.title, Heard()
    try:
        parts = extract.windows(settings.source(recording.path), settings, windowing, heard)
        for seconds, start, end, rate, represented in parts:
            if isinstance(represented, ValueError):
                yield Unusable(title, f"{title} from {start:.2f} to {end:.2f} s: {represented}")
            else:
                yield Window(recording, seconds, start, end, rate, represented)
        for remark in heard.remarks(settings):
            yield remark, title
    except (ValueError, OSError) as error:
        reason = str(error).replace(str(recording.path), title)
        yield Unusable(title, reason if title in reason else f"{title}: {reason}")


def _batches(
    items: Iterable[Item],
    size: int,
    unusable: list[Unusable],
    found: dict[str, list[tuple[str, str]]],
) -> Iterator[list[Window]]:
    """Yields windows in batches; puts aside what cannot be used, and remarks by their kind."""
    batch = []
    for item in items:
        if isinstance(item[0], Remark):
            remark, title = item
            found.setdefault(remark.kind, []).append((title, remark.detail))
            continue
        if isinstance(item, Unusable):
            unusable.append(item)
            continue
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
