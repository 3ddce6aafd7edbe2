"""Pictures and gates as panels with axes and a colour bar, which pages and figures draw."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ds_jax.features import axes
from ds_jax.features.spectrogram import BAND_RANGE, PictureSettings
from ds_jax.report import plots

HERTZ = (0, 125, 250, 500, 1000, 2000, 4000, 8000, 16_000)  # that may be marked, octaves apart
LEAST_GAP = 0.12  # of an axis, between two marks
GATE_COLOURS = "cividis"  # alike to the colour-blind, and from dark to light in grey

Ticks = Sequence[tuple[float, str]]  # the place of each mark, as a share of its axis, and its text


class Panel(NamedTuple):
    """A picture or a gate on the axes of its picture.

    Attributes:
        name: What it shows, such as "spectrogram" or "block4_pool".
        values: uint8 [height, width], indices into the colour map; row 0 is the highest frequency.
        size: The share of the height and of the width of the axes that the values take, from the
            upper left corner; the cells of a gate may end before its picture does.
        colour_map: The name of the colour map.
        x_ticks: From the left.
        y_ticks: From the top.
        x_label, y_label: The quantities and their units.
        bar_ticks: The marks of the colour bar, from its lower end.
        bar_label: What the colours mean.
        range: Of a gate the least and the largest value.
    """

    name: str
    values: np.ndarray
    size: tuple[float, float]
    colour_map: str
    x_ticks: Ticks
    y_ticks: Ticks
    x_label: str
    y_label: str
    bar_ticks: Ticks
    bar_label: str
    range: tuple[float, float] | None = None

    @property
    def caption(self) -> str:
        """What it shows and what its colours mean, in words."""
        within = "; here {:.2f} to {:.2f}".format(*self.range) if self.range else ""
        return f"{self.name}: {self.bar_label}{within}"

    @property
    def bar(self) -> np.ndarray:
        """uint8 [256, 1], the indices of all colours, as a bar shows them from the top."""
        return np.arange(255, -1, -1, dtype=np.uint8)[:, None]


def settings_of(described: Mapping) -> PictureSettings | None:
    """Returns how the pictures of a run were drawn; of an ensemble, those of its last member.

    Args:
        described: All fields of the run's config by their full names; they may be missing.
    """
    layouts = [name for name in described if name.endswith("picture.layout")]
    if not layouts:
        return None
    prefix = layouts[-1].removesuffix("picture.layout")
    drawn = {field.name for field in dataclasses.fields(PictureSettings)}
    names = {name.removeprefix(f"{prefix}picture."): name for name in described}
    fields = {field: described[name] for field, name in names.items() if field in drawn}
    return PictureSettings(**fields | {"trim": described.get(f"{prefix}trim", 0.0)})


def window_times(
    count: int, seconds: float, settings: PictureSettings | None
) -> list[tuple[float, float]]:
    """Returns the start and the end in seconds of the first pictures of a recording.

    Args:
        count: The number of pictures.
        seconds: The length of the recording.
        settings: How the pictures were drawn.
    """
    if settings is None or not settings.window:
        return [(0.0, seconds)] * count
    starts = [number * (settings.window_hop or settings.window) for number in range(count)]
    return [(start, min(start + settings.window, seconds)) for start in starts]


def of_pictures(
    pictures: Sequence[np.ndarray],
    gates: Mapping[str, np.ndarray],
    times: Sequence[tuple[float, float]],
    settings: PictureSettings | None,
) -> list[Panel]:
    """Returns the panels of a recording: its picture and its gates, or its windows.

    Args:
        pictures: uint8 [height, width] each: one, or the first windows of the recording.
        gates: By the name of the layer, float [rows, columns], 0 (closed) to 1 (open).
        times: The start and the end of each picture, in seconds.
        settings: How the pictures were drawn; without them axes have no marks.
    """
    panels, colours = [], settings.colour_map if settings else "viridis"
    marked = [_marks(*each, settings) for each in zip(pictures, times, strict=True)]
    for number, (picture, marks) in enumerate(zip(pictures, marked, strict=True), start=1):
        name = f"window {number}" if len(pictures) > 1 else "spectrogram"
        panels.append(Panel(name, picture, (1.0, 1.0), colours, **marks, **_levels(settings)))
    for name, gate in gates.items():
        size = (1.0, 1.0)
        if settings:
            sides = zip(gate.shape, pictures[0].shape, strict=True)
            size = tuple(axes.covered(*side, settings) for side in sides)
        values = np.rint(255 * np.clip(gate, 0, 1)).astype(np.uint8)
        bar = {"bar_ticks": [(0.0, "0"), (0.5, "0.5"), (1.0, "1")]}
        bar |= {"bar_label": "gate, 0 closed to 1 open"}
        limits = float(gate.min()), float(gate.max())
        panels.append(Panel(name, values, size, GATE_COLOURS, **marked[0], **bar, range=limits))
    return panels


def _marks(
    picture: np.ndarray, times: tuple[float, float], settings: PictureSettings | None
) -> dict:
    """Returns the marks and labels of the axes of a picture from one time to another."""
    marks = {"x_ticks": [], "y_ticks": [], "x_label": "time", "y_label": "frequency"}
    if settings is None or not settings.sample_rate:  # each file has its rate, which is not stored
        return marks
    rate = settings.sample_rate
    start, end = times
    drawn = axes.of_picture(picture, start, round((end - start) * rate), rate, settings)
    if not settings.trim:
        marks |= {"x_ticks": _time_ticks(drawn.seconds), "x_label": "time in s"}
    elif settings.is_timeline:  # whose columns are frames, however much was cut off
        ticks = _time_ticks(drawn.seconds)
        marks |= {"x_ticks": ticks, "x_label": "time after the silence cut off, in s"}
    if settings.mode == "chroma":
        return marks | {"y_label": "pitch class"}
    return marks | {"y_ticks": _hertz_ticks(drawn.hertz), "y_label": "frequency in Hz"}


def _time_ticks(seconds: np.ndarray) -> Ticks:
    """Marks round times; `seconds` are those of the columns' centres."""
    shares = (np.arange(len(seconds)) + 0.5) / len(seconds)
    step = plots.round_step(float(seconds[-1] - seconds[0]), 4)
    first = math.ceil(seconds[0] / step - 1e-9)
    last = math.floor(seconds[-1] / step + 1e-9)
    times = [count * step for count in range(first, last + 1)]
    return [(float(np.interp(time, seconds, shares)), f"{time:.4g}") for time in times]


