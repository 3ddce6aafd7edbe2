"""A table as LaTeX, for a paper that uses booktabs, and as CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ds_jax.report import pages
from ds_jax.runtime import progress
from ds_jax.runtime.files import write_text

# What a column holds. LaTeX shows shares and scores in %, differences in percentage points, and
# limits of intervals behind their number. A CSV has plain numbers, and columns for the limits.
TEXT, COUNT, SHARE, P = "text", "count", "share", "p"
SCORE, DIFFERENCE = "score", "difference"
UNITS = {SHARE: " (%)", SCORE: " (%)", DIFFERENCE: " (points)"}
VALUES = {SCORE: "value", DIFFERENCE: "difference"}  # the keys of the number between the limits
ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\symbol{34}",
    "[": "{[}",  # after the end of a row it would begin a length,
    "*": "{*}",  # and this would keep two rows on a page
    "`": r"\textasciigrave{}",
    pages.MINUS: "$-$",
    pages.DASH: r"\textendash{}",
    pages.SPACE: "~",
    "†": r"\textdagger{}",
}


class Table(NamedTuple):
    """A table.

    Attributes:
        caption: What it shows, under which protocol, and how its intervals were computed.
        columns: The heading of each column, and the kind of its values.
        rows: The values, None where one is missing: shares are 0 to 1, scores and differences
            mappings with the keys of report.json.
    """

    caption: str
    columns: Sequence[tuple[str, str]]
    rows: Sequence[Sequence[Any]]


def write(folder: Path, tables: Mapping[str, Table]) -> None:
    """Writes each table as NAME.tex and NAME.csv, and says where these and the figures are."""
    for name, table in tables.items():
        write_text(folder / f"{name}.tex", to_latex(table))
        write_text(folder / f"{name}.csv", to_csv(table))
    progress.say(f"figures and tables: {folder}")


def to_latex(table: Table) -> str:
    """Returns a tabular, with its caption in a comment above."""
    kinds = [kind for _, kind in table.columns]
    sides = "".join("l" if kind == TEXT else "r" for kind in kinds)
    heading = [escape(title + UNITS.get(kind, "")) for title, kind in table.columns]
    rows = [[_latex(*pair) for pair in zip(row, kinds, strict=True)] for row in table.rows]
    lines = [
        f"% {_line(table.caption)}",
        r"% It needs \usepackage[T1]{fontenc} and \usepackage{booktabs}.",
        rf"\begin{{tabular}}{{{sides}}}",
        r"\toprule",
        " & ".join(heading) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def to_csv(table: Table) -> str:
    """Returns a heading and rows; shares are 0 to 1, and missing values are empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    heading = []
    for title, kind in table.columns:
        heading += [title, f"{title} low", f"{title} high"] if kind in VALUES else [title]
    writer.writerow(heading)
    for row in table.rows:
        cells = []
        for value, (_, kind) in zip(row, table.columns, strict=True):
            if kind in VALUES:
                cells += [(value or {}).get(key) for key in (VALUES[kind], "low", "high")]
            else:
                cells.append(value)
        writer.writerow(cells)
    return text.getvalue()


def escape(text: str) -> str:
    """Returns a text in one line that LaTeX prints as it is."""
    escaped = "".join(ESCAPES.get(sign, sign) for sign in _line(text))
    return escaped.replace("--", "-{}-{}")  # which would be a dash


def _line(text: str) -> str:
    """Returns a text without control characters and ends of lines."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split(" "))


def _latex(value: Any, kind: str) -> str:
    """Formats a value of a kind of column."""
    if value is None or value == "":
        text = pages.DASH
    elif kind == SHARE:
        text = pages.percent(value, "")
    elif kind == P:
        text = pages.p_value(value)
    elif kind in VALUES:
        form = pages.points if kind == DIFFERENCE else lambda share: pages.percent(share, "")
        text = form(value[VALUES[kind]])
        if value["low"] is not None:
            text += f" ({form(value['low'])} to {form(value['high'])})"
    else:
        text = str(value)
    return escape(text)
