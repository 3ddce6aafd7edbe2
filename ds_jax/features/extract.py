"""An utterance as numbers: the sets of features that the classical systems learn from."""

import difflib
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ds_jax.features import mfcc, modulation, opensmile

# Raise these whenever the numbers of these sets change: prepared corpora are told apart by them.
_MSF = 1
_MFCC = 1


class Set(NamedTuple):
    """A set of features.

    Attributes:
        title: As reports call it.
        shape: Of one utterance's features; None stands for its number of frames.
        version: Raised whenever the numbers change.
        function: From samples at 16 kHz to float32 features.
    """

    title: str
    shape: tuple[int | None, ...]
    version: int
    function: Callable[[np.ndarray], np.ndarray]


def _msf_mfcc(samples: np.ndarray) -> np.ndarray:
    return np.concatenate([modulation.energies(samples), mfcc.statistics(samples)])


SETS = {
    "msf": Set("MSF", (95,), _MSF, modulation.energies),
    "msf_wu": Set("MSF with Wu's measures", (118,), _MSF, modulation.with_measures),
    "mfcc": Set("MFCC", (60,), _MFCC, mfcc.statistics),
    "mfcc_frames": Set("MFCC frames", (None, 12), _MFCC, mfcc.frames),
    "msf_mfcc": Set("MSF+MFCC", (155,), _MSF + _MFCC - 1, _msf_mfcc),  # a sum rises with either
    "egemaps": Set(
        "eGeMAPS", (88,), 1, functools.partial(opensmile.functionals, feature_set="eGeMAPSv02")
    ),
    "compare": Set(
        "ComParE", (6373,), 1, functools.partial(opensmile.functionals, feature_set="ComParE_2016")
    ),
}


@dataclass(frozen=True)
class FeatureSettings:
    """How an utterance becomes features.

    Attributes:
        set: One of `SETS`.

    Raises:
        ValueError: There is no such set.
    """

    set: str

    def __post_init__(self):
        if self.set not in SETS:
            nearest = difflib.get_close_matches(str(self.set).lower(), SETS, n=1)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            raise ValueError(f"features={self.set!r} is not one of {', '.join(SETS)}{hint}")

    @property
    def sample_rate(self) -> int:
        """Hz the audio is resampled to."""
        return 16_000

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Of one utterance's features; None stands for its number of frames."""
        return SETS[self.set].shape

    def check(self) -> None:
        """Checks, before any work, that what computes the set is installed.

        Raises:
            ValueError: It is not.
        """
        if self.set in ("egemaps", "compare"):
            opensmile.package()

    def key(self) -> str:
        """A short name of the stored features, fit for folders: equal numbers, equal key."""
        return f"{self.set}-{SETS[self.set].version}"


def compute(samples: np.ndarray, rate: int, settings: FeatureSettings) -> np.ndarray:
    """Computes the features of one utterance.

    Args:
        samples: float [n], mono, n >= 1, full scale at 1.
        rate: Hz; that of the settings.
        settings: see FeatureSettings.

    Returns:
        float32 of the settings' shape, all finite.

    Raises:
        ValueError: The samples are not one channel at that rate, or have no such features.
    """
    samples = np.asarray(samples, np.float32)
    if samples.ndim != 1 or not len(samples):
        raise ValueError(f"samples of shape {samples.shape} have no features; give one channel [n]")
    if rate != settings.sample_rate:
        raise ValueError(f"rate={rate} Hz must be {settings.sample_rate} Hz: resample the samples")
    found = SETS[settings.set].function(samples)
    wanted = tuple(known or len(found) for known in settings.shape)
    if found.shape != wanted:
        raise ValueError(f"features {settings.set!r} are of shape {found.shape}, not {wanted}")
    if not np.isfinite(found).all():
        raise ValueError(f"features {settings.set!r} are not all finite numbers")
    return found.astype(np.float32, copy=False)
