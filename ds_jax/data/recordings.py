"""One's own recordings: finds them, and reads and represents them on all cores.

What is read ahead of whoever takes it is bounded, however many and however long recordings are.
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
from typing import Any, NamedTuple

import joblib
import numpy as np

from ds_jax.features import audio, representation
from ds_jax.runtime import progress
from ds_jax.runtime.files import files_below, path_text, printable

# Of what libsndfile decodes. Files given by name may be called otherwise.
SUFFIXES = (
    *(".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".aifc", ".au", ".snd"),
    *(".caf", ".w64", ".rf64", ".sph", ".nist", ".voc", *audio.HEADERLESS),
)
STANDARD_INPUT = "-"
TOGETHER = 16  # windows of a recording that are represented before the first of them is passed on


class Recording(NamedTuple):
    """A recording that was found.

    Attributes:
        path: Where it is.
        folder: The folder that was given and that it lies below, or its own.
        title: What messages and results call it.
    """

    path: Path
    folder: Path
    title: str


class Window(NamedTuple):
    """A stretch of a recording, or all of it.

    Attributes:
        recording: Where it comes from.
        seconds: Of the whole recording.
        start: Seconds.
        end: Seconds.
        represented: A picture or features.
    """

    recording: Recording
    seconds: float
    start: float
    end: float
    represented: np.ndarray


class Unusable(NamedTuple):
    """A recording, a stretch of one, or an argument that nothing can be said of.

    Attributes:
        title: What it is called.
        reason: A sentence that names it.
    """

    title: str
    reason: str


def find(arguments: Sequence[str | Path]) -> tuple[list[Recording], list[Unusable]]:
    """Finds the recordings that arguments of a command line stand for.

    An argument is a file of any name; a folder, of which all files with one of `SUFFIXES` are
    taken, at any depth and in the order of their paths, hidden ones left out; a pattern such as
    "*/anger/*.wav" (`**` is any depth), of which the matches are taken likewise; or "-".

    Returns:
        The recordings in the order given, and the arguments that lead to none.
    """
    found, unusable = [], []
    for argument in map(str, arguments):
        if argument == STANDARD_INPUT:
            found.append(Recording(Path(argument), Path(), argument))
            continue
        literal = os.path.lexists(argument)
        matches = [argument] if literal else sorted(glob.glob(argument, recursive=True))
        count = len(found)
        for match in map(Path, matches):
            paths, errors = files_below(match) if match.is_dir() else ([match], [])
            if match.is_dir():
                paths = [path for path in paths if path.name.lower().endswith(SUFFIXES)]
            folder = match if match.is_dir() else match.parent
            found += [Recording(path, folder, path_text(path)) for path in paths]
            for error in errors:
                title = path_text(error.filename)
                unusable.append(Unusable(title, f"{title} cannot be read: {error.strerror}"))
        if len(found) == count:
            unusable.append(Unusable(path_text(argument), _nothing(argument, matches)))
    return found, unusable


@contextlib.contextmanager
def standard_input(recordings: Sequence[Recording]) -> Iterator[list[Recording]]:
    """Keeps the bytes of standard input in a file for as long as its recording is needed.

    Raises:
        ValueError: "-" is among the recordings more than once.
    """
    titles = [recording.title for recording in recordings]
    if titles.count(STANDARD_INPUT) > 1:
        raise ValueError("'-' was given more than once: standard input can be read only once")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "standard_input"
        if STANDARD_INPUT in titles:
            with path.open("wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file)
        yield [
            recording._replace(path=path) if recording.title == STANDARD_INPUT else recording
            for recording in recordings
        ]


def process(
    recordings: Sequence[Recording],
    settings: representation.Settings,
    window: float,
    hop: float,
    batch_size: int,
    start: Callable[[np.ndarray, int], Callable[[], Any]],
    unusable: list[Unusable],
    quiet: bool = False,
    to_end: bool = False,
) -> Iterator[tuple[list[Window], Any]]:
    """Takes recordings through a network, batch after batch of one shape.

    While the devices compute one batch, the one before is given to the caller and later ones are
    read on all cores.

    Args:
        recordings: Any number of them, of any lengths.
        settings: How they are represented.
        window: Seconds; 0 takes each recording whole.
        hop: Seconds between the starts of windows; 0 is window.
        batch_size: Windows that the devices take together, at most.
        start: Begins the work on a batch, given the number of rows that each batch is to be
            padded to, and returns a function that waits for its result.
        unusable: What cannot be used is added to it.
        quiet: Whether there is no progress bar even on a terminal.
        to_end: Whether the end of a recording is in a window, see `windows.count_to_end`.

    Yields:
        Windows in the order of the recordings and of time, and the result of their batch.
    """
    items = _read(recordings, settings, window, hop, 2 * batch_size, quiet, to_end)
    rows, begun = 0, None
    for batch in _batches(items, batch_size, unusable):
        rows = rows or len(batch)  # the first batch is the largest
        inputs = _stack([one.represented for one in batch])
        before, begun = begun, (batch, start(inputs, rows))
        if before:
            yield before[0], before[1]()
    if begun:
        yield begun[0], begun[1]()


def complaint(unusable: Sequence[Unusable]) -> str:
    """What an error says of what could not be used, a line each."""
    if len(unusable) == 1:
        return printable(unusable[0].reason)
    reasons = "".join(f"\n  {printable(one.reason)}" for one in unusable)
    return f"{len(unusable)} could not be used, all others are done:{reasons}"


def _nothing(argument: str, matches: Sequence[str]) -> str:
    """Why there is no recording where one was expected."""
    if not matches and glob.has_magic(argument):
        return f"{path_text(argument)}: no file or folder matches this pattern"
    if not matches:
        return f"{path_text(argument)}: there is no such file"
    return (
        f"{path_text(argument)} holds no audio: looked for files ending in {', '.join(SUFFIXES)}, "
        "at any depth; give a recording that is called otherwise by its own name"
    )


def _read(
    recordings: Iterable[Recording],
    settings: representation.Settings,
    window: float,
    hop: float,
    ahead: int,
    quiet: bool,
    to_end: bool,
) -> Iterator[Window | Unusable]:
    """Reads and represents recordings in order, at most `ahead` of them before they are asked for.

    In threads, since most of the work is done outside Python: they need no start, and what they
    make needs no copy.
    """
    todo, waiting = iter(recordings), collections.deque()
    bar = progress.bar("recordings", len(recordings), "recordings", shown=not quiet)
    with bar, ThreadPoolExecutor(joblib.cpu_count()) as pool:

        def begin(count: int) -> None:
            for recording in itertools.islice(todo, count):
                windows = _windows(recording, settings, window, hop, to_end)
                waiting.append((windows, pool.submit(_some, windows)))

        try:
            begin(ahead)
            while waiting:
                windows, some = waiting.popleft()
                represented = some.result()
                if len(represented) == TOGETHER:  # the recording may go on
                    waiting.appendleft((windows, pool.submit(_some, windows)))
                else:
                    begin(1)
                    bar.update()
                yield from represented
        finally:
            pool.shutdown(cancel_futures=True)


def _some(windows: Iterator[Window | Unusable]) -> list[Window | Unusable]:
    return list(itertools.islice(windows, TOGETHER))


def _windows(
    recording: Recording,
    settings: representation.Settings,
    window: float,
    hop: float,
    to_end: bool,
) -> Iterator[Window | Unusable]:
    """The windows of a recording, and what of it cannot be used."""
    title = recording.title
    try:
        found = representation.windows(recording.path, settings, window, hop, to_end)
        for seconds, start, end, represented in found:
            if isinstance(represented, ValueError):
                yield Unusable(title, f"{title} from {start:.2f} to {end:.2f} s: {represented}")
            else:
                yield Window(recording, seconds, start, end, represented)
    except (ValueError, OSError) as error:
        reason = str(error).replace(str(recording.path), title)
        yield Unusable(title, reason if title in reason else f"{title}: {reason}")


def _batches(
    items: Iterable[Window | Unusable], size: int, unusable: list[Unusable]
) -> Iterator[list[Window]]:
    batch = []
    for item in items:
        if isinstance(item, Unusable):
            unusable.append(item)
            continue
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _stack(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Stacks; sequences get a power of two of frames, so that few shapes are compiled."""
    stacked = representation.stack(arrays)
    if stacked.dtype == np.float32 and stacked.ndim == 3:
        frames = 1 << (stacked.shape[1] - 1).bit_length()
        room = ((0, 0), (0, frames - stacked.shape[1]), (0, 0))
        stacked = np.pad(stacked, room, constant_values=np.nan)
    return stacked
