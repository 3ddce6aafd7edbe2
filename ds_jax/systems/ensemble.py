"""Finished ensembles that answer: the mean of models that read different inputs."""

import collections
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import scipy.special
from ml_collections import ConfigDict

from ds_jax.data.recordings import Paths, Recording, Unusable
from ds_jax.evaluation.predictions import Predicted
from ds_jax.features.audio import Windowing
from ds_jax.runtime import progress
from ds_jax.systems.model import Model, Row


class Ensemble(Model):
    """The weighted mean of models that read different pictures or features, see `Model`."""

    def __init__(
        self,
        config: ConfigDict,
        weighted: Sequence[tuple[float, Model]],
        read_card: Callable[[], dict],
    ):
        parts = [part for _, model in weighted for part in model.parts]
        count, absent = sum(model.count for _, model in weighted), _never_answered(config, parts)
        super().__init__(
            config, parts[0].settings, count, read_card, self._load, never_answered=absent
        )
        self._weighted, self._parts = weighted, parts

    @property
    def weighted(self) -> Sequence[tuple[float, Model]]:
        """The models whose answers are averaged, each with its weight, which sum to one."""
        return self._weighted

    @property
    def parts(self) -> Sequence[Model]:
        return self._parts

    def merge(self, outputs: Sequence[np.ndarray]) -> np.ndarray:
        total, outputs = 0.0, list(outputs)
        for weight, model in self._weighted:
            count = len(model.parts)
            total = total + weight * model.merge(outputs[:count])
            del outputs[:count]
        return total

    def _load(self, enrolled: None) -> list[Callable]:
        return [part.start for part in self.parts]

    def enrol(self, paths: Paths) -> None:
        for part in self.parts:
            part.enrol(paths)

    def __call__(self, samples: np.ndarray | Sequence[np.ndarray], rate: int) -> np.ndarray:
        return self.merge([part(samples, rate) for part in self.parts]).astype(np.float32)

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

        for number, part in enumerate(self.parts):
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
                yield Row(rows[0].window, self.merge([row.probabilities for row in rows]), {})
                behind = range(len(rows))
            for index in behind:
                rows[index] = next(each[index], None)
        for those in each:  # to their remarks
            collections.deque(those, maxlen=0)
        unusable += dict.fromkeys(itertools.chain(*bad))


class Joined(Ensemble):
    """One ridge on what several models read, see `systems.joined`.

    Each part gives, in place of probabilities, what its features add to the logits of each fold's
    ridge, float [..., folds x classes].
    """

    def __init__(self, config: ConfigDict, parts: Sequence[Model], read_card: Callable[[], dict]):
        super().__init__(config, [(1 / len(parts), part) for part in parts], read_card)
        self.count = parts[0].count

    @property
    def weighted(self) -> Sequence[tuple[float, Model]]:
        return [(1.0, self)]

    def check_gates(self) -> None:
        self.parts[0].check_gates()  # of a ridge, which has none

    def merge(self, outputs: Sequence[np.ndarray]) -> np.ndarray:
        logits = np.sum(outputs, axis=0, dtype=np.float64)
        logits = logits.reshape(*logits.shape[:-1], self.count, len(self.classes))
        return scipy.special.softmax(logits, axis=-1).mean(axis=-2)


def join(config: ConfigDict, members: Sequence[Model], read_card: Callable[[], dict]) -> Ensemble:
    """Makes the mean of members, of which each weighs alike.

    Those that read the same inputs read them together. `read_card` reads what is known of the
    ensemble, see `card.of_ensemble`.
    """
    together, parts = {}, []
    for member in members:
        for weight, part in member.weighted:
            weight /= len(members)
            if isinstance(part, Joined):
                parts.append((weight, part))
            else:
                together.setdefault(str(part.settings), []).append((weight, part))
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


def _never_answered(config: ConfigDict, parts: Sequence[Model]) -> list[str]:
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
