"""Turns recordings into what systems read: pictures, or one of the sets of features."""

import functools
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ds_jax.features import audio, embeddings, mfcc, modulation, opensmile, spectrogram, variants
from ds_jax.features.embeddings import EmbeddingSettings
from ds_jax.features.remarks import Heard
from ds_jax.features.silence import find_speech
from ds_jax.features.source import Reading, Source, reading_of
from ds_jax.features.spectrogram import PictureSettings
from ds_jax.runtime.errors import ConfigError, check_choice

# The versions are parts of the names of prepared data: raise one whenever its numbers change by
# more than rounding.
_MSF = 1
_MFCC = 1
EMBEDDINGS = "embeddings"


class Set(NamedTuple):
    """A set of features.

    Attributes:
        title: Its name in reports.
        shape: The shape of an utterance's features; None stands for its number of frames, or for
            what a model decides.
        version: A number that rises whenever the features change.
        function: Maps samples, float32 [n] at 16 kHz, to float32 features; that of embeddings needs
            their settings too.
    """

    title: str
    shape: tuple[int | None, ...]
    version: int
    function: Callable[..., np.ndarray]


def _msf_mfcc(samples: np.ndarray) -> np.ndarray:
    return np.concatenate([modulation.energies(samples), mfcc.statistics(samples)])


SETS = {
    "msf": Set("MSF", (95,), _MSF, modulation.energies),
    "msf_wu": Set("MSF with Wu's measures", (118,), _MSF, modulation.with_measures),
    "wu": Set("Wu's measures", (46,), _MSF, modulation.statistics_of_measures),
    "mfcc": Set("MFCC", (60,), _MFCC, mfcc.statistics),
    "mfcc_frames": Set("MFCC frames", (None, 12), _MFCC, mfcc.frames),
    "msf_mfcc": Set("MSF+MFCC", (155,), _MSF + _MFCC - 1, _msf_mfcc),  # a sum rises with either
    "egemaps": Set(
        "eGeMAPS", (88,), 1, functools.partial(opensmile.functionals, feature_set="eGeMAPSv02")
    ),
    "compare": Set(
        "ComParE", (6373,), 1, functools.partial(opensmile.functionals, feature_set="ComParE_2016")
    ),
    EMBEDDINGS: Set("embeddings", (None,), 1, embeddings.statistics),
}


@dataclass(frozen=True)
class FeatureSettings(Reading):
    """The choice of a set of features, and how recordings are read.

    Attributes:
        set: A key of `SETS`.
        embeddings: The model of the set "embeddings"; None for any other set.

    Raises:
        ConfigError: The set does not exist, or a field of `Reading` is impossible.
    """

    set: str
    embeddings: EmbeddingSettings | None = None
    sample_rate = 16_000  # Hz to which the audio is resampled
    windowing = audio.Windowing()  # takes recordings whole

    def __post_init__(self):
        super().__post_init__()
        check_choice("features", self.set, SETS)

    @property
    def shape(self) -> tuple[int | None, ...]:
        """The shape of an utterance's features; None stands for its number of frames."""
        if self.embeddings:
            return (self.embeddings.size or None,)
        return SETS[self.set].shape

    @property
    def in_threads(self) -> bool:
        """Whether many recordings are worked on in threads, which share a model."""
        return self.embeddings is not None

    def check(self) -> None:
        """Checks that the package, and the model, that compute the set are there.

        Raises:
            ValueError: The package is missing, or the model cannot be used.
        """
        if self.set in ("egemaps", "compare"):
            opensmile.package()
        if self.embeddings:
            embeddings.load(self.embeddings)

    def key(self) -> str:
        """Returns a short name for folders; it differs if the features differ."""
        model = f"-{self.embeddings.key()}" if self.embeddings else ""
        return f"{self.set}-{SETS[self.set].version}{model}{self.reading_key()}"


@dataclass(frozen=True)
class Waveforms(Reading):
    """Recordings as they are, float32 [n], for models that draw them themselves.

    Attributes:
        sample_rate: Hz to which the audio is resampled.
    """

    sample_rate: int
    windowing = audio.Windowing()


Settings = PictureSettings | FeatureSettings | Waveforms


def settings(config: Mapping) -> Settings:
    """Returns the settings of `config.features` if that field exists, else of `config.picture`.

    Raises:
        ConfigError: A field has an impossible value.
    """
    if "features" in config:
        given = config.get("embeddings", {})
        chosen = EmbeddingSettings(**given) if config["features"] == EMBEDDINGS else None
        settings = FeatureSettings(config["features"], chosen, **reading_of(config))
        if chosen is None and (unused := [name for name in given if given[name]]):
            allowed = f"left out, or take features={EMBEDDINGS!r}"
            raise ConfigError(f"embeddings.{unused[0]}", given[unused[0]], allowed)
        return settings
    return PictureSettings(**config["picture"], **reading_of(config))


def compute(samples: np.ndarray, settings: FeatureSettings) -> np.ndarray:
    """Computes the features of one utterance.

    Args:
        samples: float [n] at the rate of the settings, mono, n >= 1, all finite, full scale at 1.
        settings: The set.

    Returns:
        float32 of the settings' shape, all finite.

    Raises:
        ValueError: The samples have no such features.
    """
    given = [settings.embeddings] if settings.embeddings else []
    features = SETS[settings.set].function(np.asarray(samples, np.float32), *given)
    expected = tuple(size or len(features) for size in settings.shape)
    if features.shape != expected:
        raise ValueError(
            f"features {settings.set!r} have the shape {features.shape}, not {expected}"
        )
    if not np.isfinite(features).all():
        raise ValueError(f"features {settings.set!r} are not all finite numbers")
    return features.astype(np.float32, copy=False)


