"""Writes report.html: what report.json says, for people, in one file that asks for no other."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cmap
import jinja2
import numpy as np
from PIL import Image

from ds_jax.files import write_text

# The plane of a learning curve in SVG units: outer size, and the frame within it.
WIDTH, HEIGHT = 400, 230
LEFT, RIGHT, TOP, BOTTOM = 44, 390, 10, 194
SCORES = {"accuracy": "Accuracy", "uar": "UAR", "macro_f1": "Macro F1"}
# What stands for a field that a report may lack.
OPTIONAL = {
    "heads": {},
    "synthetic": False,
    "skipped": 0,
    "evaluated_by": "",
    "chosen": "epoch",
    "utterances": None,
    "protocol_text": "",
    "left_out": 0,
    "trained_on": "",
    "calibration_error": None,
}


@dataclass(frozen=True)
class GatedPicture:
    """A picture that a network judged, and where its attention gates were open.

    Attributes:
        utterance: name of the utterance.
        label: what it is.
        prediction: what the network took it for.
        probability: of the prediction, 0 to 1.
        picture: uint8 [canvas, canvas], indices into a colour map of 256 entries.
        gates: by the name of the layer, float [height, width], 0 (closed) to 1 (open).
    """

    utterance: str
    label: str
    prediction: str
    probability: float
    picture: np.ndarray
    gates: Mapping[str, np.ndarray]


def write(
    path: str | Path,
    report: Mapping,
    curves: Sequence[Sequence[Mapping]],
    pictures: Sequence[GatedPicture],
) -> None:
    """Writes the report of a run as one self-contained HTML file.

    The same input always gives the same bytes. `curves` and `pictures` may be empty; what is not
    there is left out of the page.

    Args:
        path: the file to write, whole or not at all.
        report: the content of report.json.
        curves: for each fold the rows of its metrics.jsonl, one an epoch.
        pictures: utterances to show with their gates.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=_percent, cell=_cell)
    page = environment.get_template("report.html.jinja").render(
        report=OPTIONAL | dict(report),
        names=SCORES,
        confusion=_confusion(report),
        fold_columns=list(dict.fromkeys(name for fold in report["folds"] for name in fold)),
        speakers=sorted(report["speakers"].items(), key=lambda item: (item[1], item[0])),
        curves=_curves(curves, [fold["fold"] for fold in report["folds"]]),
        plane={"width": WIDTH, "height": HEIGHT}
        | {"left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM},
        pictures=[_illustrate(gated) for gated in pictures],
    )
    write_text(path, page)


def _percent(share: float | None, unit: str = "\N{NO-BREAK SPACE}%") -> str:
    """0.714 as 71.4 %; a dash for a share of nothing (None or NaN)."""
    missing = share is None or not math.isfinite(share)
    return "\N{EN DASH}" if missing else f"{100 * share:.1f}{unit}"


def _cell(value: object, column: str) -> str:
    """A field of a fold's record as text; scores are shares, other numbers are what they are."""
    if isinstance(value, Mapping):
        value = value.get("value")
    if value is None or column in SCORES:
        return _percent(value)
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _confusion(report: Mapping) -> list[tuple[str, int, list[tuple[str, int, float | None]]]]:
    """Rows (label, support, cells); a cell is (predicted label, count, share of its row)."""
    rows = []
    for label, counts in zip(report["labels"], report["confusion"], strict=True):
        support = sum(counts)
        shares = [count / support if support else None for count in counts]
        rows.append((label, support, list(zip(report["labels"], counts, shares, strict=True))))
    return rows


def _curves(curves: Sequence[Sequence[Mapping]], folds: Sequence) -> list[dict]:
    """One plot of the loss and one of the UAR, each with a line a fold and side."""
    names = folds if len(folds) == len(curves) else range(len(curves))
    epochs = [row["epoch"] for rows in curves for row in rows]
    plots = []
    for measure, title in (("loss", "Loss"), ("uar", "UAR")):
        lines = []
        for name, rows in zip(names, curves, strict=True):
            for side in ("train", "dev", "test"):
                points = [(row["epoch"], row.get(f"{side}_{measure}")) for row in rows]
                # A diverged loss is stored as null or NaN, and cannot be drawn.
                points = [(x, y) for x, y in points if y is not None and math.isfinite(y)]
                if points:
                    lines.append((f"Fold {name}, {side}", side, points))
        if lines:
            highest = max(y for _, _, points in lines for _, y in points)
            plots.append(_plot(title, lines, epochs, 1.0 if measure == "uar" else highest))
    return plots


def _plot(title: str, lines: list, epochs: Sequence[int], highest: float) -> dict:
    """A plot in SVG units: paths (name, side, d), ticks of either axis (place, text), sides."""
    first, last = min(epochs), max(epochs)
    epoch_step = max(1, round(_step(last - first)))
    step = _step(highest)
    ceiling = step * max(1, math.ceil(round(highest / step, 6)))

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (RIGHT - LEFT) * (x - first) / max(1, last - first)
        return round(across, 1), round(BOTTOM - (BOTTOM - TOP) * y / ceiling, 1)

    def path(points: list) -> str:
        # The last point is drawn twice, so that a single epoch shows as a dot.
        places = [place(x, y) for x, y in [*points, points[-1]]]
        return "M" + " L".join(f"{x} {y}" for x, y in places)

    rises = [step * count for count in range(round(ceiling / step) + 1)]
    return {
        "title": title,
        "paths": [(name, side, path(points)) for name, side, points in lines],
        "sides": list(dict.fromkeys(side for _, side, _ in lines)),
        "epochs": [(place(x, 0)[0], x) for x in range(first, last + 1, epoch_step)],
        "rises": [
            (place(first, y)[1], f"{100 * y:.0f} %" if title == "UAR" else f"{y:.4g}")
            for y in rises
        ],
    }


def _step(span: float) -> float:
    """The distance of ticks that cuts `span` in at most five: 1, 2 or 5 times a power of ten."""
    if span <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(span / 5))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor * 5.000001 >= span)


def _illustrate(gated: GatedPicture) -> dict:
    """The pictures of an utterance as data URIs, plain and under each of its gates."""
    colours = np.asarray(cmap.Colormap("viridis").lut(256))[:, :3] * 255
    plain = colours[gated.picture]
    veiled = [
        {"name": name, "low": gate.min(), "high": gate.max(), "uri": _png(_veil(plain, gate))}
        for name, gate in gated.gates.items()
    ]
    return {"of": gated, "uri": _png(plain), "gates": veiled}


def _veil(plain: np.ndarray, gate: np.ndarray) -> np.ndarray:
    """Fades a picture to white, which viridis lacks, where the gate is least open."""
    gate = np.asarray(gate, np.float32)
    spread = np.ptp(gate)
    gate = (gate - gate.min()) / spread if spread > 1e-6 else np.ones_like(gate)
    size = plain.shape[1], plain.shape[0]
    opening = np.asarray(Image.fromarray(gate).resize(size, Image.Resampling.BILINEAR))[..., None]
    opacity = 0.1 + 0.9 * opening
    return plain * opacity + 255 * (1 - opacity)


def _png(pixels: np.ndarray) -> str:
    """Float [height, width, 3] of 0 to 255 as the data URI of a PNG."""
    file = io.BytesIO()
    Image.fromarray(np.rint(pixels).clip(0, 255).astype(np.uint8)).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
