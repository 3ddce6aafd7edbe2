"""Draws a waveform as an 8-bit picture that equals DeepSpectrum's plot, without plotting.

DeepSpectrum (0.6.9) paints a matrix in decibels as flat cells on a small canvas without axes. Each
pixel therefore shows the cell under its centre, and the picture is a gather of rows and columns.
Pictures hold indices into a colour map of 256 entries; the device applies the colours later.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple
from warnings import catch_warnings, simplefilter

import librosa
import numpy as np
import scipy.fft
from scipy.sparse import csr_array, eye_array

from ds_jax.features import audio, mel
from ds_jax.features.source import Reading
from ds_jax.runtime.errors import ConfigError, check_choice, check_number

# Raise this whenever the pictures of equal settings change: prepared corpora are then drawn again.
VERSION = 1
AMIN = 1e-10  # the power of silence in librosa.power_to_db
LINEAR_HZ = 1000.0  # below this the axis of librosa.display.specshow(y_axis="mel") is linear
BLOCK = 64  # frames transformed at a time, so that their spectra stay in the cache

CHOICES = {
    "mode": ("mel", "spectrogram", "chroma"),
    "layout": ("deepspectrum", "plain", "timeline"),
    "preprocessing": ("caffe", "deepspectrum", "rgb", "tf", "torch"),
}
# The smallest and the largest value of each numeric field. VGG16 halves its input five times.
RANGES = {
    "sample_rate": (0, 768_000),
    **dict.fromkeys(("n_fft", "hop"), (0, 1 << 20)),
    "mel_bands": (2, 4096),
    **dict.fromkeys(("fmin", "fmax", "floor_db", "window", "window_hop"), (0.0, math.inf)),
    "canvas": (16, 4096),
    "size": (32, 4096),
}
LEAST_WIDTH = 64  # pixels of a timeline, and LEAST_BANDS its height: VGG16 halves both five times
LEAST_BANDS = 32
BAND_RANGE = 30.0  # dB around a band's mean over time that the colours of a timeline span
ON_DEVICE = ("colour_map", "size", "preprocessing")  # fields that do not change stored pictures


@dataclass(frozen=True)
class PictureSettings(Reading):
    """How a recording becomes a picture. The defaults are DeepSpectrum's for 16 kHz speech.

    Attributes:
        sample_rate: Hz to which the audio is resampled; 0 keeps the rate of the file.
        mode: "mel" (dB), "spectrogram" (dB, linear in frequency) or "chroma" (pitch classes).
        layout: "deepspectrum" (rows follow the frequency axis DeepSpectrum plots on) or "plain"
            (all rows equally high), or "timeline": a pixel a frame and a row a mel band, so that
            pictures are as wide as recordings are long; `canvas` and `size` do not apply.
        n_fft: samples in a frame, an even number; 0 means the next power of two of 25 ms.
        hop: samples between the starts of frames; 0 means half of n_fft.
        mel_bands: bands of mode "mel".
        fmin: Hz, lowest frequency.
        fmax: Hz, highest frequency; 0 means half the rate.
        floor_db: dB below the maximum at which the colours end; 0 means no floor.
        subtract_band_means: whether a timeline shows by how many dB, at most 30, a band is above or
            below its mean over time, which takes away what a microphone or a voice always adds.
        window: seconds of audio in a picture; 0 puts the whole recording into one.
        window_hop: seconds between the starts of windows; 0 means window.
        canvas: pixels on a side of the stored picture.
        colour_map: the name of a colour map, which the device applies.
        size: pixels on a side of the network's input; the device resizes the picture.
        preprocessing: What the device makes of colours: "deepspectrum" (what DeepSpectrum feeds the
            network) or what Keras trained it on, "caffe" (the ImageNet means subtracted), "rgb",
            "tf" or "torch", see `ds_jax.models.preprocessing`.

    Raises:
        ConfigError: A field has the wrong type or is out of its range.
    """

    sample_rate: int = 16000
    mode: str = "mel"
    layout: str = "deepspectrum"
    n_fft: int = 0
    hop: int = 0
    mel_bands: int = 128
    fmin: float = 0.0
    fmax: float = 0.0
    floor_db: float = 0.0
    subtract_band_means: bool = False
    window: float = 0.0
    window_hop: float = 0.0
    canvas: int = 227
    colour_map: str = "viridis"
    size: int = 224
    preprocessing: str = "caffe"

    def __post_init__(self):
        super().__post_init__()
        for field in fields(self)[len(fields(Reading)) :]:
            name, value = f"picture.{field.name}", getattr(self, field.name)
            if field.name in RANGES:
                check_number(name, value, field.type, *RANGES[field.name])
            elif field.name in CHOICES:
                check_choice(name, value, CHOICES[field.name])
            elif field.type is bool:
                if not isinstance(value, bool):
                    raise ConfigError(name, value, "True or False")
            elif not value or not isinstance(value, str):
                raise ConfigError(name, value, "the name of a colour map")
            object.__setattr__(self, field.name, field.type(value))  # 1 and 1.0 give one key
        if self.n_fft % 2:
            raise ConfigError("picture.n_fft", self.n_fft, "0 or an even number of samples")
        if self.window_hop and not self.window:
            raise ConfigError("picture.window_hop", self.window_hop, "0 where picture.window is 0")
        if self.sample_rate:
            _band(self, self.sample_rate)
        if self.is_timeline:
            self._check_timeline()
        elif self.subtract_band_means:
            allowed = "False where picture.layout is not 'timeline'"
            raise ConfigError("picture.subtract_band_means", True, allowed)

    def _check_timeline(self) -> None:
        if self.mode != "mel":
            raise ConfigError("picture.mode", self.mode, "'mel' where picture.layout is 'timeline'")
        if self.mel_bands < LEAST_BANDS:
            allowed = f"at least {LEAST_BANDS} where picture.layout is 'timeline'"
            raise ConfigError("picture.mel_bands", self.mel_bands, allowed)
        for field in fields(self):
            if field.name in ("canvas", "size") and getattr(self, field.name) != field.default:
                allowed = f"{field.default}: a timeline is as high as it has bands"
                raise ConfigError(f"picture.{field.name}", getattr(self, field.name), allowed)

    @property
    def is_timeline(self) -> bool:
        """Whether pictures are as wide as recordings are long."""
        return self.layout == "timeline"

    @property
    def shape(self) -> tuple[int, int | None]:
        """The height and the width of a stored picture; None where each has its width."""
        return (self.mel_bands, None) if self.is_timeline else (self.canvas, self.canvas)

    @property
    def windowing(self) -> audio.Windowing:
        """How recordings are cut into windows."""
        return audio.Windowing(self.window, self.window_hop)

    def key(self) -> str:
        """Returns a short name for folders; it differs if the stored pictures differ."""
        unstored = {*ON_DEVICE, *(field.name for field in fields(Reading))}
        if not self.subtract_band_means:  # names from before there was this field stay
            unstored.add("subtract_band_means")
        stored = {name: value for name, value in asdict(self).items() if name not in unstored}
        text = json.dumps(stored, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        version = f"-{VERSION}" if VERSION > 1 else ""  # version 1 is older than this number
        return f"{self.mode}-{self.layout}-{self.canvas}-{digest}{version}{self.reading_key()}"

    def advise(self, rate: int) -> str:
        """Returns what helps where recordings lack what is above half of a rate in Hz."""
        return (
            f"make models or features with --config.picture.sample_rate={rate}, which hear no "
            "higher frequencies in any recording"
        )


def draw(samples: np.ndarray, rate: int, settings: PictureSettings) -> np.ndarray:
    """Draws audio as one picture.

    Args:
        samples: float [n], mono, n >= 1; audio shorter than a frame is padded with zeros.
        rate: Hz.
        settings: How the picture is drawn.

    Returns:
        uint8 [canvas, canvas], indices into a colour map of 256 entries; row 0 is the highest
        frequency. A timeline is uint8 [mel_bands, frames or, if those are fewer, 64], and never 0.

    Raises:
        ConfigError: fmin or fmax does not fit the rate.
        ValueError: samples is not a vector, or is empty.
    """
    cells = matrix(samples, rate, settings)
    low, high = cells.min(), cells.max()
    if settings.is_timeline:
        if settings.subtract_band_means:
            cells = decibels(np, cells, high, settings)
            picture = deviation_indices(np, cells - cells.mean(axis=0)).T[::-1]
        else:
            picture = colour_indices(np, cells, low, high, settings).T[::-1]
        after = ((0, 0), (0, max(0, LEAST_WIDTH - len(cells))))
        return np.maximum(np.pad(picture, after), 1)  # 0 is left for what is no picture
    cells = cells[pixels_to_cells(settings.canvas, len(cells))]  # only these need a logarithm
    return colour_indices(np, cells, low, high, settings).T[plan(settings, rate).rows]


def decibels(xp: ModuleType, cells: Any, high: Any, settings: PictureSettings) -> Any:
    """Maps powers to decibels, none of which is below the floor; see `colour_indices`."""
    levels = 10 * xp.log10(xp.maximum(cells, AMIN))
    if not settings.floor_db:
        return levels
    return xp.maximum(levels, 10 * xp.log10(xp.maximum(high, AMIN)) - settings.floor_db)


def deviation_indices(xp: ModuleType, deviations: Any) -> Any:
    """Maps differences in decibels to a band's mean to the indices of colours, uint8."""
    shares = (deviations + BAND_RANGE) / (2 * BAND_RANGE)
    return xp.clip(256 * shares, 0, 255).astype(xp.uint8)


