"""Finished models that answer: those of a run, of a fold, of an ensemble, or of an export."""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from ds_jax import config as configuration
from ds_jax.data import enrolment, recordings
from ds_jax.data.recordings import Paths, Recording, Unusable, Window
from ds_jax.evaluation.predictions import Predicted, unpadded
from ds_jax.features import axes, extract
from ds_jax.features.audio import Windowing
from ds_jax.runtime import progress
from ds_jax.runtime.progress import many
from ds_jax.systems import base as systems
from ds_jax.training import parallel

SYNTHETIC = "SYNTHETIC SPEECH: the models were trained on it, and know nothing about emotions."
LONG = 60.0  # seconds; in a picture of more than that a word is a few pixels wide


class Row(NamedTuple):
    """What is predicted for a window.

    Attributes:
        window: The window.
        probabilities: float64 [classes], the mean over models.
        gates: By the name of the attention head, float32 [height, width] in 0..1, the mean over
            models.
    """

    window: Window
    probabilities: np.ndarray
    gates: dict[str, np.ndarray]

    def record(self, classes: Sequence[str]) -> dict[str, Any]:
        """Returns `recording`, `start`, `end`, `prediction` and each class' probability."""
        shares = dict(zip(classes, self.probabilities.tolist(), strict=True))
        return self.window.times | {"prediction": classes[self.probabilities.argmax()]} | shares