def read(
    source: Source | str | Path, settings: Settings, heard: Heard | None = None
) -> tuple[float, list[np.ndarray], str]:
    """Decodes a recording and draws its pictures or computes its features.

    Args:
        source: The recording.
        settings: How pictures are drawn, or which features are computed.
        heard: As in `audio.read`.

    Returns:
        The recording's length in seconds, before it is trimmed; a picture for each window, uint8
        [height, width], or one array of features, float32 [d] or [frames, d]; and the SHA-256 of
        the recording's samples, in hexadecimal digits.

    Raises:
        FileNotFoundError, ValueError: The recording cannot be used, see `audio.read`.
    """
    samples, rate = audio.read(source, settings.sample_rate, heard)
    arrays = [array for *_, array in _represent_windows(samples, rate, settings)]
    return len(samples) / rate, arrays, hashlib.sha256(samples).hexdigest()


def from_samples(samples: np.ndarray, rate: int, settings: Settings) -> list[np.ndarray]:
    """Draws the pictures of a waveform or computes its features, as `read` does of a recording.

    Args:
        samples: float [n], mono, full scale at 1.
        rate: Hz.
        settings: How pictures are drawn, or which features are computed.

    Raises:
        ValueError: The waveform cannot be used, see `audio.from_samples`.
    """
    return [array for *_, array in windows_of(samples, rate, settings)]


def windows_of(
    samples: np.ndarray, rate: int, settings: Settings
) -> list[tuple[float, float, np.ndarray]]:
    """Returns the start and the end in seconds of what `from_samples` returns, and the array."""
    return _represent_windows(*audio.from_samples(samples, rate, settings.sample_rate), settings)


def windows(
    source: Source | str | Path,
    settings: Settings,
    windowing: audio.Windowing,
    heard: Heard | None = None,
    longest: float = math.inf,
) -> Iterator[tuple[float, float, float, int, np.ndarray | ValueError]]:
    """Draws pictures or computes features of a recording window by window.

    Only a few windows of a long recording are in memory at a time.

    Args:
        source: The recording.
        settings: How pictures are drawn, or which features are computed.
        windowing: How the recording is cut; the windows of the settings are not used.
        heard: As in `audio.read`.
        longest: Seconds of the longest recording that is read.

    Yields:
        The recording's length, the window's start and its end in seconds; the rate in Hz at which
        it was read; and a picture, an array of features or, if one of several windows has no
        features, the error that says why.

    Raises:
        FileNotFoundError, ValueError: The recording cannot be used, see `audio.read`.
    """
    if not windowing.window:
        samples, rate = audio.read(source, settings.sample_rate, heard, longest)
        first, stop = find_speech([samples], rate, settings.trim)
        represented = _represent(samples[first:stop], rate, settings)
        yield len(samples) / rate, first / rate, stop / rate, rate, represented
        return
    parts = audio.windows(source, settings.sample_rate, windowing, settings.trim, heard, longest)
    for seconds, start, rate, samples in parts:
        try:
            represented = _represent(samples, rate, settings)
        except ValueError as error:  # too few samples, for example
            represented = error
        yield seconds, start, start + len(samples) / rate, rate, represented


def stack(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Puts pictures or features into one array.

    Timelines are padded with 0 on the right, waveforms and sequences of frames with NaN.

    Returns:
        uint8 [n, height, widest], float32 [n, d], or float32 [n, frames of the longest, d].
    """
    if len({array.shape for array in arrays}) == 1:
        return np.stack(arrays)
    shape = np.max([array.shape for array in arrays], axis=0)
    fill = 0 if arrays[0].dtype == np.uint8 else np.nan
    padded = np.full((len(arrays), *shape), fill, arrays[0].dtype)
    for row, array in zip(padded, arrays, strict=True):
        row[tuple(map(slice, array.shape))] = array
    return padded


def batch(arrays: Sequence[np.ndarray], settings: Settings) -> np.ndarray:
    """Puts pictures or features into one array, as `stack`.

    Where lengths differ, it gets one of few lengths, so that few shapes are compiled.
    """
    stacked, axis = stack(arrays), 1
    if isinstance(settings, PictureSettings) and settings.is_timeline:
        axis, wanted = 2, spectrogram.padded_width(stacked.shape[2])
    elif isinstance(settings, Waveforms):
        wanted = spectrogram.padded_width(stacked.shape[1])
    elif stacked.dtype == np.float32 and stacked.ndim == 3:
        wanted = 1 << (stacked.shape[1] - 1).bit_length()
    else:
        return stacked
    after = [
        (0, wanted - size if number == axis else 0) for number, size in enumerate(stacked.shape)
    ]
    return np.pad(stacked, after, constant_values=0 if axis == 2 else np.nan)


def _represent(samples: np.ndarray, rate: int, settings: Settings) -> np.ndarray:
    if isinstance(settings, Waveforms):
        return samples
    if isinstance(settings, FeatureSettings):
        return compute(samples, settings)
    return spectrogram.draw(samples, rate, settings)


def _represent_windows(
    samples: np.ndarray, rate: int, settings: Settings
) -> list[tuple[float, float, np.ndarray]]:
    first, stop = find_speech([samples], rate, settings.trim)
    varied = variants.vary(samples[first:stop], rate, settings.variant)
    found, (_, step) = [], settings.windowing.samples(rate)
    for number, part in enumerate(settings.windowing.split(varied, rate)):
        start = first + number * step
        array = _represent(part, rate, settings)
        found.append((start / rate, (start + len(part)) / rate, array))
    return found
