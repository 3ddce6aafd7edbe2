"""What a system reads of a recording: pictures of it, or a baseline's features."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ds_jax import audio, features, picture
from ds_jax.features import FeatureSettings
from ds_jax.picture import PictureSettings

Settings = PictureSettings | FeatureSettings


def settings(config: Mapping) -> Settings:
    """Returns what a config wants: `config.features` if it has that field, else `config.picture`.

    Raises:
        ValueError: A field has an impossible value.
    """
    if "features" in config:
        return FeatureSettings(config["features"])
    return PictureSettings(**config["picture"])


def read(path: str | Path, wanted: Settings) -> tuple[float, list[np.ndarray]]:
    """Decodes a recording and represents it.

    Args:
        path: The recording.
        wanted: How.

    Returns:
        Its length in seconds, and either a picture for each window, uint8 [canvas, canvas], or one
        array of features, float32 [d] or [frames, d].

    Raises:
        FileNotFoundError, ValueError: It cannot be used, see `audio.read`.
    """
    samples, rate = audio.read(path, wanted.sample_rate)
    seconds = len(samples) / rate
    if isinstance(wanted, FeatureSettings):
        return seconds, [features.compute(samples, rate, wanted)]
    windows = picture.cut(samples, rate, wanted)
    return seconds, [picture.draw(window, rate, wanted) for window in windows]


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
