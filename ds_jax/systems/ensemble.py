"""Finished ensembles that answer: the mean of models that read different inputs."""

import collections
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence

import ml_collections
import numpy as np

from ds_jax.data.recordings import Paths, Recording, Unusable
from ds_jax.evaluation.predictions import Predicted
from ds_jax.features.audio import Windowing
from ds_jax.runtime import progress
from ds_jax.systems.model import Model, Row


class Ensemble(Model):
    """The weighted mean of models that read different pictures or features, see `Model`."""

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        parts: Sequence[tuple[float, Model]],
        read_card: Callable[[], dict],
    ):
        first, count = parts[0][1], sum(part.count for _, part in parts)
        absent = _never_answered(config, [part for _, part in parts])
        super().__init__(
            config, first.settings, count, read_card, self._load, never_answered=absent
        )
        self._weighted = parts

    @property
    def parts(self) -> Sequence[tuple[float, Model]]:
        """The models whose answers are averaged, each with its weight, which sum to one."""
        return self._weighted

    def _load(self, enrolled: None) -> list[Callable]:
        return [part.start for _, part in self.parts]

    def enrol(self, paths: Paths) -> None:
        for _, part in self.parts:
            part.enrol(paths)

    def __call__(self, samples: np.ndarray | Sequence[np.ndarray], rate: int) -> np.ndarray:
        shares = [weight * part(samples, rate) for weight, part in self.parts]
        return np.sum(shares, axis=0, dtype=np.float32)

    def check_gates(self) -> None:
        raise ValueError("an ensemble has several gates: explain one of the runs in members/")

    def rows(
        self,
        found: Sequence[Recording],
        windowing: Windowing,
        unusable: list[Unusable],
        quiet: bool = False,
        say: Callable[[str], None] = progress.say,
    ) -> Iterator[Row]:
        """Yields the mean for each window that all parts can use; says once what they all say."""
        order = {id(recording): number for number, recording in enumerate(found)}
        bad, each, said = [], [], []

        def say_once(line: str) -> None:
            if line not in said:
                said.append(line)
                say(line)

        for number, (_, part) in enumerate(self.parts):
            bad.append([])
            each.append(part.rows(found, windowing, bad[-1], quiet or number > 0, say_once))

        def place(row: Row) -> tuple[int, float]:
            # Starts are rounded to samples, and parts may read at rates of their own.
            start = round(row.window.start, 3) if windowing.window else 0.0
            return order[id(row.window.recording)], start

        rows = [next(those, None) for those in each]
        while None not in rows:
            latest = max(map(place, rows))
            # A window can be too short for one part, and not for another.
            behind = [i for i, row in enumerate(rows) if place(row) < latest]
            if not behind:
                weighted = zip(self.parts, rows, strict=True)
                shares = sum(weight * row.probabilities for (weight, _), row in weighted)
                yield Row(rows[0].window, shares, {})
                behind = range(len(rows))
            for index in behind:
                rows[index] = next(each[index], None)
        for those in each:  # to their remarks
            collections.deque(those, maxlen=0)
        unusable += dict.fromkeys(itertools.chain(*bad))


def join(
    config: ml_collections.ConfigDict, members: Sequence[Model], read_card: Callable[[], dict]
) -> Ensemble:
    """Makes the mean of members; those that read the same inputs read them together.

    Args:
        config: The config of the ensemble.
        members: The models, each of which weighs alike.
        read_card: Reads what is known of the ensemble, see `card.of_ensemble`.
    """
    together = {}
    for member in members:
        for weight, part in member.parts:
            alike = together.setdefault(str(part.settings), [])
            alike.append((weight / len(members), part))
    parts = []
    for alike in together.values():
        total, first = sum(weight for weight, _ in alike), alike[0][1]
        shares = [(weight / total, part) for weight, part in alike]
        joined = Model(
            *(first.config, first.settings, sum(part.count for _, part in alike), lambda: {}),
            *(functools.partial(_mean_of, shares), functools.partial(_measure_all, shares)),
            _never_answered(config, [part for _, part in alike]),
        )
        parts.append((total, joined))
    return Ensemble(config, parts, read_card)


def _never_answered(config: ml_collections.ConfigDict, parts: Sequence[Model]) -> list[str]:
    """Returns the classes that no part answers."""
    return [name for name in config.classes if all(name in each.never_answered for each in parts)]


def _mean_of(
    weighted: Sequence[tuple[float, Model]], enrolled: Sequence | None
) -> Callable[[np.ndarray, int], Callable[[], Predicted]]:
    """Returns a function as `Model.start` that gives the weighted mean of models, without gates.

    `enrolled` is what `_measure_all` gave; None without an enrolment.
    """
    enrolled = enrolled or [None] * len(weighted)
    starts = [
        (weight, model.load_ensemble(measured))
        for (weight, model), measured in zip(weighted, enrolled, strict=True)
    ]

    def start(inputs, size):
        waits = [(weight, start(inputs, size)) for weight, start in starts]

        def mean():
            return Predicted(sum(weight * wait().probabilities for weight, wait in waits), {}, {})

        return mean

    return start


def _measure_all(
    weighted: Sequence[tuple[float, Model]],
) -> Callable[[np.ndarray, int], Callable[[], tuple]]:
    """Returns a function as that of `Model.load_measure`, which gives what each model measures."""
    starts = [model.load_measure() for _, model in weighted]

    def start(inputs, size):
        waits = [start(inputs, size) for start in starts]
        return lambda: tuple(wait() for wait in waits)

    return start
