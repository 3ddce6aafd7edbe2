"""Answers for many clients at once: what waits for the same program shares a dispatch."""

import asyncio
import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ds_jax.evaluation.predictions import unpadded
from ds_jax.features import audio, extract, ffmpeg
from ds_jax.features.spectrogram import PictureSettings
from ds_jax.runtime import progress
from ds_jax.serving.limits import Limits, Refused

TOGETHER = 8  # inputs of a dispatch, at most, and of one client that wait
# Fewer are faster one by one: a shared dispatch computes all rows of its program.
LEAST_TOGETHER = 5
LENGTHS = 64  # recordings of evenly spaced lengths, whose shapes are compiled before the first one


class Shown(NamedTuple):
    """What the models saw of an utterance, and what they let through.

    Attributes:
        picture: As the models read it, uint8 [height, width].
        gates: By the name of the layer that carries the gate, float32 [rows, columns] in 0..1.
        times: The seconds of its start and end, from the beginning of the utterance.
        settings: How it was drawn; its times are not those after a silence was cut off.
    """

    picture: np.ndarray
    gates: dict[str, np.ndarray]
    times: tuple[float, float]
    settings: PictureSettings


class _Waiting(NamedTuple):
    start: Callable
    inputs: np.ndarray  # [1, ...]
    is_said: bool  # as an utterance, whose speaker waits
    answer: asyncio.Future

    def shares_with(self, other: "_Waiting") -> bool:
        return self.start is other.start and self.inputs.shape == other.inputs.shape


