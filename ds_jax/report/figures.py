"""The figures of runs, comparisons and tables as PDF and SVG, for a paper.

Each is written as wide as a column and as wide as a page. There are no titles, since a paper has
captions. Lines and points differ in form as well as in colour, so that they read in grey.
"""

import contextlib
import io
import math
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ds_jax.evaluation.summary import RunSummary
from ds_jax.report import forests, images, panels, plots
from ds_jax.report.forests import Forest
from ds_jax.report.panels import Panel
from ds_jax.report.plots import Curve
from ds_jax.runtime.files import check_writable, write_bytes

# The widths of a column and of a page in IEEE's two-column format, in inches.
WIDTHS = {"column": 3.5, "page": 7.16}
# Okabe and Ito's colours, which the colour-blind tell apart, without the two lightest and with a
# darker purple; the first four also differ in grey by their lines and markers.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#994f88", "#8a6d00", "#000000")
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1.5, 1, 1.5)))
MARKERS = ("o", "s", "^", "D", "v", "X", "P")  # one more, so that no two of 42 look alike
GREY = "#5d6670"
BESIDE = 24  # signs of a label that stands beside its row
STYLE = {
    "font.family": "DejaVu Sans",  # which comes with matplotlib: machines give the same figure
    "font.size": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#d5dae0",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.0,
    "text.parse_math": False,  # names may have dollars
    "pdf.fonttype": 42,  # TrueType, which journals ask for, in place of Type 3
    "svg.fonttype": "path",
    "svg.hashsalt": "ds_jax",
}

Draw = Callable[[Any, float], None]  # draws on a figure that is so many inches wide


