"""A waveform drawn as one 8-bit picture, equal to the one DeepSpectrum plots, without plotting.

DeepSpectrum (0.6.9) paints a decibel matrix as flat cells on a small axes-free canvas. Each pixel
therefore shows the one cell under its centre, and the picture is a gather of rows and columns.
Pictures hold indices into a 256-entry colour map; colours are applied later.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from numbers import Integral, Real
from typing import NamedTuple
from warnings import catch_warnings, simplefilter

import librosa
import numpy as np
import scipy.fft
from scipy.sparse import csr_array

from ds_jax.features import windows

AMIN = 1e-10  # the power below which librosa.power_to_db sees silence
LINEAR_HZ = 1000.0  # below this the axis of librosa.display.specshow(y_axis="mel") is linear
BLOCK = 64  # frames transformed at a time, so that their spectra stay in the cache

CHOICES = {
    "mode": ("mel", "spectrogram", "chroma"),
    "layout": ("deepspectrum", "plain"),
    "preprocessing": ("caffe", "deepspectrum"),
}
# The smallest and the largest value of each numeric field. VGG16 halves its input five times.
RANGES = {
    "sample_rate": (0, 768_000),
    "n_fft": (0, 1 << 20),
    "hop": (0, 1 << 20),
    "mel_bands": (2, 4096),
    "fmin": (0.0, math.inf),
    "fmax": (0.0, math.inf),
    "floor_db": (0.0, math.inf),
    "window": (0.0, math.inf),
    "window_hop": (0.0, math.inf),
    "canvas": (16, 4096),
    "size": (32, 4096),
}
KINDS = {int: "a whole number", float: "a number"}
ON_DEVICE = ("colour_map", "size", "preprocessing")  # they leave the stored picture as it is


@dataclass(frozen=True)
class PictureSettings:
    """How a waveform becomes a picture. The defaults are DeepSpectrum's for 16 kHz speech.

    Attributes:
        sample_rate: Hz the audio is resampled to; 0 keeps its own rate.
        mode: "mel" (dB), "spectrogram" (dB, linear in frequency) or "chroma" (pitch classes).
        layout: "deepspectrum" (rows follow the frequency axis DeepSpectrum plots on) or "plain"
            (all rows equally high).
        n_fft: samples in a frame; 0 is the next power of two of 25 ms. Even.
        hop: samples between frames; 0 is half of n_fft.
        mel_bands: bands of mode "mel".
        fmin: Hz, lowest frequency.
        fmax: Hz, highest frequency; 0 is half the rate.
        floor_db: dB below the maximum at which the colours end; 0 is no floor.
        window: seconds of audio in one picture; 0 puts the whole file in one.
        window_hop: seconds between the starts of windows; 0 is window.
        canvas: pixels, side of the stored picture.
        colour_map: name of the colour map, applied on the device.
        size: pixels, side of the network's input, resized on the device.
        preprocessing: "caffe" (subtracts the ImageNet means, as Keras does) or "deepspectrum"
            (does not), on the device.

    Raises:
        ValueError: naming the field that is of the wrong type or out of its range.
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
    window: float = 0.0
    window_hop: float = 0.0
    canvas: int = 227
    colour_map: str = "viridis"
    size: int = 224
    preprocessing: str = "caffe"

    def __post_init__(self):
        for field in fields(self):
            value = _checked(field.name, field.type, getattr(self, field.name))
            object.__setattr__(self, field.name, value)  # 1 and 1.0 must give one key
        if self.n_fft % 2:
            raise ValueError(
                f"picture.n_fft={self.n_fft} is odd; give 0 or an even number of samples"
            )
        if self.window_hop and not self.window:
            raise ValueError(
                f"picture.window_hop={self.window_hop} needs a window; give picture.window above 0"
            )
        if self.sample_rate:
            _band(self, self.sample_rate)

    @property
    def drawn(self) -> dict:
        """The fields that change the stored picture."""
        return {name: value for name, value in asdict(self).items() if name not in ON_DEVICE}

    def key(self) -> str:
        """A short name of the stored pictures, fit for folders: equal drawn fields, equal key."""
        text = json.dumps(self.drawn, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        return f"{self.mode}-{self.layout}-{self.canvas}-{digest}"


def draw(samples: np.ndarray, rate: int, settings: PictureSettings) -> np.ndarray:
    """Draws audio as one picture.

    Args:
        samples: float [n], mono, n >= 1; shorter than a frame is padded with zeros.
        rate: Hz.
        settings: see PictureSettings.

    Returns:
        uint8 [canvas, canvas], indices into a 256-entry colour map; row 0 is the highest frequency.

    Raises:
        ValueError: when fmin or fmax does not fit the rate, or samples is not a non-empty vector.
    """
    cells = matrix(samples, rate, settings)
    low, high = cells.min(), cells.max()
    columns = pixels_to_cells(settings.canvas, len(cells))
    cells = cells[columns]  # only what is seen needs its logarithm
    if settings.mode != "chroma":
        low, high, cells = (10 * np.log10(np.maximum(x, AMIN)) for x in (low, high, cells))
        if settings.floor_db:
            low = max(low, high - settings.floor_db)
    indices = (cells - low) * (256 / (high - low) if high > low else 0.0)
    return np.clip(indices, 0, 255).astype(np.uint8).T[_rows(settings, rate)]


def split_windows(samples: np.ndarray, rate: int, settings: PictureSettings) -> list[np.ndarray]:
    """Cuts audio in windows as DeepSpectrum does, see `windows.count`.

    Args:
        samples: float [n].
        rate: Hz.
        settings: window and window_hop in seconds are used.

    Returns:
        Views of samples; [samples] if window is 0.
    """
    if not settings.window:
        return [samples]
    length, step = windows.in_samples(settings.window, settings.window_hop, rate)
    starts = (index * step for index in range(windows.count(len(samples), step)))
    return [samples[start : start + length] for start in starts]


class Plan(NamedTuple):
    """What of a drawing is known before the audio is.

    Attributes:
        n_fft: Samples in a frame.
        hop: Samples between the starts of frames.
        hann: float32 [n_fft], the window that a frame is multiplied by.
        weights: float64 [n_fft // 2 + 1, rows of the matrix], from a frame's power spectrum.
        rows: int [canvas], the matrix's row that each of the picture's rows shows, from the top.
    """

    n_fft: int
    hop: int
    hann: np.ndarray
    weights: np.ndarray
    rows: np.ndarray


def plan(settings: PictureSettings, rate: int) -> Plan:
    """Plans the drawing of mode "mel" or "spectrogram" for whoever draws in another place.

    Raises:
        ValueError: when fmin or fmax does not fit the rate, or the mode is "chroma", whose tuning
            depends on the audio.
    """
    if settings.mode == "chroma":
        raise ValueError("mode='chroma' cannot be planned: its tuning depends on the audio.")
    n_fft, hop = _frame(settings, rate)
    low, high = _band(settings, rate)
    if settings.mode == "mel":
        weights = _mel(rate, n_fft, settings.mel_bands, low, high).toarray().T
    else:
        first, last = _bins(low, high, rate, n_fft)
        weights = np.eye(n_fft // 2 + 1)[:, first : last + 1]
    return Plan(n_fft, hop, _hann(n_fft), weights, _rows(settings, rate))


def matrix(samples: np.ndarray, rate: int, settings: PictureSettings) -> np.ndarray:
    """Computes what is drawn, before decibels and colours.

    Args:
        samples: float [n], mono, n >= 1.
        rate: Hz.
        settings: see PictureSettings.

    Returns:
        float64 [frames, rows], lowest frequency first: power of mel bands or of Fourier bins, or
        the 12 pitch classes from C, each frame's largest being 1.

    Raises:
        ValueError: when fmin or fmax does not fit the rate, or samples is not a non-empty vector.
    """
    samples = np.asarray(samples, np.float32)
    if samples.ndim != 1 or not len(samples):
        raise ValueError(f"samples of shape {samples.shape} cannot be drawn; give one channel [n].")
    n_fft, hop = _frame(settings, rate)
    low, high = _band(settings, rate)
    if settings.mode == "spectrogram":
        first, last = _bins(low, high, rate, n_fft)
        return _power(samples, n_fft, hop)[:, first : last + 1]
    if settings.mode == "mel":
        return _power(samples, n_fft, hop, _mel(rate, n_fft, settings.mel_bands, low, high))
    power = _power(samples, n_fft, hop)
    with catch_warnings():
        simplefilter("ignore")  # librosa warns of audio without any pitch, and takes 0
        tuning = librosa.estimate_tuning(S=power.T, sr=rate, n_fft=n_fft, bins_per_octave=12)
    classes = power @ _chroma(rate, n_fft, float(tuning), low, high)
    peaks = classes.max(axis=1, keepdims=True)
    return classes / np.where(peaks > np.finfo(np.float32).tiny, peaks, 1)


def _checked(name: str, kind: type, value):
    if kind is str:
        if not isinstance(value, str) or not value:
            raise ValueError(f"picture.{name}={value!r} is not a name; give a non-empty string")
        if value not in CHOICES.get(name, (value,)):
            raise ValueError(f"picture.{name}={value!r} is unknown; give one of {CHOICES[name]}")
        return value
    number = Integral if kind is int else Real
    low, high = RANGES[name]
    if isinstance(value, bool) or not isinstance(value, number):
        raise ValueError(f"picture.{name}={value!r} is of the wrong type; give {KINDS[kind]}")
    if not (low <= value <= high and math.isfinite(value)):
        most = f"to {high}" if math.isfinite(high) else "on"
        raise ValueError(
            f"picture.{name}={value!r} is out of range; give {KINDS[kind]} from {low} {most}"
        )
    return kind(value)


def _frame(settings: PictureSettings, rate: int) -> tuple[int, int]:
    n_fft = settings.n_fft or max(2, 1 << (int(rate * 0.025) - 1).bit_length())
    return n_fft, settings.hop or n_fft // 2


def _band(settings: PictureSettings, rate: int) -> tuple[float, float]:
    low, high = settings.fmin, settings.fmax or rate / 2
    if high > rate / 2:
        raise ValueError(
            f"picture.fmax={high} is above half the rate of {rate} Hz; give at most that"
        )
    if low >= high:
        raise ValueError(
            f"picture.fmin={low} is not below the highest frequency, {high} Hz; lower it"
        )
    return low, high


def _bins(low: float, high: float, rate: int, n_fft: int) -> tuple[int, int]:
    """First and last Fourier bin of the fewest that span low to high Hz."""
    return math.floor(low * n_fft / rate), math.ceil(high * n_fft / rate)


def _power(samples: np.ndarray, n_fft: int, hop: int, bands: csr_array | None = None) -> np.ndarray:
    """Power spectra of all whole frames, float64 [frames, n_fft // 2 + 1], or power in bands."""
    if len(samples) < n_fft:
        samples = np.pad(samples, (0, n_fft - len(samples)))
    frames = np.lib.stride_tricks.sliding_window_view(samples, n_fft)[::hop]
    # From here on in float64: in float32 rounding, which is another on each machine, would choose
    # between two colours where a cell is on their border.
    bins = n_fft // 2 + 1
    power = np.empty((len(frames), bins if bands is None else bands.shape[0]), np.float64)
    for start in range(0, len(frames), BLOCK):
        spectra = scipy.fft.rfft(frames[start : start + BLOCK] * _hann(n_fft), axis=1)
        block = np.square(spectra.real, dtype=np.float64)
        block += np.square(spectra.imag, dtype=np.float64)
        power[start : start + BLOCK] = block if bands is None else (bands @ block.T).T
    return power


@lru_cache
def _hann(n_fft: int) -> np.ndarray:
    return librosa.filters.get_window("hann", n_fft, fftbins=True).astype(np.float32)


@lru_cache
def _mel(rate: int, n_fft: int, bands: int, low: float, high: float) -> csr_array:
    """Slaney's mel bands of equal area, float64 [bands, bins]."""
    # A bin is in two bands at most. A dense product is slower, and far slower on busy cores.
    weights = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=bands, fmin=low, fmax=high)
    return csr_array(weights.astype(np.float64))


@lru_cache
def _chroma(rate: int, n_fft: int, tuning: float, low: float, high: float) -> np.ndarray:
    """Weights of Fourier bins in pitch classes, float32 [bins, 12], none outside low to high Hz."""
    frequencies = librosa.fft_frequencies(sr=rate, n_fft=n_fft)
    inside = (low <= frequencies) & (frequencies <= high)
    return librosa.filters.chroma(sr=rate, n_fft=n_fft, tuning=tuning).T * inside[:, None]


def pixels_to_cells(pixels: int, cells: int) -> np.ndarray:
    """The cell under each pixel's centre when equal cells fill the side, int [pixels]."""
    # A centre on an edge belongs to the cell before it: matplotlib rounds edges half up.
    return ((2 * np.arange(pixels) + 1) * cells - 1) // (2 * pixels)


@lru_cache
def _rows(settings: PictureSettings, rate: int) -> np.ndarray:
    """The matrix's row that each of the picture's rows shows, from the top, int [canvas]."""
    n_fft, _ = _frame(settings, rate)
    low, high = _band(settings, rate)
    first, last = _bins(low, high, rate, n_fft)
    count = {"mel": settings.mel_bands, "spectrogram": last - first + 1, "chroma": 12}[
        settings.mode
    ]
    if settings.layout == "plain" or settings.mode == "chroma":
        return count - 1 - pixels_to_cells(settings.canvas, count)
    if settings.mode == "mel":
        edges = _symlog(_edges(librosa.mel_frequencies(count, fmin=low, fmax=high)))
        bottom, top = edges[0], edges[-1]
    else:
        edges = _edges(np.arange(first, last + 1) * (rate / n_fft))
        bottom, top = low, high
    centres = top - (top - bottom) * (np.arange(settings.canvas) + 0.5) / settings.canvas
    return np.searchsorted(edges, centres, side="right") - 1


def _edges(centres: np.ndarray) -> np.ndarray:
    """Cell edges half way between centres, the outer ones mirrored (pcolormesh, "nearest")."""
    half = np.diff(centres) / 2
    return np.concatenate([centres[:1] - half[:1], centres[:-1] + half, centres[-1:] + half[-1:]])


def _symlog(frequencies: np.ndarray) -> np.ndarray:
    """Heights on matplotlib's symlog axis of base 2, in units of its linear part's 1000 Hz."""
    scaled = np.abs(frequencies) / LINEAR_HZ
    heights = np.where(scaled <= 1, 2 * scaled, 2 + np.log2(np.maximum(scaled, 1)))
    return np.copysign(heights, frequencies)
