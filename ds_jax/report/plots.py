"""The geometry of the pages' plots: numbers become positions in SVG units.

The axes are drawn by hand: the SVG takes its colours from the page, in the dark too, and nobody has
to install a plotting library.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

# The outer size of a plot, and the frame of its axes.
WIDTH, HEIGHT = 400, 236
LEFT, RIGHT, TOP, BOTTOM = 44, 380, 18, 194
TEXT_HEIGHT, NUMBER_WIDTH = 10, 16
COLOURS, DASHES = 6, 4  # of lines: they have a dozen looks, and four in grey
# The fields of metrics.jsonl that are drawn. The losses after an epoch are one quantity.
AFTER_EPOCH = {
    "train_tenth_loss": "Training loss",
    "dev_loss": "Development loss",
    "test_loss": "Test loss",
}
CURVES = AFTER_EPOCH | {
    "train_loss": "Minimised loss",
    "dev_uar": "Development UAR",
    "test_uar": "Test UAR",
}


@dataclass(frozen=True)
class Plot:
    """A plot; all lengths and positions are in SVG units, with y downwards."""

    title: str
    description: str  # in words, for those who do not see the plot
    x_ticks: Sequence[tuple]  # (x, text)
    y_ticks: Sequence[tuple]  # (y, text)
    x_label: str
    paths: Sequence[tuple] = ()  # (name, CSS classes, `d` of the path)
    dots: Sequence[tuple] = ()  # (name, x, y)
    bars: Sequence[tuple] = ()  # (name, x, y, width, height)
    marks: Sequence[tuple] = ()  # (x, y, width) of horizontal lines
    notes: Sequence[tuple] = ()  # (x of the middle, y, text, CSS class)


class Curve(NamedTuple):
    """What a quantity was after, or in, each epoch, with a line for each fold.

    Attributes:
        field: One of `CURVES`.
        title: The quantity, such as "Development loss".
        lines: For each fold its number, its points (epoch, value), and the epoch that was chosen;
            None where this quantity chooses none.
        highest: The highest value of the lines, and of those that are drawn to the same scale.
    """

    field: str
    title: str
    lines: Sequence[tuple[int, Sequence[tuple[int, float]], int | None]]
    highest: float

    @property
    def is_share(self) -> bool:
        """Whether the quantity is a share of 1."""
        return self.field.endswith("_uar")


def learning(histories: Sequence[Sequence[Mapping]], folds: Sequence[Mapping]) -> list[Curve]:
    """Returns the curves of a training; the losses after an epoch have one scale.

    Args:
        histories: For each fold the rows of its metrics.jsonl, an epoch each.
        folds: For each fold its record in the report, with the `epoch` that was chosen.
    """
    records = folds if len(folds) == len(histories) else [{}] * len(histories)
    drawn = {}
    for field in CURVES:
        lines = []
        for number, (record, rows) in enumerate(zip(records, histories, strict=True)):
            points = [(row["epoch"], row.get(field)) for row in rows]
            # A diverged loss is stored as null or NaN, and cannot be drawn.
            points = [(x, y) for x, y in points if y is not None and math.isfinite(y)]
            if points:
                chosen = None if field.startswith("train") else record.get("epoch")
                lines.append((record.get("fold", number), points, chosen))
        if lines:
            drawn[field] = lines
    highest = {field: max(y for _, points, _ in drawn[field] for _, y in points) for field in drawn}
    after = max((highest[field] for field in AFTER_EPOCH if field in drawn), default=0.0)
    return [
        Curve(field, CURVES[field], drawn[field], after if field in AFTER_EPOCH else highest[field])
        for field in drawn
    ]


def curves(histories: Sequence[Sequence[Mapping]], folds: Sequence[Mapping]) -> list[Plot]:
    """Plots what `learning` returns against the epoch; the epoch that was chosen gets a dot.

    The number of a fold stands at the end of its line where there is room.
    """
    return [_curve(curve) for curve in learning(histories, folds)]


def reliability(bins: Sequence[Mapping]) -> Plot:
    """Plots a bar for the share of correct predictions, with a mark for their mean probability.

    Args:
        bins: The rows of `metrics.calibration`; rows without utterances are not drawn.
    """
    width = (RIGHT - LEFT) / len(bins)
    bars, marks, notes = [], [], []
    for index, row in enumerate(bins):
        if not row["n"]:
            continue
        x = LEFT + index * width
        y, mark = _y(row["accuracy"], 1), _y(row["confidence"], 1)
        name = (
            f"{row['n']} with {100 * row['low']:.0f} to {100 * row['high']:.0f} %: on average "
            f"{100 * row['confidence']:.1f} % sure, {100 * row['accuracy']:.1f} % correct"
        )
        bars.append((name, _round(x + 3), y, _round(width - 6), _round(BOTTOM - y)))
        marks.append((_round(x), mark, _round(width)))
        notes.append((_round(x + width / 2), _round(min(y, mark) - 5), f"{row['n']}", ""))
    ticks = [share / 10 for share in range(0, 11, 2)]
    return Plot(
        title="Share of correct predictions against their probability",
        description="; ".join(name for name, *_ in bars) + ".",
        x_ticks=[(_round(LEFT + (RIGHT - LEFT) * tick), f"{100 * tick:.0f} %") for tick in ticks],
        y_ticks=[(_y(tick, 1), f"{100 * tick:.0f} %") for tick in ticks],
        x_label="probability of the prediction",
        paths=[("as correct as sure", "diagonal", f"M{LEFT} {BOTTOM} L{RIGHT} {TOP}")],
        bars=bars,
        marks=marks,
        notes=notes,
    )


def histogram(bins: Mapping) -> Plot:
    """Plots a bar for the number of utterances of each duration.

    Args:
        bins: The `counts` of equal bins, their `width` and the `start` of the first, in seconds.
    """
    counts, edges = bins["counts"], len(bins["counts"]) + 1
    texts = [f"{bins['start'] + index * bins['width']:.4g}" for index in range(edges)]
    width = (RIGHT - LEFT) / len(counts)
    step = max(1, round(round_step(max(counts))))
    top = step * math.ceil(max(counts) / step)
    bars = []
    for index, count in enumerate(counts):
        name, y = f"{texts[index]} to {texts[index + 1]} s: {count}", _y(count, top)
        x = _round(LEFT + index * width + 1)
        bars.append((name, x, y, _round(width - 2), _round(BOTTOM - y)))
    return Plot(
        title="Utterances by duration",
        description="; ".join(name for name, *_ in bars) + ".",
        x_ticks=[
            (_round(LEFT + index * width), texts[index])
            for index in range(0, edges, math.ceil(edges / 9))
        ],
        y_ticks=[(_y(count, top), f"{count}") for count in range(0, top + 1, step)],
        x_label="seconds",
        bars=bars,
    )


def _curve(curve: Curve) -> Plot:
    epochs = [x for _, points, _ in curve.lines for x, _ in points]
    first, last = min(epochs), max(epochs)
    top, step = scale(curve)
    every = max(1, round(round_step(last - first)))

    def x_of(epoch: int) -> float:
        return _round(LEFT + (RIGHT - LEFT) * (epoch - first) / max(1, last - first))

    paths, dots, ends, texts = [], [], [], []
    for place, (number, points, chosen) in enumerate(curve.lines):
        fold = f"Fold {number}"
        # The last point is drawn twice, so that a single epoch shows as a dot.
        positions = [f"{x_of(x)} {_y(y, top)}" for x, y in [*points, points[-1]]]
        colour = f"colour-{place % COLOURS}"
        paths.append((fold, f"{colour} dash-{place % DASHES}", "M" + " L".join(positions)))
        first_value, last_value = (_value(curve, y) for y in (points[0][1], points[-1][1]))
        texts.append(f"{fold}: from {first_value} to {last_value}")
        x, y = points[-1]
        ends.append((_round(x_of(x) + 12), _round(_y(y, top) + 4), f"{number}", colour))
        if chosen in dict(points):
            value = dict(points)[chosen]
            dots.append((f"{fold}: epoch {chosen}", x_of(chosen), _y(value, top)))
            texts[-1] += f", {_value(curve, value)} in epoch {chosen}, which was chosen"
    return Plot(
        title=f"{curve.title} against epoch",
        description="; ".join(texts) + ".",
        x_ticks=[(x_of(x), f"{x}") for x in range(first, last + 1) if x % every == 0],
        y_ticks=[
            (_y(step * count, top), _value(curve, step * count, 0))
            for count in range(round(top / step) + 1)
        ],
        x_label="epoch",
        paths=paths,
        dots=dots,
        notes=_apart(ends),
    )


def scale(curve: Curve) -> tuple[float, float]:
    """Returns the highest value of a curve's axis, which begins at 0, and the distance of marks."""
    step = round_step(1.0 if curve.is_share else curve.highest)
    if curve.is_share:
        return 1.0, step
    return step * max(1, math.ceil(round(curve.highest / step, 6))), step