def check(folder: Path) -> None:
    """Checks before any work that figures can be drawn and written.

    Raises:
        OSError: The folder cannot be written.
        ValueError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ValueError(
            "--figures needs the package matplotlib: install it with "
            "`pip install -r requirements-figures.txt`"
        ) from error
    check_writable(folder, "--figures")


def write_run(
    folder: Path,
    report: RunSummary,
    histories: Sequence[Sequence[Mapping]],
    examples: Mapping[str, Sequence[Panel]],
) -> None:
    """Writes the figures of a run's report.

    Args:
        folder: Where they go.
        report: The content of report.json.
        histories: For each fold the rows of its metrics.jsonl, an epoch each.
        examples: By the name of their figure, the panels of recordings that the page shows.
    """
    write_forest(folder / "scores", forests.of_scores(report))
    write_confusion(folder / "confusion", report.labels, report.confusion)
    write_forest(folder / "classes", forests.of_classes(report))
    if report.speakers:
        write_forest(folder / "speakers", forests.of_speakers(report))
    if report.calibration:
        _write(folder / "calibration", lambda *sheet: _calibration(*sheet, report.calibration), 0.8)
    for curve in plots.learning(histories, report.folds):
        _write(folder / curve.field, lambda *sheet, curve=curve: _curve(*sheet, curve), 0.62)
    for name, shown in examples.items():
        write_panels(folder / name, shown)


def write_confusion(path: Path, labels: Sequence[str], confusion: Sequence[Sequence[int]]) -> None:
    """Writes a confusion matrix: the numbers of utterances, and shares of a true class as colours.

    Args:
        path: The file, without size and suffix.
        labels: The classes.
        confusion: How often each class (row) was predicted as each (column).
    """

    def draw(figure, width):
        axes = figure.add_subplot()
        shares = [[count / max(1, sum(row)) for count in row] for row in confusion]
        drawn = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        small = 5 if width < 5 else 6.5
        for y, row in enumerate(confusion):
            for x, count in enumerate(row):
                text = f"{count}\n{100 * shares[y][x]:.1f}" if sum(row) else f"{count}"
                ink = "white" if shares[y][x] > 0.55 else "black"
                axes.text(x, y, text, ha="center", va="center", fontsize=small, color=ink)
        places = range(len(labels))
        axes.set_xticks(places, labels, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(places, labels)
        axes.set(xlabel="predicted", ylabel="true")
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        _bar(figure, drawn, axes, "% of the true class", [(0, "0"), (0.5, "50"), (1, "100")])

    _write(path, draw, 0.85)


def _write(path: Path, draw: Draw, ratio: float, least: float = 0.0) -> None:
    """Writes a figure in both widths, as PDF and as SVG; equal data give equal bytes.

    Args:
        path: The files, without size and suffix.
        draw: What draws it.
        ratio: Height by width of a column; a page's figure is wider by half as much as it could be.
        least: The least height in inches.
    """
    with _style() as figure_class:
        for name, width in WIDTHS.items():
            height = max(least, ratio * math.sqrt(width * WIDTHS["column"]))
            figure = figure_class(figsize=(width, height), layout="constrained")
            draw(figure, width)
            for suffix, date in (("pdf", "CreationDate"), ("svg", "Date")):
                file = io.BytesIO()
                figure.savefig(file, format=suffix, metadata={date: None})
                write_bytes(path.with_name(f"{path.name}_{name}.{suffix}"), file.getvalue())


@contextlib.contextmanager
def _style() -> Iterator[type]:
    """Sets matplotlib's defaults for a while, whatever a user's own are; yields its Figure."""
    import matplotlib
    import matplotlib.figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield matplotlib.figure.Figure


def write_forest(path: Path, forest: Forest) -> None:
    """Writes a forest plot; labels too long to stand beside their rows stand above them."""
    series = len(forest.series) or 1
    above = max(len(label) for label, _ in forest.rows) > BESIDE
    lines = [len(_wrapped(label).splitlines()) for label, _ in forest.rows]
    of_row = 0.14 + 0.07 * series + (0.12 * max(lines) if above else 0)
    height = 0.5 + 0.14 * len(forest.series) + len(forest.rows) * of_row
    _write(path, lambda figure, _: _forest(figure, forest, above), 0.0, height)


def _forest(figure: Any, forest: Forest, above: bool) -> None:
    axes = figure.add_subplot()
    names, count = forest.series or [""], len(forest.series) or 1
    middle, spread = (0.2, 0.5) if above else (0.0, 0.7)  # of a row, which is 1 high
    for number, name in enumerate(names):
        look = {"color": COLOURS[number % len(COLOURS)], "markersize": 3.2}
        look["marker"] = MARKERS[number % len(MARKERS)]
        offset = middle + (number - (count - 1) / 2) * spread / count
        points = [(at + offset, row[number]) for at, (_, row) in enumerate(forest.rows)]
        points = [(at, estimate) for at, estimate in points if estimate is not None]
        values = [estimate.value for _, estimate in points]
        axes.plot(values, [at for at, _ in points], linestyle="", label=name, **look)
        for at, (_, low, high) in points:
            if low is not None:
                axes.plot([low, high], [at, at], color=look["color"], linewidth=0.9)
    if forest.reference is not None:
        axes.axvline(forest.reference, color=GREY, linewidth=0.7, linestyle=(0, (4, 2)))
    labels = [_wrapped(label) for label, _ in forest.rows]
    axes.set_yticks(range(len(labels)), [""] * len(labels) if above else labels)
    for at, label in enumerate(labels) if above else ():
        place = axes.get_yaxis_transform()
        text = axes.text(0, at - 0.05, label, transform=place, va="bottom", fontsize=6.5)
        text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.5})  # over the reference
        text.set_in_layout(False)
    axes.set_ylim(len(labels) - 0.4, -1 if above else -0.6)
    axes.set_xlabel(forest.x_label)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    if len(names) > 1:
        ncols = count if sum(map(len, names)) < 40 else 1
        figure.legend(loc="outside upper right", ncols=ncols, columnspacing=1)


def _wrapped(label: str) -> str:
    """Breaks a label into lines that are no wider than a column."""
    return "\n".join(textwrap.wrap(label, 60)) or label


def _calibration(figure: Any, _: float, bins: Sequence[Mapping]) -> None:
    axes = figure.add_subplot()
    filled = [row for row in bins if row["n"]]
    low, high, confidence, accuracy = (
        np.asarray([row[name] for row in filled])
        for name in ("low", "high", "confidence", "accuracy")
    )
    axes.bar(low, accuracy, high - low, align="edge", color="#9cc7e2", edgecolor="white")
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.7, linestyle=(0, (4, 2)))
    axes.plot(confidence, accuracy, linestyle="", marker="o", markersize=3.2, color=COLOURS[0])
    for row, middle in zip(filled, (low + high) / 2, strict=True):
        look = {"textcoords": "offset points", "ha": "center", "fontsize": 5.5}
        axes.annotate(f"{row['n']}", (middle, row["accuracy"]), (0, 3), **look)
    axes.set(xlim=(0, 1), ylim=(0, 1.08))
    axes.set(xlabel="probability of the prediction", ylabel="share of correct predictions")


def _curve(figure: Any, _: float, curve: Curve) -> None:
    axes = figure.add_subplot()
    for place, (fold, points, chosen) in enumerate(curve.lines):
        look = {"color": COLOURS[place % len(COLOURS)], "linestyle": DASHES[place % len(DASHES)]}
        epochs, values = zip(*points, strict=True)
        axes.plot(epochs, values, label=f"fold {fold}", **look)
        if chosen in epochs:
            y = values[epochs.index(chosen)]
            axes.plot([chosen], [y], "o", color=look["color"], markersize=3.5, fillstyle="none")
    axes.set(xlabel="epoch", ylabel=curve.title, ylim=(0, plots.scale(curve)[0]))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="y")
    figure.legend(
        loc="outside right upper", ncols=math.ceil(len(curve.lines) / 14), handlelength=2.6
    )


def write_panels(path: Path, shown: Sequence[Panel]) -> None:
    """Writes a recording's picture and gates, or its windows, below each other."""

    def draw(figure, _):
        rows = figure.subplots(len(shown), squeeze=False)[:, 0]
        for axes, panel in zip(rows, shown, strict=True):
            _panel(figure, axes, panel)
        if len({tuple(panel.x_ticks) for panel in shown}) == 1:  # windows have times of their own
            for axes in rows[:-1]:
                axes.set(xticklabels=[], xlabel="")

    _write(path, draw, 0.0, 1.15 * len(shown) + 0.35)