def _hertz_ticks(hertz: np.ndarray) -> Ticks:
    """Marks octaves as far as there is room; `hertz` are those of the rows' centres, falling."""
    shares = (np.arange(len(hertz)) + 0.5) / len(hertz)
    ticks = []
    for value in reversed(HERTZ):
        if hertz[-1] - 0.05 * hertz[0] <= value <= 1.05 * hertz[0]:
            share = float(np.interp(value, hertz[::-1], shares[::-1]))
            if not ticks or share - ticks[-1][0] >= LEAST_GAP:
                ticks.append((share, f"{value}"))
    return ticks


def _levels(settings: PictureSettings | None) -> dict:
    """Returns the marks and the label of a picture's colour bar.

    The ends are the quietest and the loudest cell of the picture; prepared pictures do not say how
    many dB lie between them.
    """
    ends = [(0.0, "quietest"), (1.0, "loudest")]
    if settings is None:
        return {"bar_ticks": ends, "bar_label": "level"}
    if settings.subtract_band_means:
        ticks = [(0.0, f"−{BAND_RANGE:g}"), (0.5, "0"), (1.0, f"+{BAND_RANGE:g}")]  # noqa: RUF001
        return {"bar_ticks": ticks, "bar_label": "dB from the band's mean"}
    if settings.mode == "chroma":
        return {"bar_ticks": [(0.0, "least"), (1.0, "most")], "bar_label": "share of the largest"}
    within = f", at most {settings.floor_db:g} dB apart" if settings.floor_db else ""
    return {"bar_ticks": ends, "bar_label": f"level in dB{within}"}
