"""Where the speech of a recording starts and stops."""

from collections.abc import Iterable

import numpy as np

FRAME = 0.025  # seconds of sound whose energies are compared
MARGIN = 0.1  # seconds that are kept before and after speech: quiet consonants


class Loudness:
    """The energies of a recording's frames, which come in blocks.

    Args:
        rate: Hz.
    """

    def __init__(self, rate: int):
        self._frame, self._margin = round(FRAME * rate), round(MARGIN * rate)
        self._energies, self._rest = [], np.zeros(0, np.float32)
        self.total = 0  # samples

    def add(self, block: np.ndarray) -> None:
        """Adds the next samples, float32 [n]."""
        self.total += len(block)
        rest = np.concatenate([self._rest, block])
        whole = len(rest) // self._frame * self._frame
        frames = rest[:whole].reshape(-1, self._frame)
        self._energies.append(np.square(frames, dtype=np.float64).sum(1))
        self._rest = rest[whole:]

    def speech(self, trim: float) -> tuple[int, int]:
        """Returns the first sample of the speech, and the first one after it; see `find_speech`."""
        last = np.square(self._rest, dtype=np.float64).sum()
        energies = np.concatenate([*self._energies, [last]])
        (loud,) = np.nonzero(energies >= energies.max() * 10 ** (-trim / 10))
        first, stop = loud[0] * self._frame, (loud[-1] + 1) * self._frame
        return max(0, first - self._margin), min(self.total, stop + self._margin)


def find_speech(blocks: Iterable[np.ndarray], rate: int, trim: float) -> tuple[int, int]:
    """Finds where the speech of a recording starts and stops, with a margin on both sides.

    Args:
        blocks: The samples, float32 [n] in total.
        rate: Hz.
        trim: Frames of `FRAME` are silent if they lie more than this many dB below the loudest; 0
            takes the whole recording.

    Returns:
        The first sample of the speech, and the first one after it.
    """
    if not trim:
        return 0, sum(map(len, blocks))
    loudness = Loudness(rate)
    for block in blocks:
        loudness.add(block)
    return loudness.speech(trim)
