"""What a system reads of a recording: pictures of it, or a baseline's features."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from ds_jax.features import audio, extract, spectrogram
from ds_jax.features.extract import FeatureSettings
from ds_jax.features.spectrogram import PictureSettings

Settings = PictureSettings | FeatureSettings


def settings(config: Mapping) -> Settings:
    """Returns what a config wants: `config.features` if it has that field, else `config.picture`.

    Raises:
        ValueError: A field has an impossible value.
    """
    if "features" in config:
        return FeatureSettings(config["features"])
    try:
        return PictureSettings(**config["picture"])
    except ValueError as error:
        raise ValueError(f"picture.{error}") from error


def read(path: str | Path, wanted: Settings) -> tuple[float, list[np.ndarray], str]:
    """Decodes a recording and represents it.

    Args:
        path: The recording.
        wanted: How.

    Returns:
        Its length in seconds; either a picture for each window, uint8 [canvas, canvas], or one
        array of features, float32 [d] or [frames, d]; and the SHA-256 of its samples, in hex.

    Raises:
        FileNotFoundError, ValueError: It cannot be used, see `audio.read`.
    """
    samples, rate = audio.read(path, wanted.sample_rate)
    seconds, digest = len(samples) / rate, hashlib.sha256(samples).hexdigest()
    if isinstance(wanted, FeatureSettings):
        return seconds, [_represent(samples, rate, wanted)], digest
    cut = spectrogram.split_windows(samples, rate, wanted)
    return seconds, [_represent(window, rate, wanted) for window in cut], digest


def windows(
    path: str | Path, wanted: Settings, window: float, hop: float, to_end: bool = False
) -> Iterator[tuple[float, float, float, np.ndarray | ValueError]]:
    """Represents a recording window by window; of a long one only a few are in memory at a time.

    Args:
        path: The recording.
        wanted: How; windows of its own are left aside.
        window: Seconds; 0 takes the recording whole.
        hop: Seconds between the starts of windows; 0 is window.
        to_end: Whether the end of the recording is in a window, see `windows.count_to_end`.

    Yields:
        Length of the recording, start and end in seconds; and a picture, an array of features,
        or, where a recording has several windows, why this one has no features.

    Raises:
        FileNotFoundError, ValueError: The recording cannot be used, see `audio.read`.
    """
    if not window:
        samples, rate = audio.read(path, wanted.sample_rate)
        seconds = len(samples) / rate
        yield seconds, 0.0, seconds, _represent(samples, rate, wanted)
        return
    found = audio.windows(path, wanted.sample_rate, window, hop, to_end)
    for seconds, start, rate, samples in found:
        try:
            represented = _represent(samples, rate, wanted)
        except ValueError as error:  # of silence or of too few samples
            represented = error
        yield seconds, start, start + len(samples) / rate, represented


def stack(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Puts pictures or features into one array; sequences of frames are padded with NaN.

    Returns:
        uint8 [n, canvas, canvas], float32 [n, d], or float32 [n, frames of the longest, d].
    """
    longest = max(len(array) for array in arrays)
    if all(len(array) == longest for array in arrays):
        return np.stack(arrays)
    padded = np.full((len(arrays), longest, *arrays[0].shape[1:]), np.nan, arrays[0].dtype)
    for row, array in zip(padded, arrays, strict=True):
        row[: len(array)] = array
    return padded


def _represent(samples: np.ndarray, rate: int, wanted: Settings) -> np.ndarray:
    if isinstance(wanted, FeatureSettings):
        return extract.compute(samples, rate, wanted)
    return spectrogram.draw(samples, rate, wanted)