def colour_indices(xp: ModuleType, cells: Any, low: Any, high: Any, settings: PictureSettings):
    """Maps what is drawn to the indices of colours.

    Args:
        xp: `numpy`, or `jax.numpy` for arrays of JAX.
        cells: float [columns, rows], part of a `matrix`.
        low, high: The lowest and the highest value of the whole matrix.
        settings: How the picture is drawn.

    Returns:
        uint8 [columns, rows].
    """
    if settings.mode != "chroma":
        low, cells, high = (decibels(xp, x, high, settings) for x in (low, cells, high))
    indices = (cells - low) * (256 / xp.where(high > low, high - low, xp.inf))
    return xp.clip(indices, 0, 255).astype(xp.uint8)


def widths(timelines: Any) -> np.ndarray:
    """Returns the columns of each timeline, int [n], of timelines that are padded with 0.

    Args:
        timelines: uint8 [n, bands, widest], in memory or on the disk; a few are read at a time.
    """
    parts = (timelines[start : start + 32] for start in range(0, len(timelines), 32))
    return np.concatenate([(part[:, 0] > 0).sum(axis=1) for part in parts])


def unpadded(timeline: np.ndarray) -> np.ndarray:
    """Returns a timeline, uint8 [bands, width], without the padding after its end."""
    return timeline[:, : int(widths(timeline[None])[0])]


