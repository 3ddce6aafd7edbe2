"""Variants of recordings, such as faster ones, on which models are trained besides."""

import zlib
from collections.abc import Callable

import numpy as np
import soxr

from ds_jax.runtime.errors import ConfigError


def _speed(samples: np.ndarray, rate: int, factor: float) -> np.ndarray:
    """Plays a recording faster: time, pitch and formants scale together (Ko et al., 2015)."""
    return soxr.resample(samples, rate * factor, rate)


def _pitch(samples: np.ndarray, rate: int, semitones: float) -> np.ndarray:
    """Scales all frequencies and keeps time, as a shorter or longer vocal tract does."""
    import librosa.effects  # slow to import, and rarely needed

    padded = np.pad(samples, (0, max(0, 64 - len(samples))))
    frame = min(1024, 1 << (len(padded).bit_length() - 1))  # samples, 64 ms at 16 kHz
    shifted = librosa.effects.pitch_shift(padded, sr=rate, n_steps=semitones, n_fft=frame)
    return shifted[: len(samples)]


def _noise(samples: np.ndarray, rate: int, snr: float) -> np.ndarray:
    """Adds white noise, the same to the same recording, that lies so many dB below its mean."""
    del rate
    level = np.sqrt(np.mean(np.square(samples, dtype=np.float64))) * 10 ** (-snr / 20)
    rng = np.random.default_rng(zlib.crc32(samples.tobytes()))
    return samples + level * rng.standard_normal(len(samples))


# By its name what a kind of variant does, and the least and the largest value that it takes.
KINDS: dict[str, tuple[Callable, float, float]] = {
    "speed": (_speed, 0.5, 2.0),  # times as fast
    "pitch": (_pitch, -12.0, 12.0),  # semitones higher
    "noise": (_noise, -10.0, 80.0),  # dB below the recording
}


def parse(variant: str) -> tuple[Callable, float]:
    """Returns what a variant such as "speed=0.9" does to samples at a rate, and by how much.

    Raises:
        ConfigError: There is no such variant.
    """
    kind, _, text = variant.partition("=")
    function, low, high = KINDS.get(kind, (None, 0.0, 0.0))
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not low <= value <= high or function is None:
        known = ", ".join(
            f"{name}=X with X from {a:g} to {b:g}" for name, (_, a, b) in KINDS.items()
        )
        raise ConfigError("variants", variant, f"one of {known}")
    return function, value


def vary(samples: np.ndarray, rate: int, variant: str) -> np.ndarray:
    """Returns a variant of a recording.

    Args:
        samples: float [n], mono, n >= 1.
        rate: Hz.
        variant: Such as "speed=0.9"; "" is the recording itself.

    Returns:
        float32 [m], clipped at full scale; m is n but for another speed.

    Raises:
        ConfigError: There is no such variant.
    """
    if not variant:
        return samples
    function, value = parse(variant)
    varied = function(np.asarray(samples, np.float32), rate, value)
    return np.clip(varied, -1, 1).astype(np.float32)
