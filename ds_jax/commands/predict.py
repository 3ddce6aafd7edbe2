"""The emotions of one's own recordings."""

import contextlib
import csv
import itertools
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from ds_jax.data import recordings
from ds_jax.data.corpus import LABELS
from ds_jax.data.recordings import STANDARD_INPUT, Recording, Unusable, Window
from ds_jax.evaluation.predictions import Predicted
from ds_jax.features import representation
from ds_jax.features.spectrogram import PictureSettings
from ds_jax.report import explanation
from ds_jax.runtime import files
from ds_jax.runtime.files import printable
from ds_jax.runtime.workdir import CHECKPOINTS, PREDICTIONS
from ds_jax.systems import base as systems
from ds_jax.training import parallel

FORMATS = ("table", "csv", "json")
SYNTHETIC = "SYNTHETIC SPEECH: the models were trained on it, and know nothing about emotions."
LONG = 60.0  # seconds; in a picture of more than that a word is a few pixels wide


class Answer(NamedTuple):
    """What the models say of a window.

    Attributes:
        window: A stretch of a recording, or all of it.
        probabilities: float64 [7], the mean over models.
        gates: For each attention head, float32 [height, width] in 0..1, the mean over models.
    """

    window: Window
    probabilities: np.ndarray
    gates: dict[str, np.ndarray]

    @property
    def prediction(self) -> str:
        """The most probable label."""
        return LABELS[self.probabilities.argmax()]


def run(
    checkpoint: Path,
    arguments: Sequence[str | Path],
    form: str = "table",
    window: float = 0.0,
    hop: float = 0.0,
    explain: str | Path | None = None,
) -> None:
    """Prints what the models of a run say of recordings, as soon as they have said it.

    A recording is judged window by window where there are windows, and has a row for each. Only
    the answers go to standard output; all else is said on standard error.

    - "table": for people.
    - "csv": a header, then `recording,start,end,prediction` and the probability of each label.
    - "json": an object of `system`, `models` (how many), `synthetic` (whether they were trained on
      synthetic speech), `labels`, `recordings` and `unusable`. Each recording has `recording` (its
      name), `seconds`, `prediction` and `probabilities` (by label, the mean over its windows, of
      those asked for by the length of each), and `windows`, one or more of `start`, `end`,
      `prediction` and `probabilities`. What is unusable has `recording` and `reason`.

    Args:
        checkpoint: A run's folder, of which all finished folds' models are averaged; or a fold's.
        arguments: Files of any rate and number of channels that libsndfile decodes, folders,
            patterns, and "-" for the bytes of a recording on standard input.
        form: One of `FORMATS`.
        window: Seconds; the last window may be shorter, and reaches the end. 0 takes the windows
            that the models were trained on, if they were, as they were cut there.
        hop: Seconds between the starts of windows; 0 is one after the other.
        explain: A folder for a picture of each window under each attention gate; None draws none.

    Raises:
        FileNotFoundError: There is no checkpoint.
        ValueError: No recording was given, some cannot be used (the others are printed first), or
            the models cannot do what is asked for.
    """
    if not arguments:
        raise ValueError(
            "give recordings, folders, patterns or - for standard input: "
            "python launch.py --mode=predict --checkpoint=DIR a.wav"
        )
    for name, value in {"window": window, "hop": hop}.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"--{name}={value} must be a number of seconds, 0 or more")
    output = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        checkpoints = find_checkpoints(checkpoint)
        config = systems.load_config(checkpoints)
        settings = representation.settings(config)
        asked = bool(window)
        if not window and isinstance(settings, PictureSettings):
            window, hop = settings.window, hop or settings.window_hop
        if hop and not window:
            raise ValueError(f"--hop={hop} needs --window: how many seconds are judged together")
        if explain and "gates" not in config.model:
            title = systems.title(config)
            raise ValueError(f"--explain shows attention gates, which {title} has none of")
        if explain:
            files.check_writable(explain, "--explain")
        if config.synthetic:
            print(SYNTHETIC)
        found, unusable = recordings.find(arguments)
        with recordings.standard_input(found) as found, _until_closed(output):
            if found:
                judge = systems.load_ensemble(checkpoints)
                quiet = output.isatty()
                answers = _answers(found, settings, window, hop, judge, unusable, quiet, asked)
                if explain:
                    answers = _explained(answers, found, Path(explain), settings, bool(window))
                if form == "table":
                    width = max(len(printable(one.title)) for one in found)
                    _write_table(answers, width, output)
                elif form == "csv":
                    _write_csv(answers, output)
                else:
                    about = {"system": systems.title(config), "models": len(checkpoints)}
                    about["synthetic"] = config.synthetic
                    _write_json(answers, about, unusable, asked, output)
    if unusable:
        raise ValueError(recordings.complaint(unusable))


