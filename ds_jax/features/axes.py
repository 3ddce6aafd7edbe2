"""The seconds and the hertz of what pictures and attention gates show."""

import math
from typing import NamedTuple

import numpy as np

from ds_jax.features import audio
from ds_jax.features.spectrogram import PictureSettings, draw, plan


class TimeFrequency(NamedTuple):
    """Values over time and frequency, such as matplotlib's `pcolormesh` takes them.

    Attributes:
        seconds: float64 [width], the centres of the columns, from the recording's start.
        hertz: float64 [height], the centres of the rows; row 0 is the highest. NaN for pitch
            classes (mode "chroma"), which have no single frequency.
        values: [height, width]. Of a picture they are uint8, indices into a colour map of 256
            entries; of a gate float32, 0 (closed) to 1 (open).
    """

    seconds: np.ndarray
    hertz: np.ndarray
    values: np.ndarray


def spectrogram(
    samples: np.ndarray, rate: int, settings: PictureSettings | None = None
) -> TimeFrequency:
    """Draws a waveform as the picture that networks read, with its axes.

    Args:
        samples: float [n], mono, full scale at 1.
        rate: Hz; samples of another rate than `settings.sample_rate` are resampled.
        settings: How the picture is drawn; None means DeepSpectrum's settings for 16 kHz speech.
            All samples are drawn: its `window` and `trim` are for recordings.

    Returns:
        The picture; its values are those of `spectrogram.draw`.

    Raises:
        ConfigError: fmin or fmax does not fit the rate.
        ValueError: The samples are not as above, or are silent.
    """
    settings = settings or PictureSettings()
    samples, rate = audio.from_samples(samples, rate, settings.sample_rate)
    picture = draw(samples, rate, settings)
    return of_picture(picture, 0.0, len(samples), rate, settings)


def of_picture(
    picture: np.ndarray, start: float, count: int, rate: int, settings: PictureSettings
) -> TimeFrequency:
    """Returns a picture with its axes.

    Args:
        picture: uint8 [height, width], as `spectrogram.draw` returns it.
        start: Seconds from the recording's start to the first sample that is drawn.
        count: How many samples are drawn.
        rate: Hz.
        settings: How the picture was drawn.
    """
    planned = plan(settings, rate)
    frames = 1 + max(0, count - planned.n_fft) // planned.hop
    columns = np.arange(picture.shape[1], dtype=np.float64)
    if not settings.is_timeline:  # whose columns are frames
        columns = (columns + 0.5) / len(columns) * frames - 0.5
    seconds = start + (columns * planned.hop + planned.n_fft / 2) / rate
    return TimeFrequency(seconds, planned.hertz, picture)


def of_gate(gate: np.ndarray, picture: TimeFrequency, settings: PictureSettings) -> TimeFrequency:
    """Returns an attention gate with its axes.

    Args:
        gate: float32 [rows, columns], whose cells lie as `covered` says.
        picture: The picture that the network read.
        settings: How the picture was drawn.
    """

    def centres(cells: int, axis: np.ndarray) -> np.ndarray:
        pixels = len(axis) * covered(cells, len(axis), settings) / cells  # of one cell
        places = (np.arange(cells) + 0.5) * pixels - 0.5
        return np.interp(places, np.arange(len(axis)), axis)

    rows, columns = gate.shape
    return TimeFrequency(centres(columns, picture.seconds), centres(rows, picture.hertz), gate)


def covered(cells: int, pixels: int, settings: PictureSettings) -> float:
    """Returns the share of a side of a picture that the cells of a gate cover, from its beginning.

    Networks that halve their input leave out what is no whole cell. Of any other the cells are
    taken to be spread over the whole side.
    """
    side = pixels if settings.is_timeline else settings.size  # of the network's input
    halvings = math.floor(math.log2(side / cells))
    if not settings.is_timeline and side >> halvings != cells:
        return 1.0
    return cells * 2**halvings / side
