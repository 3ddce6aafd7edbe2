"""Variants of recordings, such as faster ones, on which models are trained too."""

import zlib
from collections.abc import Callable, Sequence

import numpy as np
import soxr

from ds_jax.runtime.errors import ConfigError, number

VERSION = 1  # is a part of the names of prepared data: raise it whenever a variant changes


def _speed(samples: np.ndarray, rate: int, factor: float) -> np.ndarray:
    """Plays a recording faster: time, pitch and formants scale together (Ko et al., 2015)."""
    return soxr.resample(samples, rate * factor, rate)


def _pitch(samples: np.ndarray, rate: int, semitones: float) -> np.ndarray:
    """Scales all frequencies, pitch and formants alike, and keeps the time."""
    import librosa.effects  # slow to import, and rarely needed

    padded = np.pad(samples, (0, max(0, 64 - len(samples))))
    frame = min(1024, 1 << (len(padded).bit_length() - 1))  # samples, 64 ms at 16 kHz
    shifted = librosa.effects.pitch_shift(padded, sr=rate, n_steps=semitones, n_fft=frame)
    return shifted[: len(samples)]


def _noise(samples: np.ndarray, rate: int, snr: float) -> np.ndarray:
    """Adds white noise whose power lies so many dB below the recording's mean power.

    A recording gets the same noise each time, and another at another level.
    """
    level = np.sqrt(np.mean(np.square(samples, dtype=np.float64))) * 10 ** (-snr / 20)
    rng = np.random.default_rng([zlib.crc32(samples.tobytes()), round(1000 * (snr + 10))])
    return samples + level * rng.standard_normal(len(samples))


# By its name what a kind of variant does, and the least and the largest value that it takes.
KINDS: dict[str, tuple[Callable, float, float]] = {
    "speed": (_speed, 0.5, 2.0),  # times as fast
    "pitch": (_pitch, -12.0, 12.0),  # semitones higher
    "noise": (_noise, -10.0, 80.0),  # dB below the recording
}
CHANGES_NOTHING = ("speed=1", "pitch=0")


def parse(variant: str) -> tuple[str, float]:
    """Returns the kind and the value of a variant such as "speed=0.9".

    Raises:
        ConfigError: There is no such variant.
    """
    kind, _, text = variant.partition("=")
    _, low, high = KINDS.get(kind, (None, np.inf, np.inf))
    value = number(text)
    if not low <= value <= high or f"{kind}={value:g}" in CHANGES_NOTHING:
        known = ", ".join(
            f"{name}=X with X from {low:g} to {high:g}" for name, (_, low, high) in KINDS.items()
        )
        raise ConfigError("variants", variant, f"{known}, and not {' or '.join(CHANGES_NOTHING)}")
    return kind, value


def check(variants: Sequence[str]) -> None:
    """Checks that some variants exist, and that they differ.

    Raises:
        ConfigError: One does not exist, or is given twice.
    """
    parsed = [parse(variant) for variant in variants]
    if len({*parsed}) < len(parsed):
        raise ConfigError("variants", tuple(variants), "different variants")


def key(variant: str) -> str:
    """Returns a part of the name of a folder, which differs if the variant's samples do."""
    kind, value = parse(variant)
    return f"{kind}{value:g}-{VERSION}"


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
    kind, value = parse(variant)
    varied = KINDS[kind][0](np.asarray(samples, np.float32), rate, value)
    return np.clip(varied, -1, 1).astype(np.float32)
