"""Progress bars, lines of text printed above them, and numbers in such lines."""

from collections.abc import Iterable, Mapping, Sequence

from tqdm import tqdm

DELAY = 2.0  # seconds; shorter work shows no bar
SHOWN = 5  # names in a line


def bar(
    title: str, total: int, unit: str, items: Iterable | None = None, shown: bool = True
) -> tqdm:
    """Returns a bar on standard error with the time left, which vanishes when the work is done.

    The bar is hidden if the work takes less than `DELAY`, or standard error is no terminal.

    Args:
        title: The name of the work.
        total: The number of units.
        unit: The unit in the plural, such as "recordings"; "B" for bytes.
        items: The units, if the bar is iterated over; without them the caller calls `update` with
            the number of units done, and `close` or a `with` block ends the bar.
        shown: Whether this process shows the bar; it prints nothing else meanwhile.
    """
    return tqdm(
        items,
        desc=title,
        total=total,
        unit="B" if unit == "B" else f" {unit}",
        unit_scale=unit == "B",
        delay=DELAY,
        leave=False,
        dynamic_ncols=True,
        disable=None if shown else True,  # None: unless on a terminal
    )


def say(text: str) -> None:
    """Prints a line above the bars."""
    with tqdm.external_write_mode():
        print(text, flush=True)


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
