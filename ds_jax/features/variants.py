"""Variants of recordings, such as faster ones, on which models are trained too."""

import zlib
from collections.abc import Callable, Sequence

import numpy as np
import soxr

from ds_jax.runtime.errors import ConfigError, number

VERSION = 1  # is a part of the names of prepared data: raise it whenever a variant changes

MOST_GAIN = np.log(100)  # of another vocal tract at any frequency: 40 dB, up or down


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


def _tract(samples: np.ndarray, rate: int, factor: float) -> np.ndarray:
    """Scales the formants, as a vocal tract so many times shorter does; pitch and time stay.

    The idea is Jaitly and Hinton's (2013), who scale whole spectra. The formants are here those of
    the true envelope (Imai and Abe, 1979; Röbel and Rodet, 2005): the cepstrum below the period,
    which is where the cepstrum peaks (Noll, 1967), follows the harmonics in place of what lies
    between them.
    """
    import librosa  # slow to import, and rarely needed

    frame = 1 << (max(64, int(0.025 * rate)) - 1).bit_length()  # samples, 32 ms at 16 kHz
    spectra = librosa.stft(np.pad(samples, (0, max(0, frame - len(samples)))), n_fft=frame)
    # The floor is about the rounding of 16 bits: what is quieter has no formants.
    raised = logs = np.log(np.maximum(np.abs(spectra), 1e-4))
    shortest = int(0.002 * rate)  # samples, a period of 500 Hz
    periods = shortest + np.fft.irfft(logs, axis=0)[shortest : frame // 2].argmax(axis=0)
    quefrencies = np.minimum(np.arange(frame), frame - np.arange(frame))
    kept = quefrencies[:, None] < np.minimum(0.9 * periods, 2 * shortest)
    for _ in range(10):  # more change little
        cepstra = kept * np.fft.irfft(raised, axis=0)
        raised = np.maximum(logs, np.fft.rfft(cepstra, axis=0).real)
    bins = np.arange(len(spectra))[:, None]
    old, new = (
        np.cos(2 * np.pi / frame * sources * quefrencies)
        for sources in (bins, np.minimum(bins / factor, bins[-1]))
    )
    gains = np.clip((new - old) @ cepstra, -MOST_GAIN, MOST_GAIN)
    return librosa.istft(spectra * np.exp(gains), n_fft=frame, length=len(samples))


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
    "tract": (_tract, 0.7, 1.4),  # times as short
    "noise": (_noise, -10.0, 80.0),  # dB below the recording
}
CHANGES_NOTHING = ("speed=1", "pitch=0", "tract=1")


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
