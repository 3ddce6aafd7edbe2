"""The geometry of the pages' plots: numbers become places on a plane, in SVG units."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# Outer size of a plot, and the frame of its plane.
WIDTH, HEIGHT = 400, 236
LEFT, RIGHT, TOP, BOTTOM = 44, 380, 18, 194
LINE, NUMBER = 10, 16  # height of a text, and width of a fold's number
MEASURES = {"loss": "Loss", "uar": "UAR"}
SIDES = ("train", "dev", "test")


@dataclass(frozen=True)
class Plot:
    """A plot; lengths and places are in SVG units, y downwards.

    Attributes:
        title: What is plotted.
        description: What is to be seen, in words.
        columns: Ticks of the axis to the right: (x, text).
        rises: Ticks of the axis upwards: (y, text).
        across: What the axis to the right is.
        paths: (name, CSS class, the path's `d`).
        dots: (name, x, y).
        bars: (name, x, y, width, height).
        levels: Horizontal marks: (x, y, width).
        notes: Texts within the plane: (middle x, y, text).
    """

    title: str
    description: str
    columns: Sequence[tuple]
    rises: Sequence[tuple]
    across: str
    paths: Sequence[tuple] = ()
    dots: Sequence[tuple] = ()
    bars: Sequence[tuple] = ()
    levels: Sequence[tuple] = ()
    notes: Sequence[tuple] = ()


def curves(histories: Sequence[Sequence[Mapping]], folds: Sequence[Mapping]) -> list[Plot]:
    """One plot of the loss and one of the UAR, each with a line a fold and side.

    The number of a fold stands at the end of its line, not of training, where there is room.

    Args:
        histories: For each fold the rows of its metrics.jsonl, one an epoch.
        folds: For each fold its record in the report; its `epoch` gets a dot.
    """
    records = folds if len(folds) == len(histories) else [{}] * len(histories)
    plots = []
    for measure in MEASURES:
        lines = []
        for number, (record, rows) in enumerate(zip(records, histories, strict=True)):
            for side in SIDES:
                points = [(row["epoch"], row.get(f"{side}_{measure}")) for row in rows]
                # A diverged loss is stored as null or NaN, and cannot be drawn.
                points = [(x, y) for x, y in points if y is not None and math.isfinite(y)]
                if points:
                    chosen = None if side == "train" else record.get("epoch")
                    lines.append((record.get("fold", number), side, points, chosen))
        if lines:
            plots.append(_curve(measure, lines))
    return plots


def reliability(bins: Sequence[Mapping]) -> Plot:
    """The reliability diagram: a bar for the share of right answers, a mark for the confidence.

    Args:
        bins: Of `metrics.calibration`; those without utterances are left out.
    """
    width = (RIGHT - LEFT) / len(bins)
    bars, levels, notes, told = [], [], [], []
    for index, row in enumerate(bins):
        if not row["n"]:
            continue
        x = LEFT + index * width
        y, level = _up(row["accuracy"], 1), _up(row["confidence"], 1)
        name = (
            f"{row['n']} with {100 * row['low']:.0f} to {100 * row['high']:.0f} %: on average "
            f"{100 * row['confidence']:.1f} % sure, {100 * row['accuracy']:.1f} % right"
        )
        bars.append((name, _unit(x + 3), y, _unit(width - 6), _unit(BOTTOM - y)))
        levels.append((_unit(x), level, _unit(width)))
        notes.append((_unit(x + width / 2), _unit(min(y, level) - 5), f"{row['n']}"))
        told.append(name)
    ticks = [share / 10 for share in range(0, 11, 2)]
    return Plot(
        title="Share of right answers against the probability of the answer",
        description="; ".join(told) + ".",
        columns=[(_unit(LEFT + (RIGHT - LEFT) * tick), f"{100 * tick:.0f} %") for tick in ticks],
        rises=[(_up(tick, 1), f"{100 * tick:.0f} %") for tick in ticks],
        across="probability of the answer",
        paths=[("as right as sure", "diagonal", f"M{LEFT} {BOTTOM} L{RIGHT} {TOP}")],
        bars=bars,
        levels=levels,
        notes=notes,
    )


def histogram(bins: Mapping) -> Plot:
    """A bar for the utterances of each duration.

    Args:
        bins: `counts` of equal bins, their `width` and where the first begins, `start`, in seconds.
    """
    counts, edges = bins["counts"], len(bins["counts"]) + 1
    texts = [f"{bins['start'] + index * bins['width']:.4g}" for index in range(edges)]
    width = (RIGHT - LEFT) / len(counts)
    step = max(1, round(_step(max(counts))))
    ceiling = step * math.ceil(max(counts) / step)
    bars = []
    for index, count in enumerate(counts):
        name, y = f"{texts[index]} to {texts[index + 1]} s: {count}", _up(count, ceiling)
        bars.append((name, _unit(LEFT + index * width + 1), y, _unit(width - 2), _unit(BOTTOM - y)))
    return Plot(
        title="Utterances by duration",
        description="; ".join(name for name, *_ in bars) + ".",
        columns=[
            (_unit(LEFT + index * width), texts[index])
            for index in range(0, edges, math.ceil(edges / 9))
        ],
        rises=[(_up(count, ceiling), f"{count}") for count in range(0, ceiling + 1, step)],
        across="seconds",
        bars=bars,
    )


def _curve(measure: str, lines: list[tuple]) -> Plot:
    """A plot of lines (fold, side, points, chosen epoch)."""
    epochs = [x for _, _, points, _ in lines for x, _ in points]
    first, last = min(epochs), max(epochs)
    highest = max(y for _, _, points, _ in lines for _, y in points)
    step = _step(1.0 if measure == "uar" else highest)
    every = max(1, round(_step(last - first)))
    ceiling = 1.0 if measure == "uar" else step * max(1, math.ceil(round(highest / step, 6)))

    def right(epoch: int) -> float:
        return _unit(LEFT + (RIGHT - LEFT) * (epoch - first) / max(1, last - first))

    paths, dots, ends, told = [], [], [], []
    for number, side, points, chosen in lines:
        fold = f"Fold {number}"
        # The last point is drawn twice, so that a single epoch shows as a dot.
        places = [f"{right(x)} {_up(y, ceiling)}" for x, y in [*points, points[-1]]]
        paths.append((f"{fold}, {side}", side, "M" + " L".join(places)))
        first_value, last_value = (_value(measure, y) for y in (points[0][1], points[-1][1]))
        told.append(f"{fold}, {side}: from {first_value} to {last_value}")
        if side != "train":
            x, y = points[-1]
            ends.append((_unit(right(x) + 12), _unit(_up(y, ceiling) + 4), f"{number}"))
        if chosen in dict(points):
            height = dict(points)[chosen]
            dots.append((f"{fold}: epoch {chosen}", right(chosen), _up(height, ceiling)))
            told[-1] += f", {_value(measure, height)} in epoch {chosen}, which was taken"
    return Plot(
        title=f"{MEASURES[measure]} against epoch",
        description="; ".join(told) + ".",
        columns=[(right(x), f"{x}") for x in range(first, last + 1) if x % every == 0],
        rises=[
            (_up(step * count, ceiling), _value(measure, step * count, 0))
            for count in range(round(ceiling / step) + 1)
        ],
        across="epoch",
        paths=paths,
        dots=dots,
        notes=_apart(ends),
    )


def _apart(notes: Sequence[tuple]) -> list[tuple]:
    """Moves texts (x, y, text) up or down until none lies on another; none if there is no room."""
    if len(notes) * LINE > BOTTOM - TOP:
        return []
    down, up = [], []
    for x, y, text in sorted(notes, key=lambda note: note[1]):
        above = [other + LINE for at, other, _ in down if abs(at - x) < NUMBER]
        down.append((x, max([y, *above]), text))
    for x, y, text in reversed(down):
        below = [other - LINE for at, other, _ in up if abs(at - x) < NUMBER]
        up.append((x, _unit(min([y, BOTTOM, *below])), text))
    return up[::-1]


def _value(measure: str, value: float, digits: int = 1) -> str:
    return f"{100 * value:.{digits}f} %" if measure == "uar" else f"{value:.4g}"


def _up(value: float, ceiling: float) -> float:
    return _unit(BOTTOM - (BOTTOM - TOP) * value / ceiling)


def _unit(length: float) -> float:
    return round(length, 1)


def _step(span: float) -> float:
    """The distance of ticks that cuts `span` in at most five: 1, 2 or 5 times a power of ten."""
    if span <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(span / 5))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor * 5.000001 >= span)