class Model:
    """The mean of one or more finished models, see `load`.

    Attributes:
        config: The config that they were trained by.
        classes: The classes, in the order of the probabilities.
        settings: How waveforms are drawn, or which features are computed.
        count: The number of models.
        load_ensemble: Loads the models, given what `load_measure` measured of a speaker or None.
        load_measure: Loads what measures a speaker, see `base.Implementation`.
        never_answered: The classes that no training utterance had, whose probability is 0.
    """

    def __init__(
        self,
        config: ConfigDict,
        settings: extract.Settings,
        count: int,
        read_card: Callable[[], dict],
        load_ensemble: Callable[[Any], Callable],
        load_measure: Callable[[], Callable] | None = None,
        never_answered: Sequence[str] = (),
    ):
        self.config, self.settings, self.count = config, settings, count
        self.classes = tuple(config.classes)
        self.load_ensemble, self.load_measure = load_ensemble, load_measure
        self.never_answered = tuple(never_answered)
        self._read_card, self._enrolled = read_card, None

    @property
    def weighted(self) -> Sequence[tuple[float, "Model"]]:
        """The models whose answers are averaged, each with its weight: this one alone."""
        return [(1.0, self)]

    @property
    def parts(self) -> Sequence["Model"]:
        """The models that each read recordings in one form; an ensemble has several."""
        return [self]

    def merge(self, outputs: Sequence[np.ndarray]) -> np.ndarray:
        """Returns the probabilities [..., classes] that follow from what each part gives."""
        return outputs[0]

    @property
    def title(self) -> str:
        """The name of the system that people read, such as "DS-AM"."""
        return systems.title(self.config)

    @functools.cached_property
    def card(self) -> dict[str, Any]:
        """What is known of the models, as JSON, see `card.read`; of an exported one model.json."""
        return self._read_card()

    @functools.cached_property
    def start(self) -> Callable[[np.ndarray, int], Callable[[], Predicted]]:
        """The function that predicts a batch, see `base.Implementation.load_ensemble`."""
        return self.load_ensemble(self._enrolled)

    def enrol(self, paths: Paths) -> None:
        """Measures recordings of the speaker who will be heard, of models that need it.

        Args:
            paths: As in `predict`; nothing for models that take everybody as they come.

        Raises:
            ValueError: Recordings are needed, not needed, too few, or unusable.
        """
        enrolment.check_given(bool(paths), configuration.adapts(self.config))
        if not paths:
            return
        found, bad = recordings.find(paths)
        batches = recordings.process(
            *(found, self.settings, self.windowing(0, 0), parallel.rows_together()),
            *(self.load_measure(), bad),
        )
        heard, measured = set(), []
        for windows, of_windows in batches:
            heard |= {window.recording.path for window in windows}
            measured.append(of_windows)
        if bad:
            raise ValueError(f"the enrolment: {recordings.complaint(bad)}")
        enrolment.check_count(len(heard))
        self._enrolled = jax.tree.map(lambda *parts: np.concatenate(parts), *measured)

    def __call__(self, samples: np.ndarray | Sequence[np.ndarray], rate: int) -> np.ndarray:
        """Predicts the emotion of a waveform, or of each waveform of a batch.

        The first call compiles the network, which takes seconds, and so does the first one with a
        larger number of waveforms; a timeline's network is also compiled for each of few lengths.

        Args:
            samples: float [n], mono, full scale at 1; or a batch, float [batch, n] or a sequence of
                waveforms of any lengths.
            rate: Their rate in Hz; they are resampled to that of the models.

        Returns:
            Probabilities in the order of `classes`, float32 [classes], or [batch, classes] of a
            batch. They are the mean over the windows, of models that were trained on windows.

        Raises:
            ValueError: A waveform is empty, silent or damaged, has channels, or is not of floats.
        """
        if not len(samples):
            raise ValueError("there are no samples: give a waveform [n], or a batch [batch, n]")
        if getattr(samples, "ndim", 1) == 2 and samples.shape[1] < rate / 1000:
            raise ValueError(
                f"samples of shape {samples.shape} are waveforms of less than 1 ms: a batch has "
                "the shape [batch, n]; of channels [n, channels] take the mean over the last axis"
            )
        is_batch = np.ndim(samples[0]) > 0
        parts, counts = [], []
        for waveform in samples if is_batch else [samples]:
            arrays = extract.from_samples(waveform, rate, self.settings)
            parts += arrays
            counts.append(len(arrays))
        rows = min(parallel.rows_together(), 1 << (len(parts) - 1).bit_length())
        shares = []
        for first in range(0, len(parts), rows):
            inputs = extract.batch(parts[first : first + rows], self.settings)
            shares.append(self.start(inputs, rows)().probabilities)
        ends = np.cumsum(counts)[:-1]
        means = [part.mean(axis=0) for part in np.split(np.concatenate(shares), ends)]
        return np.asarray(means if is_batch else means[0], np.float32)

    def predict(
        self,
        paths: Paths,
        window: float = 0.0,
        hop: float = 0.0,
        unusable: list[Unusable] | None = None,
    ) -> list[dict[str, Any]]:
        """Predicts the emotions of recordings; `pandas.DataFrame` makes a table of the result.

        Args:
            paths: Files of any rate and number of channels, folders and patterns, or one of these,
                see `recordings.find`.
            window: Seconds; the last window may be shorter, and reaches the end. 0 takes the
                windows on which the models were trained, if they were, or else the recording whole.
            hop: Seconds between the starts of windows; 0 means window.
            unusable: A list to which all is added that cannot be used; None makes it an error.

        Returns:
            A record of each window: `recording`, `start` and `end` in seconds, `prediction`, and
            the probability of each class by its name.

        Raises:
            ValueError: A recording cannot be used, or the models have no such windows.
        """
        rows = self.rows_of(paths, window, hop, unusable)
        return [row.record(self.classes) for row in rows]

    def windowing(self, window: float, hop: float) -> Windowing:
        """Returns how recordings are cut for a window and a hop in seconds, see `predict`.

        Raises:
            ValueError: One of them is impossible.
        """
        for name, value in {"window": window, "hop": hop}.items():
            if not 0 <= value < math.inf:
                raise ValueError(f"{name}={value} must be a number of seconds, 0 or more")
        trained = self.settings.windowing
        if hop and not (window or trained.window):
            raise ValueError(f"hop={hop} needs window, the seconds of a window")
        if window:
            return Windowing(window, hop, to_end=True)
        return Windowing(trained.window, hop or trained.hop)

    def check_gates(self) -> None:
        """Checks that the models have attention gates, and that they can be read.

        Raises:
            ValueError: There are none.
        """
        if isinstance(self.settings, extract.Waveforms):
            raise ValueError("an exported model keeps its attention gates inside: explain the run")
        if not (self.config.model.get("gates") or self.config.model.get("gate")):
            raise ValueError(f"{self.title} has no attention gates to explain")

    def rows(
        self,
        found: Sequence[Recording],
        windowing: Windowing,
        unusable: list[Unusable],
        quiet: bool = False,
        say: Callable[[str], None] = progress.say,
    ) -> Iterator[Row]:
        """Yields what is predicted for each window of recordings, as `recordings.process`.

        Finally it prints how many recordings were long and taken whole.
        """
        size, long = parallel.rows_together(), []
        batches = recordings.process(
            found, self.settings, windowing, size, self.start, unusable, quiet, say
        )
        for batch, predicted in batches:
            for index, part in enumerate(batch):
                if not windowing.window and part.end > LONG:
                    long.append(part.recording.title)
                gates = {name: unpadded(gate[index]) for name, gate in predicted.gates.items()}
                yield Row(part, predicted.probabilities[index], gates)
        if long:
            say(
                f"{many(len(long), 'recording')} longer than {LONG:.0f} s and taken whole, such as "
                f"{long[0]}: window=3 gives a prediction for every three seconds"
            )

    def rows_of(
        self, paths: Paths, window: float, hop: float, unusable: list[Unusable] | None
    ) -> Iterator[Row]:
        """Yields what is predicted for each window of recordings, see `predict`."""
        windowing = self.windowing(window, hop)
        return recordings.answer(
            paths, unusable, lambda found, bad: self.rows(found, windowing, bad)
        )

    def describe(
        self, windows: Sequence[tuple[float, float, np.ndarray]], by_length: bool
    ) -> dict[str, Any]:
        """Describes what is predicted for a recording, as JSON.

        Args:
            windows: The start and the end of each in seconds, and its probabilities, float
                [classes].
            by_length: Whether long windows count more.

        Returns:
            `prediction` and `probabilities` (by class) of the windows' mean, and `windows`, each
            with `start`, `end`, `prediction` and `probabilities`.
        """

        def of(shares: np.ndarray) -> dict[str, Any]:
            by_class = dict(zip(self.classes, shares.tolist(), strict=True))
            return {"prediction": self.classes[shares.argmax()], "probabilities": by_class}

        # A short last window would count too much; windows of training count as they did there.
        weights = [end - start if by_length else 1 for start, end, _ in windows]
        mean = np.average([shares for *_, shares in windows], axis=0, weights=weights)
        parts = [
            {"start": round(start, 6), "end": round(end, 6)} | of(shares)
            for start, end, shares in windows
        ]
        return of(mean) | {"windows": parts}


def explain(
    model: Model,
    paths: Paths,
    window: float = 0.0,
    hop: float = 0.0,
    unusable: list[Unusable] | None = None,
) -> list[dict[str, Any]]:
    """Shows what the attention gates of models let through.

    Args:
        model: Models with attention gates: DS-AM's.
        paths, window, hop, unusable: As in `Model.predict`.

    Returns:
        The records of `Model.predict`, each with `picture`, the picture that the networks read, and
        `gates`, by the name of the layer that carries the gate: each is an `axes.TimeFrequency`,
        with axes in seconds and Hz.

    Raises:
        ValueError: The models have no gates; and as `Model.predict`.
    """
    model.check_gates()
    records = []
    for row in model.rows_of(paths, window, hop, unusable):
        part, settings = row.window, model.settings
        count = round((part.end - part.start) * part.rate)
        picture = axes.of_picture(part.represented, part.start, count, part.rate, settings)
        gates = {name: axes.of_gate(gate, picture, settings) for name, gate in row.gates.items()}
        records.append(row.record(model.classes) | {"picture": picture, "gates": gates})
    return records