def find_checkpoints(directory: Path) -> list[Path]:
    """Finds the `checkpoints` folders of a run's finished folds, of a fold, or the one given.

    Raises:
        FileNotFoundError: There is none.
    """
    if directory.name == "checkpoints":
        return [directory]
    finished = sorted(directory.glob(f"fold_*/{PREDICTIONS}"))
    found = [path.parent / CHECKPOINTS for path in finished]
    if not found and not (directory / CHECKPOINTS).is_dir():
        raise FileNotFoundError(
            f"no finished fold in {directory}: give --checkpoint the folder of a run or of a fold"
        )
    return found or [directory / CHECKPOINTS]


def _answers(
    found: Sequence[Recording],
    settings: representation.Settings,
    window: float,
    hop: float,
    judge: Callable[[np.ndarray, int], Callable[[], Predicted]],
    unusable: list[Unusable],
    quiet: bool,
    to_end: bool,
) -> Iterator[Answer]:
    """Judges batch after batch; in the end it says what was too long to be judged as a whole."""
    long = []
    size = parallel.rows_together()
    batches = recordings.process(found, settings, window, hop, size, judge, unusable, quiet, to_end)
    for batch, judged in batches:
        for row, one in enumerate(batch):
            if not window and one.end > LONG:
                long.append(one.recording.title)
            gates = {name: gate[row] for name, gate in judged.gates.items()}
            yield Answer(one, judged.probabilities[row], gates)
    if long:
        print(
            f"{len(long)} longer than {LONG:.0f} s and judged as a whole, such as {long[0]}: "
            "--window=3 judges every three seconds"
        )


def _explained(
    answers: Iterable[Answer],
    found: Sequence[Recording],
    folder: Path,
    settings: PictureSettings,
    windowed: bool,
) -> Iterator[Answer]:
    """Draws a picture of each answer, in folders below each other as the recordings are."""
    paths = {one: Path(os.path.abspath(one.path)) for one in found if one.title != STANDARD_INPUT}
    common = os.path.commonpath([path.parent for path in paths.values()]) if paths else ""
    for answer in answers:
        one = answer.window
        path = paths.get(one.recording)
        name = str(path.relative_to(common)) if path else "standard_input"
        if windowed:
            name += f"_{one.start:.2f}-{one.end:.2f}"
        title = f"{answer.prediction} {answer.probabilities.max():.2f}"
        content = explanation.draw(one.represented, settings.colour_map, answer.gates, title)
        files.write_bytes(folder / f"{name}.png", content)
        yield answer


def _write_table(answers: Iterable[Answer], width: int, output: TextIO) -> None:
    columns = " ".join(f"{label:>8}" for label in LABELS)
    print(f"{'':{width}} {'start':>8} {'end':>8} prediction {columns}", file=output)
    for answer in answers:
        window, shares = answer.window, " ".join(f"{p:8.3f}" for p in answer.probabilities)
        row = f"{printable(window.recording.title):{width}} {window.start:8.2f} {window.end:8.2f}"
        print(f"{row} {answer.prediction:10} {shares}", file=output, flush=True)


def _write_csv(answers: Iterable[Answer], output: TextIO) -> None:
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow(("recording", "start", "end", "prediction", *LABELS))
    for answer in answers:
        times = [round(time, 6) for time in (answer.window.start, answer.window.end)]
        shares = answer.probabilities.tolist()
        writer.writerow([answer.window.recording.title, *times, answer.prediction, *shares])
        output.flush()


def _write_json(
    answers: Iterable[Answer],
    about: dict,
    unusable: Sequence[Unusable],
    by_length: bool,
    output: TextIO,
) -> None:
    """Writes one object, a recording a line; while it is not whole, it is not valid either."""
    head = json.dumps(about | {"labels": LABELS}, ensure_ascii=False)
    print(head.removesuffix("}") + ', "recordings": [', end="", file=output)
    separator = "\n"
    # By identity, since a recording may be given twice.
    for _, group in itertools.groupby(answers, lambda answer: id(answer.window.recording)):
        windows = list(group)
        first = windows[0].window
        # A short last window would count too much; windows of training are as they were there.
        lengths = [one.window.end - one.window.start if by_length else 1 for one in windows]
        mean = np.average([one.probabilities for one in windows], axis=0, weights=lengths)
        record = {"recording": first.recording.title, "seconds": round(first.seconds, 6)}
        record |= _said(mean) | {
            "windows": [
                {"start": round(answer.window.start, 6), "end": round(answer.window.end, 6)}
                | _said(answer.probabilities)
                for answer in windows
            ]
        }
        text = json.dumps(record, ensure_ascii=False)
        print(separator + text, end="", file=output, flush=True)
        separator = ",\n"
    reasons = [{"recording": one.title, "reason": one.reason} for one in unusable]
    print('\n], "unusable": ' + json.dumps(reasons, ensure_ascii=False) + "}", file=output)


def _said(probabilities: np.ndarray) -> dict:
    shares = dict(zip(LABELS, probabilities.tolist(), strict=True))
    return {"prediction": LABELS[probabilities.argmax()], "probabilities": shares}


@contextlib.contextmanager
def _until_closed(output: TextIO) -> Iterator[None]:
    """Ends quietly where whoever reads the answers, such as `head`, has enough of them."""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())  # it is flushed again at exit