def _panel(figure: Any, axes: Any, panel: Panel) -> None:
    from matplotlib.colors import ListedColormap

    lut = images.colour(np.arange(256)[None], panel.colour_map)[0] / 255
    height, width = panel.size
    drawn = axes.imshow(
        panel.values,
        cmap=ListedColormap(lut),
        vmin=0,
        vmax=255,
        aspect="auto",
        interpolation="none",
        extent=(0, width, height, 0),
    )
    axes.set(xlim=(0, 1), ylim=(1, 0), xlabel=panel.x_label, ylabel=panel.y_label)
    axes.set_xticks(*_split(panel.x_ticks))
    axes.set_yticks(*_split(panel.y_ticks))
    label = "\n".join([panel.name, *textwrap.wrap(panel.bar_label, 20)])
    _bar(figure, drawn, axes, label, [(255 * at, text) for at, text in panel.bar_ticks])


def _split(ticks: panels.Ticks) -> tuple[list[float], list[str]]:
    return [at for at, _ in ticks], [text for _, text in ticks]


def _bar(figure: Any, drawn: Any, axes: Any, label: str, ticks: panels.Ticks) -> None:
    """Adds a colour bar."""
    bar = figure.colorbar(drawn, ax=axes, aspect=12, pad=0.02)
    places, texts = _split(ticks)
    bar.set_ticks(places, labels=texts)
    bar.set_label(label)
    bar.outline.set_visible(False)
