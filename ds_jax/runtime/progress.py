"""Progress bars of one look, and lines between them."""

from collections.abc import Iterable

from tqdm import tqdm

DELAY = 2.0  # seconds; what is over before them needs no bar


def bar(
    title: str, total: int, unit: str, items: Iterable | None = None, shown: bool = True
) -> tqdm:
    """A bar with the time left on standard error, that is gone when the work is done.

    There is none for what takes less than `DELAY`, nor where standard error is no terminal.

    Args:
        title: What is being done.
        total: Of the work, in units.
        unit: In the plural, such as "recordings"; "B" for bytes.
        items: A unit each, to be iterated over by way of the bar; without, whoever works calls
            `update` with the units that are done, and `close` or a `with` block ends it.
        shown: Whether this process is the one to show it, and nothing else is written meanwhile.
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
    """Prints a line, above the bars there are."""
    with tqdm.external_write_mode():
        print(text, flush=True)


def clock(seconds: float) -> str:
    """Hours, minutes and seconds, such as "1:02:03" or "2:03"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