def _apart(notes: Sequence[tuple]) -> list[tuple]:
    """Moves texts, see `Plot.notes`, up or down until none overlaps another; none without room."""
    if len(notes) * TEXT_HEIGHT > BOTTOM - TOP:
        return []
    down, up = [], []
    for x, y, *text in sorted(notes, key=lambda note: note[1]):
        above = [other + TEXT_HEIGHT for at, other, *_ in down if abs(at - x) < NUMBER_WIDTH]
        down.append((x, max([y, *above]), *text))
    for x, y, *text in reversed(down):
        below = [other - TEXT_HEIGHT for at, other, *_ in up if abs(at - x) < NUMBER_WIDTH]
        up.append((x, _round(min([y, BOTTOM, *below])), *text))
    return up[::-1]


def _value(curve: Curve, value: float, digits: int = 1) -> str:
    return f"{100 * value:.{digits}f} %" if curve.is_share else f"{value:.4g}"


def _y(value: float, top: float) -> float:
    """Returns the position of a value on an axis from 0 to `top`."""
    return _round(BOTTOM - (BOTTOM - TOP) * value / top)


def _round(length: float) -> float:
    return round(length, 1)


def round_step(span: float, most: int = 5) -> float:
    """Returns the distance of at most `most` ticks in `span`: 1, 2 or 5 times a power of ten."""
    if span <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(span / most))
    return next(
        power * factor for factor in (1, 2, 5, 10) if power * factor * (most + 1e-6) >= span
    )
