"""What is odd about recordings that can be used, and may change what models answer."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ds_jax.features.silence import Loudness
from ds_jax.features.source import Decoded, Reading
from ds_jax.runtime.files import printable
from ds_jax.runtime.progress import few, many

HEARD = 4  # blocks of a recording that are judged by their bands
# Speech has sound above this; telephones transmit 300 to 3400 Hz. The share of the power from here
# to 7600 Hz is 7e-4 and more in 240 recordings of EmoDB, EMOVO and RAVDESS, and 2e-5 and less in
# the same ones at 8 kHz.
BAND = 4480  # Hz
NARROW = 1e-4
WIDE = 16_000  # Hz, the rate at which those shares were measured
TELEPHONE = 8000  # Hz, the rate of its samples
ALIKE = 0.866  # a channel's correlation with the mean of two that correlate by 0.5
DEAD = 1e-5  # the share of the loudest channel's power below which another one is dead
PAUSE = 1.5  # seconds of silence around speech that are remarked on
PAUSE_TRIM = 40.0  # dB; how silence is found there


class Remark(NamedTuple):
    """An oddity of a recording.

    Attributes:
        kind: A key of `TEXTS`.
        detail: What is said of this recording, such as its rate; empty for nothing.
    """

    kind: str
    detail: str = ""


# What is said of several recordings. {rate} stands for the rate in Hz at which they are read, and
# {advice} for what the settings advise.
CHANGES = "models of other recordings may answer wrongly about them"
TEXTS = {
    "open": "read to the end of the file, since the header gives no length",
    "rate": (
        f"of a lower rate than {{rate}} Hz, and so without high frequencies: {CHANGES}; {{advice}}"
    ),
    "band": f"without sound at high frequencies, as from a telephone: {CHANGES}; {{advice}}",
    "silence": (
        f"with more than {PAUSE:g} s of silence before or after the speech: {CHANGES}; cut it off, "
        f"or make models or features with --config.trim={PAUSE_TRIM:g}, which cuts it off there "
        "and in predictions"
    ),
    "channels": (
        "of channels that differ, whose mean is taken: if they are of several speakers, take one "
        "by --channel=left or right, in training and features by --config.channel"
    ),
    "dead": (
        "with a dead channel, which makes the mean quieter: take the other one by --channel=left "
        "or right, in training and features by --config.channel"
    ),
}


class Heard:
    """Hears what is odd about a recording while its samples pass by."""

    _decoded: Decoded | None = None  # nothing is odd about what was not heard

    def begin(self, decoded: Decoded, channel: str) -> None:
        """Begins with a recording, of which a channel or the mean of all is taken."""
        self._decoded, self._is_mean = decoded, channel == "mix"
        self._loudness, self._first = Loudness(decoded.rate), []
        self._power = self._products = self._mean_power = 0.0

    def add(self, channels: np.ndarray, samples: np.ndarray) -> None:
        """Hears a block.

        Args:
            channels: float32 [channels, n], of any scale.
            samples: What is taken of them, float32 [n], full scale at 1.
        """
        self._loudness.add(samples)
        if len(self._first) < HEARD:
            self._first.append(samples)
        if self._is_mean and len(channels) > 1 and len(samples):
            deviations = channels.astype(np.float64)
            deviations -= deviations.mean(axis=1, keepdims=True)
            mean = deviations.mean(axis=0)
            self._power += np.square(deviations).sum(axis=1)
            self._products += deviations @ mean
            self._mean_power += mean @ mean

    def remarks(self, settings: Reading) -> list[Remark]:
        """Returns what is odd about the recording.

        Args:
            settings: How it is read; its `sample_rate` is in Hz, and 0 is each recording's own.
        """
        if self._decoded is None:
            return []
        rate, found = self._decoded.rate, []
        if self._decoded.is_open:
            found.append(Remark("open"))
        if rate < settings.sample_rate:
            found.append(Remark("rate", f"{rate} Hz"))
        elif min(rate, settings.sample_rate or rate) >= WIDE:
            highest = _highest(np.concatenate(self._first), rate)
            if highest < BAND:
                found.append(Remark("band", f"none above {math.ceil(highest / 100) * 100} Hz"))
        first, stop = self._loudness.speech(PAUSE_TRIM)
        silence = max(first, self._loudness.total - stop) / rate
        if not settings.trim and silence > PAUSE:
            found.append(Remark("silence", f"{silence:.1f} s"))
        if np.ndim(self._power):
            found += self._of_channels()
        return found

    def _of_channels(self) -> Iterator[Remark]:
        is_dead = self._power < DEAD * self._power.max()
        if is_dead.any():
            names = ["left", "right"] if len(is_dead) == 2 else range(1, len(is_dead) + 1)
            yield Remark("dead", ", ".join(f"{names[place]}" for place in np.flatnonzero(is_dead)))
        alike = ALIKE * np.sqrt(self._power * self._mean_power)
        if (self._products < alike)[~is_dead].any():
            yield Remark("channels")


def _highest(samples: np.ndarray, rate: int) -> float:
    """Returns the frequency in Hz above which there is next to no power."""
    size = round(rate / 16)
    frames = samples[: len(samples) // size * size].reshape(-1, size)
    if not len(frames):
        return WIDE
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(size)))).sum(axis=0)
    frequencies = np.fft.rfftfreq(size, 1 / rate)
    below = frequencies < 0.95 * WIDE / 2
    above = np.cumsum(power[below][::-1])[::-1]  # the power from each frequency on
    return frequencies[below][above >= NARROW * power.sum()].max(initial=0.0)


def lines(found: Mapping[str, Iterable[Sequence[str]]], settings: Reading) -> Iterator[str]:
    """Yields a line for each kind of remarks: how many recordings it is about, and the first few.

    Args:
        found: The name of the recording and the detail of each remark, by their kind.
        settings: How the recordings are read.
    """
    for kind, text in TEXTS.items():
        if not (pairs := list(found.get(kind, ()))):
            continue
        names = [f"{name} ({detail})" if detail else name for name, detail in pairs]
        lowest = TELEPHONE
        if kind == "rate":
            lowest = min(int(detail.partition(" ")[0]) for _, detail in pairs)
        text = text.format(rate=settings.sample_rate, advice=settings.advise(lowest))
        yield f"note: {many(len(names), 'recording')} {text}: {printable(few(names))}"
