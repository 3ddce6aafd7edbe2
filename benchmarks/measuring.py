"""What the benchmarks share: flags, tables, and what JSON says of the machine."""

import argparse
import os
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from ds_jax.runtime.files import write_json

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """Creates a parser of flags with `--output`, where the JSON goes.

    Args:
        name: Of the benchmark, and of its JSON.
        description: A module's docstring; its first line is shown.
    """
    made = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=description.partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    made.add_argument("--output", type=Path, default=RESULTS / f"{name}.json", help="JSON")
    return made


def positive(text: str) -> int:
    """Reads a whole number above 0, for flags."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def machine() -> dict:
    """Describes what the numbers were measured on, and how much else was going on there."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],  # processes that ran or waited, over the last minute
        "python": platform.python_version(),
        "jax": metadata.version("jax"),
    }


def table(title: str, heads: Sequence[str], rows: Sequence[Sequence]) -> None:
    """Prints a table: text to the left, numbers to the right."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    print(f"\n{title}")
    print("  ".join(head.ljust(width) for head, width in zip(heads, widths, strict=True)).rstrip())
    for row, shown in zip(rows, cells, strict=True):
        line = [
            text.ljust(width) if isinstance(value, str) else text.rjust(width)
            for value, text, width in zip(row, shown, widths, strict=True)
        ]
        print("  ".join(line).rstrip())


def save(path: Path, found: dict) -> None:
    """Writes the JSON, and says where."""
    write_json(path, found)
    print(f"\n{path}")


def _cell(value) -> str:
    if value is None:
        return "-"
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
