"""Progress bars, lines of text printed above them, and numbers in such lines."""

import io
import sys
import threading
import time
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tqdm import tqdm

DELAY = 2.0  # seconds; shorter work shows no bar
SHOWN = 5  # names in a line
SURE = 5.0  # seconds of units after the first one before the time left is told from them
TICK = 1.0  # seconds after which a bar is drawn anew, though nothing was done
SILENCE = 30.0  # seconds without a line after which one says how far the work is

_printed = time.monotonic()  # when the last line was printed


def bar(
    title: str, total: int, unit: str, items: Iterable | None = None, shown: bool = True
) -> tqdm:
    """Returns a bar on standard error with the time left, which vanishes when the work is done.

    The bar is hidden if the work takes less than `DELAY`. Where standard error is no terminal, a
    line takes its place whenever nothing was printed for `SILENCE`. The time left is told
    after `SURE` seconds of units after the first one, which may be long, as something is compiled
    or opened, and which several others may follow at once.

    Args:
        title: The name of the work.
        total: The number of units.
        unit: The unit in the plural, such as "recordings"; "B" for bytes.
        items: The units, if the bar is iterated over; without them the caller calls `update` with
            the number of units done, and `close` or a `with` block ends the bar.
        shown: Whether this process shows the bar; it prints nothing else meanwhile.
    """
    return _Bar(
        items,
        desc=title,
        total=total,
        unit="B" if unit == "B" else f" {unit}",
        unit_scale=unit == "B",
        disable=not shown,
    )


class _Bar(tqdm):
    """A bar that a thread draws where the work does not, as while something is compiled."""

    def __init__(self, items: Iterable | None, **options):
        self._over, self._first = threading.Event(), None
        self._terminal = sys.stderr.isatty()
        options |= {"delay": DELAY, "miniters": 1, "leave": False, "dynamic_ncols": self._terminal}
        # Elsewhere tqdm writes to nowhere, since it moves the cursor.
        super().__init__(items, file=sys.stderr if self._terminal else io.StringIO(), **options)
        if not self.disable:
            threading.Thread(
                target=_watch, args=(weakref.ref(self), self._over), daemon=True
            ).start()

    def update(self, n: float | None = 1) -> bool | None:
        """Adds units that are done."""
        drawn = super().update(n)
        if self._first is None and n and not self.disable:
            self._first = self.n, time.monotonic()
        return drawn

    @property
    def format_dict(self) -> dict[str, Any]:
        """The facts that tqdm draws; the rate is that since the first unit, 0 if it is unknown."""
        number, began = self._first or (self.n, 0.0)
        seconds = time.monotonic() - began
        rate = (self.n - number) / seconds if seconds >= SURE else 0
        return super().format_dict | {"rate": rate}

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Draws the bar on a terminal; prints a line elsewhere if there was none for long.

        Returns:
            Whether there is something to clear when the bar ends.
        """
        if self._terminal:
            return super().display(msg, pos)
        if msg is None and time.monotonic() - _printed >= SILENCE:
            _print(self._line(), sys.stderr)
        return False

    def _line(self) -> str:
        facts = self.format_dict
        size = tqdm.format_sizeof if self.unit_scale else str
        line = f"{self.desc}: {size(self.n)} of {size(self.total)}{self.unit}"
        line += f" after {clock(facts['elapsed'])}"
        left = (self.total - self.n) / facts["rate"] if facts["rate"] else 0
        return f"{line}, about {clock(left)} left" if left > 0 else line

    def close(self) -> None:
        """Ends the bar."""
        self._over.set()
        super().close()


def _watch(reference: weakref.ref, over: threading.Event) -> None:
    """Draws a bar again and again until it is over, or nobody has it any more."""
    wait = DELAY
    while not over.wait(wait):
        bar, wait = reference(), TICK
        if bar is None:
            return
        with bar.get_lock():
            if not over.is_set():
                bar.display()
                bar.last_print_t = time.time()  # tqdm then clears it
        del bar


def say(text: str) -> None:
    """Prints a line above the bars."""
    with tqdm.external_write_mode():
        _print(text, sys.stdout)


def _print(text: str, file: Any) -> None:
    global _printed
    print(text, file=file, flush=True)
    _printed = time.monotonic()


def many(count: int, noun: str) -> str:
    """Formats a count with a noun that is given in the singular: "1 run", "2 runs"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def few(names: Sequence[str]) -> str:
    """Lists the first few names and says how many more there are: "a, b, c, d, e and 7 more"."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def counts(of: Mapping[str, int]) -> str:
    """Lists things and how many there are of each: "calm (3), sad (1)"."""
    return ", ".join(f"{name} ({count})" for name, count in sorted(of.items()))


def clock(seconds: float) -> str:
    """Formats a duration as hours, minutes and seconds, such as "1:02:03" or "2:03"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