def padded_width(width: int) -> int:
    """Returns to how many columns timelines are padded to be computed: to one of few numbers.

    There are two for each doubling, so that at most a third of what is computed is padding.
    """
    step = max(LEAST_WIDTH, 1 << (int(width) - 1).bit_length()) // 4
    return -(-int(width) // step) * step


class Plan(NamedTuple):
    """The part of a drawing that does not depend on the audio.

    Attributes:
        n_fft: Samples in a frame.
        hop: Samples between the starts of frames.
        hann: float32 [n_fft], the window by which a frame is multiplied.
        weights: float64 [rows of the matrix, n_fft // 2 + 1], which map a frame's power spectrum
            to its rows; None in mode "chroma", whose tuning depends on the audio.
        rows: int [height], the row of the matrix that each row of the picture shows, from the top.
        hertz: float64 [height], the frequency at the centre of each row of the picture; NaN in mode
            "chroma", whose rows are pitch classes.
    """

    n_fft: int
    hop: int
    hann: np.ndarray
    weights: csr_array | None
    rows: np.ndarray
    hertz: np.ndarray


@lru_cache
def plan(settings: PictureSettings, rate: int) -> Plan:
    """Plans the drawing of audio at a rate in Hz.

    Raises:
        ConfigError: fmin or fmax does not fit the rate.
    """
    low, high = _band(settings, rate)
    n_fft = settings.n_fft or max(2, 1 << (int(rate * 0.025) - 1).bit_length())
    # The first and the last of the fewest Fourier bins that span low to high Hz.
    first, last = math.floor(low * n_fft / rate), math.ceil(high * n_fft / rate)
    weights, count = None, 12
    borders = np.full(count + 1, np.nan)  # of the matrix' rows, in Hz
    if settings.mode == "mel":
        count = settings.mel_bands
        # A bin is in at most two bands. A dense product is slower, and far slower on busy cores.
        weights = csr_array(mel.bands(rate, n_fft, count, low, high).astype(np.float64))
        edges = _symlog(_edges(mel.frequencies(count, low, high)))
        bottom, top = edges[0], edges[-1]
        # Band k of a mel filter bank peaks at the mel frequency k + 1 of count + 2.
        borders = mel.frequencies(2 * count + 3, low, high)[1:-1:2]
    elif settings.mode == "spectrogram":
        count = last - first + 1
        weights = eye_array(n_fft // 2 + 1, format="csr")[first : last + 1]
        edges = borders = _edges(np.arange(first, last + 1) * (rate / n_fft))
        bottom, top = low, high
    height = count if settings.is_timeline else settings.canvas
    from_top = (np.arange(height) + 0.5) / height
    if settings.layout != "deepspectrum" or settings.mode == "chroma":
        rows = count - 1 - pixels_to_cells(height, count)
        hertz = np.interp(count * (1 - from_top), np.arange(count + 1), borders)
    else:
        centres = top - (top - bottom) * from_top
        rows = np.searchsorted(edges, centres, side="right") - 1
        hertz = np.interp(centres, edges, borders)
    hann = 0.5 + 0.5 * np.cos(np.linspace(-np.pi, np.pi, n_fft + 1)[:-1])
    hop = settings.hop or n_fft // 2
    return Plan(n_fft, hop, hann.astype(np.float32), weights, rows, hertz)


def matrix(samples: np.ndarray, rate: int, settings: PictureSettings) -> np.ndarray:
    """Computes the matrix that is drawn, before decibels and colours.

    Args:
        samples, rate, settings: As in `draw`.

    Returns:
        float64 [frames, rows], lowest frequency first: power of mel bands or of Fourier bins, or
        the 12 pitch classes from C, the largest of each frame being 1.

    Raises:
        ConfigError, ValueError: As in `draw`.
    """
    samples = np.asarray(samples, np.float32)
    if samples.ndim != 1 or not len(samples):
        raise ValueError(f"samples of shape {samples.shape} cannot be drawn; give one channel [n]")
    planned = plan(settings, rate)
    power = _power(samples, planned)
    if planned.weights is not None:
        return power
    with catch_warnings():
        simplefilter("ignore")  # librosa warns of audio without any pitch, and takes 0
        tuning = librosa.estimate_tuning(S=power.T, sr=rate, n_fft=planned.n_fft)
    classes = power @ _chroma(rate, planned.n_fft, float(tuning), *_band(settings, rate))
    peaks = classes.max(axis=1, keepdims=True)
    return classes / np.where(peaks > np.finfo(np.float32).tiny, peaks, 1)


def _band(settings: PictureSettings, rate: int) -> tuple[float, float]:
    low, high = settings.fmin, settings.fmax or rate / 2
    if high > rate / 2:
        raise ConfigError("picture.fmax", high, f"at most half the rate of {rate} Hz")
    if low >= high:
        raise ConfigError("picture.fmin", low, f"below the highest frequency, {high:g} Hz")
    return low, high


def _power(samples: np.ndarray, planned: Plan) -> np.ndarray:
    """Returns the power of all whole frames, float64 [frames, rows], or [frames, bins]."""
    n_fft, hop, hann, weights, *_ = planned
    if len(samples) < n_fft:
        samples = np.pad(samples, (0, n_fft - len(samples)))
    frames = np.lib.stride_tricks.sliding_window_view(samples, n_fft)[::hop]
    # The rest is float64: with float32 the rounding, which differs between machines, would choose
    # between two colours where a cell is on their border.
    rows = n_fft // 2 + 1 if weights is None else weights.shape[0]
    power = np.empty((len(frames), rows), np.float64)
    for start in range(0, len(frames), BLOCK):
        spectra = scipy.fft.rfft(frames[start : start + BLOCK] * hann, axis=1)
        block = np.square(spectra.real, dtype=np.float64)
        block += np.square(spectra.imag, dtype=np.float64)
        power[start : start + BLOCK] = block if weights is None else (weights @ block.T).T
    return power


@lru_cache
def _chroma(rate: int, n_fft: int, tuning: float, low: float, high: float) -> np.ndarray:
    """Returns the weights of Fourier bins in pitch classes, float32 [bins, 12]."""
    frequencies = librosa.fft_frequencies(sr=rate, n_fft=n_fft)
    inside = (low <= frequencies) & (frequencies <= high)
    return librosa.filters.chroma(sr=rate, n_fft=n_fft, tuning=tuning).T * inside[:, None]


def pixels_to_cells(pixels: int, cells: int) -> np.ndarray:
    """Returns the cell under each pixel's centre when equal cells fill a side, int [pixels]."""
    # A centre on an edge belongs to the cell before it: matplotlib rounds edges half up.
    return ((2 * np.arange(pixels) + 1) * cells - 1) // (2 * pixels)


def _edges(centres: np.ndarray) -> np.ndarray:
    """Returns edges half way between centres, the outer ones mirrored (pcolormesh, "nearest")."""
    half = np.diff(centres) / 2
    return np.concatenate([centres[:1] - half[:1], centres[:-1] + half, centres[-1:] + half[-1:]])


def _symlog(frequencies: np.ndarray) -> np.ndarray:
    """Returns heights on matplotlib's symlog axis of base 2, in units of its linear 1000 Hz."""
    scaled = np.abs(frequencies) / LINEAR_HZ
    heights = np.where(scaled <= 1, 2 * scaled, 2 + np.log2(np.maximum(scaled, 1)))
    return np.copysign(heights, frequencies)
