"""A voice that is no recording: pulses of a larynx through the resonances of vowels."""

import numpy as np
import scipy.signal

RATE = 16_000
# The first three formants of five vowels in Hz, about those of Peterson and Barney (1952).
VOWELS = (
    (730, 1090, 2440),
    (270, 2290, 3010),
    (570, 840, 2410),
    (530, 1840, 2480),
    (300, 870, 2240),
)
WIDTHS = (80, 100, 140)  # Hz
SYLLABLE = 0.18  # seconds


def babble(seconds: float, seed: int = 0) -> np.ndarray:
    """Vowels in turn, a syllable each, with a melody; float64 [n] at 16 kHz, 0.5 at the loudest."""
    rng, count = np.random.default_rng(seed), round(seconds * RATE)
    time = np.arange(count) / RATE
    melody = 120 * 2 ** (
        0.25 * np.sin(2 * np.pi * 0.7 * time) + 0.02 * rng.normal(size=count).cumsum() / 50
    )
    phase = np.cumsum(melody / RATE)
    pulses = np.diff(np.floor(phase), prepend=0) + 0.005 * rng.normal(size=count)
    said, size = np.zeros(count), round(SYLLABLE * RATE)
    for number, start in enumerate(range(0, count, size)):
        part = pulses[start : start + size]
        for formant, width in zip(VOWELS[(number + seed) % 5], WIDTHS, strict=True):
            radius = np.exp(-np.pi * width / RATE)
            poles = [1, -2 * radius * np.cos(2 * np.pi * formant / RATE), radius**2]
            part = scipy.signal.lfilter([1 - radius], poles, part)
        said[start : start + size] = (
            part * np.sin(np.pi * (np.arange(len(part)) + 0.5) / size) ** 0.5
        )
    return 0.5 * said / np.abs(said).max()