class Judge:
    """Models that answer many at once; `run` must be under way.

    Attributes:
        model: The models, a `systems.model.Model`, of which this room knows no more.
        limits: What they bear.
        answers, dispatches: How many inputs were judged, and in how many dispatches.
    """

    def __init__(self, model: Any, limits: Limits):
        self.model, self.limits = model, limits
        self.answers = self.dispatches = 0
        self._waiting: list[_Waiting] = []
        self._arrived = asyncio.Event()
        self._device = ThreadPoolExecutor(1, "device")
        cores = os.cpu_count() or 1
        self._work, self._reading = (ThreadPoolExecutor(cores, name) for name in ("work", "read"))

    def warm_up(self) -> int:
        """Compiles what utterances of all lengths need; returns the number of programs."""
        rng, programs = np.random.default_rng(0), []
        for part in self.model.parts:
            rate, shapes = part.settings.sample_rate or 16_000, {}
            for number in range(1, LENGTHS + 1):
                length = round(self.limits.piece * rate * number / LENGTHS)
                noise = rng.normal(0, 0.1, length).astype(np.float32)
                array = extract.from_samples(noise, rate, part.settings)[0]
                shapes.setdefault(extract.batch([array], part.settings).shape, array)
            programs += itertools.product([part], shapes.values(), (1, TOGETHER))
        for part, array, rows in progress.bar("compiling", len(programs), "programs", programs):
            part.start(extract.batch([array], part.settings), rows)()
        return len(programs)

    async def run(self) -> None:
        """Judges what waits, the oldest utterance first, until it is cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self._arrived.wait()
                self._arrived.clear()
                while batch := self._take():
                    call = functools.partial(_dispatch, batch)
                    try:
                        rows = await loop.run_in_executor(self._device, call)
                    except Exception as error:
                        rows = [error] * len(batch)
                    self.dispatches += 1
                    self.answers += len(batch)
                    for each, row in zip(batch, rows, strict=True):
                        _answer(each.answer, row)
        finally:
            for pool in (self._device, self._work, self._reading):
                pool.shutdown(wait=False, cancel_futures=True)

    async def judge(
        self, samples: np.ndarray, rate: int, shown: bool = False
    ) -> tuple[np.ndarray, list[Shown]]:
        """Judges a waveform, as `Model.__call__` does.

        Args:
            samples: float32 [n], mono, full scale at 1.
            rate: Hz.
            shown: Whether pictures and gates are wanted.

        Returns:
            float64 [classes]; and what the models saw, in each of their windows, if it is wanted
            and there is one kind of pictures.

        Raises:
            Refused: Too much is waiting, or the answer takes too long.
            ValueError: The waveform cannot be judged, see `extract.from_samples`.
        """
        outputs, parts = [], self.model.parts
        for part in parts:
            windows = await self.work(extract.windows_of, samples, rate, part.settings)
            rows = []
            for first in range(0, len(windows), TOGETHER):
                few = [array for *_, array in windows[first : first + TOGETHER]]
                rows += await self._answers(part, few, is_said=True)
            outputs.append(np.mean([row[0] for row in rows], axis=0))
        shares, settings = self.model.merge(outputs), part.settings
        if not shown or len(parts) > 1 or not isinstance(settings, PictureSettings):
            return shares, []
        drawn = dataclasses.replace(settings, sample_rate=settings.sample_rate or rate, trim=0.0)
        return shares, [
            Shown(picture, {name: unpadded(of[name]) for name in of}, (start, end), drawn)
            for (start, end, picture), (_, of) in zip(windows, rows, strict=True)
        ]

    async def judge_recording(
        self, path: Path, title: str, window: float, hop: float
    ) -> dict[str, Any]:
        """Judges a recording, as `Model.predict` does, with few of its windows in memory.

        Args:
            path: The file.
            title: Its name in errors.
            window, hop: Seconds, as in `Model.predict`.

        Returns:
            `seconds`, and what `model.describe` returns.

        Raises:
            Refused: Too much is waiting, or the answer takes too long.
            ValueError: The recording, or a window of it, cannot be judged.
        """
        loop, windows, by_length, total = asyncio.get_running_loop(), [], False, 0.0
        for part in self.model.parts:
            windowing = part.windowing(window, hop)
            by_length = windowing.to_end
            if windowing.window > self.limits.piece:
                raise ValueError(
                    f"window={windowing.window:g} must be at most {self.limits.piece:g} seconds"
                )
            found, reading = {}, self._read(path, title, part, windowing)
            while few := await loop.run_in_executor(self._reading, _take_few, reading):
                rows = await self._answers(part, [array for *_, array in few], is_said=False)
                for (seconds, start, end, _), (shares, _) in zip(few, rows, strict=True):
                    total, found[start, end] = seconds, shares
            windows.append(found)
        # Starts are rounded, and parts may read at rates of their own.
        each = [{round(start, 3): (start, end) for start, end in those} for those in windows]
        common = sorted(set.intersection(*map(set, each)))
        merged = []
        for key in common:
            outputs = [those[times[key]] for those, times in zip(windows, each, strict=True)]
            merged.append((*each[0][key], self.model.merge(outputs)))
        return {"seconds": round(total, 6)} | self.model.describe(merged, by_length)

    async def work(self, function: Callable, *arguments: Any) -> Any:
        """Calls a function that takes a while in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._work, function, *arguments)

    def _read(
        self, path: Path, title: str, part: Any, windowing: audio.Windowing
    ) -> Iterator[tuple[float, float, float, np.ndarray]]:
        """Yields the recording's length, and each window's start, end and input."""
        settings, limits = part.settings, self.limits
        longest = limits.recording if windowing.window else limits.piece
        try:
            windows = extract.windows(settings.source(path), settings, windowing, longest=longest)
            for seconds, start, end, rate, array in windows:
                many = windowing.window and windowing.count(round(seconds * rate), rate)
                if many > limits.windows:
                    raise ValueError(
                        f"{path} has {many} windows, more than {limits.windows}: give a larger "
                        "--hop"
                    )
                if isinstance(array, ValueError):
                    raise ValueError(f"{path} from {start:.2f} to {end:.2f} s: {array}")
                yield seconds, start, end, array
        except ffmpeg.NotDecoded as error:  # what it says may quote other things than the recording
            raise ValueError(
                f"{title} cannot be decoded: send it as .wav, .flac, .mp3 or .ogg"
            ) from error
        except (ValueError, OSError) as error:
            said = str(error).replace(str(path), title)
            for name in ("window", "hop"):
                said = said.replace(f"--{name}", f"{name}=SECONDS in the address")
            raise ValueError(said) from error

    async def _answers(
        self, part: Any, arrays: Sequence[np.ndarray], is_said: bool
    ) -> list[tuple[np.ndarray, dict[str, np.ndarray]]]:
        """Returns the probabilities and the gates of a few pictures or features."""
        if len(self._waiting) + len(arrays) > self.limits.waiting:
            raise Refused(503, "the server is busy: try again in some seconds", 1013)
        answers = []
        for array in arrays:
            answers.append(asyncio.get_running_loop().create_future())
            inputs = extract.batch([array], part.settings)
            self._waiting.append(_Waiting(part.start, inputs, is_said, answers[-1]))
        self._arrived.set()
        try:
            async with asyncio.timeout(self.limits.answer_seconds):
                return await asyncio.gather(*answers)
        except TimeoutError as error:
            raise Refused(503, "the server is busy: try again in some seconds", 1013) from error

    def _take(self) -> list[_Waiting]:
        """Takes the oldest utterance, or else window, and those that can share its dispatch."""
        wanted = [each for each in self._waiting if not each.answer.done()]  # the others are gone
        wanted.sort(key=lambda each: not each.is_said)  # it keeps the order of those that are alike
        alike = [each for each in wanted if each.shares_with(wanted[0])]
        batch = alike[: TOGETHER if len(alike) >= LEAST_TOGETHER else 1]
        self._waiting = [each for each in wanted if not any(each is taken for taken in batch)]
        return batch


def _take_few(reading: Iterator) -> list:
    return [*itertools.islice(reading, TOGETHER)]


def _dispatch(batch: Sequence[_Waiting]) -> list[tuple[np.ndarray, dict[str, np.ndarray]]]:
    inputs = np.concatenate([each.inputs for each in batch])
    predicted = batch[0].start(inputs, 1 if len(batch) == 1 else TOGETHER)()
    return [
        (shares, {name: gate[row] for name, gate in predicted.gates.items()})
        for row, shares in enumerate(predicted.probabilities)
    ]


def _answer(future: asyncio.Future, row: Any) -> None:
    if future.done():
        return
    if isinstance(row, Exception):
        future.set_exception(row)
    else:
        future.set_result(row)
