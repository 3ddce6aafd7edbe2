"""The one Jinja environment of all pages, and the formats of their numbers."""

import base64
import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from ds_jax.evaluation.metrics import SCORES
from ds_jax.report import images, plots
from ds_jax.runtime import progress

DASH, MINUS, SPACE = "\N{EN DASH}", "\N{MINUS SIGN}", "\N{NO-BREAK SPACE}"
TITLES = {"accuracy": "accuracy", "uar": "UAR", "macro_f1": "macro F1"}  # of the scores
CLASS_TITLES = {"precision": "precision", "recall": "recall", "f1": "F1"}  # of a class's scores


def render(template: str, **content: Any) -> str:
    """Renders a template of the folder templates/.

    Args:
        template: The name of the file; in those of HTML and SVG all values are escaped.
        **content: The variables of the template; one that is missing raises an error.
    """
    return _environment().get_template(template).render(content)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=lambda name: name is None or name.endswith((".html.jinja", ".svg.jinja")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    filters = (
        *(percent, interval, points, bar_length, printed, p_value, cell, never_answered),
        *(picture_uri, data_uri, images.colour, progress.clock),
    )
    environment.filters.update({function.__name__: function for function in filters})
    environment.globals.update(plots=plots, titles=TITLES, class_titles=CLASS_TITLES)
    environment.globals["many"] = progress.many
    return environment


def percent(share: float | None, unit: str = f"{SPACE}%") -> str:
    """Formats 0.714 as "71.4 %", and a share of nothing (None or NaN) as a dash."""
    return f"{100 * share:.1f}{unit}" if _is_number(share) else DASH


def interval(score: Mapping[str, float | None], unit: str = f"{SPACE}%") -> str:
    """Formats the "low" and "high" of a score as "69.1 to 84.2 %", and a missing one as a dash."""
    if score["low"] is None:
        return DASH
    return f"{percent(score['low'], '')} to {percent(score['high'], unit)}"


def points(difference: float) -> str:
    """Formats the difference 0.0312 as "+3.1", in percentage points."""
    text = f"{100 * difference:+.1f}"
    return text.replace("-", MINUS) if text not in ("+0.0", "-0.0") else "0.0"


def printed(share: float | None) -> str:
    """Formats a number with the digits of the paper: 0.706 as "70.6", 0.9005 as "90.05"."""
    return DASH if share is None else f"{100 * share:.2f}".removesuffix("0")


def p_value(p: float | None, missing: str = DASH) -> str:
    """Formats a p value: "0.041", or "<0.001" for a smaller one."""
    if p is None:
        return missing
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def with_interval(score: Mapping[str, float | None], name: str = "value", form: str = ".3f") -> str:
    """Formats a score as "0.647 (0.422 to 0.872)", without limits as "0.647"; in plain text."""
    value, low, high = (score[key] for key in (name, "low", "high"))
    return f"{value:{form}}" + ("" if low is None else f" ({low:{form}} to {high:{form}})")


def bar_length(share: float | None) -> str:
    """Formats a share in the units of a bar 100 wide; a share of nothing has no length."""
    return f"{100 * share:.2f}" if _is_number(share) else "0"


def cell(value: object, column: str) -> str:
    """Formats a field of a fold or of a config; the values of score columns are shares."""
    if value in (None, "", []):
        return DASH
    if column in SCORES:
        return percent(value)
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def never_answered(labels: Sequence[str]) -> str:
    """Says that models never answer these classes, of which there is one or more."""
    are, them = ("is", "it") if len(labels) == 1 else ("are", "them")
    return f"{', '.join(labels)} {are} never answered: no utterance of the training has {them}"


def table(rows: Sequence[Sequence[object]], left: int = 1) -> list[str]:
    """Aligns rows of plain text in columns: the first `left` to the left, the others right."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    forms = [f"{'<' if column < left else '>'}{width}" for column, width in enumerate(widths)]
    return [
        "  ".join(f"{text:{form}}" for text, form in zip(row, forms, strict=True)).rstrip()
        for row in texts
    ]


def picture_uri(pixels: np.ndarray) -> str:
    """Encodes a picture, uint8 [height, width, 3], as a data URI."""
    return data_uri(images.png(pixels), "image/png")


def data_uri(content: bytes, kind: str) -> str:
    """Encodes a file of a media type such as "image/png" as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _is_number(share: float | None) -> bool:
    return share is not None and math.isfinite(share)
