"""--mode=predict: prints the emotions of a user's recordings."""

import contextlib
import csv
import itertools
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from ds_jax.data import recordings
from ds_jax.data.recordings import STANDARD_INPUT, Recording, Unusable, Window
from ds_jax.evaluation.predictions import Predicted, unpadded
from ds_jax.features import extract
from ds_jax.features.audio import Windowing
from ds_jax.features.spectrogram import PictureSettings
from ds_jax.report import images
from ds_jax.runtime import files
from ds_jax.runtime.files import printable
from ds_jax.runtime.progress import many
from ds_jax.runtime.workdir import CHECKPOINTS, finished_folds
from ds_jax.systems import base as systems
from ds_jax.training import parallel

FORMATS = ("table", "csv", "json")
SYNTHETIC = "SYNTHETIC SPEECH: the models were trained on it, and know nothing about emotions."
LONG = 60.0  # seconds; in a picture of more than that a word is a few pixels wide

# A window; its probabilities, float64 [classes], the mean over models; and for each attention head
# its gate, float32 [height, width] in 0..1, the mean over models.
Row = tuple[Window, np.ndarray, dict[str, np.ndarray]]


def run(
    checkpoint: Path,
    arguments: Sequence[str | Path],
    form: str = "table",
    window: float = 0.0,
    hop: float = 0.0,
    explain: str | Path | None = None,
    reading: Mapping[str, Any] | None = None,
) -> None:
    """Prints the predictions of a run's models for recordings, each as soon as it is known.

    A recording has a row for each of its windows. Only predictions are printed to standard output;
    messages go to standard error.

    - "table" is for people.
    - "csv" has a header, then `recording,start,end,prediction` and the probability of each label.
    - "json" is an object of `system`, `models` (their number), `synthetic` (whether they were
      trained on synthetic speech), `labels`, `recordings` and `unusable`. Each recording has
      `recording` (its name), `seconds`, `prediction` and `probabilities` (by label; the mean over
      windows, weighted by their lengths if `window` is given), and `windows`, each with `start`,
      `end`, `prediction` and `probabilities`. Each unusable one has `recording` and `reason`.

    Args:
        checkpoint: The folder of a run, whose finished folds' models are averaged, or of a fold.
        arguments: Files of any rate and number of channels that libsndfile or ffmpeg decodes,
            folders, patterns, and "-" for the bytes of a recording on standard input.
        form: An element of `FORMATS`.
        window: Seconds; the last window may be shorter, and reaches the end. 0 takes the windows
            on which the models were trained, if they were, cut as in training.
        hop: Seconds between the starts of windows; 0 means window.
        explain: A folder for a picture of each window under each attention gate; None draws none.
        reading: Fields of `source.Reading` that hold in place of the models' own.

    Raises:
        FileNotFoundError: There is no checkpoint.
        ValueError: No recording was given, some cannot be used (the predictions of the others are
            printed first), or the models have no windows or gates as asked for.
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
        config.update(reading or {})
        settings, classes = extract.settings(config), tuple(config.classes)
        windowing = Windowing(window, hop, to_end=True)
        if not window:
            windowing = Windowing(settings.windowing.window, hop or settings.windowing.hop)
        if hop and not windowing.window:
            raise ValueError(f"--hop={hop} needs --window, the seconds of a window")
        if explain and not (config.model.get("gates") or config.model.get("gate")):
            title = systems.title(config)
            raise ValueError(f"--explain shows attention gates, and {title} has none")
        if explain:
            files.check_writable(explain, "--explain")
        if config.synthetic:
            print(SYNTHETIC)
        found, unusable = recordings.find(arguments)
        with recordings.standard_input(found) as found, _until_closed(output):
            if found:
                predict = systems.implementation(config).load_ensemble(checkpoints)
                size, quiet = parallel.rows_together(), output.isatty()
                batches = recordings.process(
                    found, settings, windowing, size, predict, unusable, quiet
                )
                rows = _rows(batches, bool(windowing.window))
                if explain:
                    rows = _explain(
                        rows, classes, found, Path(explain), settings, bool(windowing.window)
                    )
                if form == "table":
                    width = max(len(printable(recording.title)) for recording in found)
                    _write_table(rows, classes, width, output)
                elif form == "csv":
                    _write_csv(rows, classes, output)
                else:
                    head = {"system": systems.title(config), "models": len(checkpoints)}
                    head |= {"synthetic": config.synthetic, "labels": classes}
                    _write_json(rows, head, unusable, windowing.to_end, output)
    if unusable:
        raise ValueError(recordings.complaint(unusable))


def find_checkpoints(directory: Path) -> list[Path]:
    """Finds the `checkpoints` folders of a run's finished folds, or of a fold.

    Args:
        directory: The folder of a run or of a fold, or a `checkpoints` folder.

    Raises:
        FileNotFoundError: There is none.
    """
    if directory.name == CHECKPOINTS:
        return [directory]
    found = [fold / CHECKPOINTS for fold in finished_folds(directory)]
    if not found and not (directory / CHECKPOINTS).is_dir():
        raise FileNotFoundError(
            f"no finished fold in {directory}: give --checkpoint the folder of a run or of a fold"
        )
    return found or [directory / CHECKPOINTS]


def _rows(batches: Iterable[tuple[Sequence[Window], Predicted]], windowed: bool) -> Iterator[Row]:
    """Yields the rows of each batch; finally prints how many recordings were long and whole."""
    long = []
    for batch, predicted in batches:
        for index, part in enumerate(batch):
            if not windowed and part.end > LONG:
                long.append(part.recording.title)
            gates = {name: unpadded(gate[index]) for name, gate in predicted.gates.items()}
            yield part, predicted.probabilities[index], gates
    if long:
        print(
            f"{many(len(long), 'recording')} longer than {LONG:.0f} s and taken whole, such as "
            f"{long[0]}: --window=3 gives a prediction for every three seconds"
        )


def _explain(
    rows: Iterable[Row],
    classes: Sequence[str],
    found: Sequence[Recording],
    folder: Path,
    settings: PictureSettings,
    windowed: bool,
) -> Iterator[Row]:
    """Draws a picture of each row, in a tree of folders like that of the recordings."""
    paths = {one: Path(os.path.abspath(one.path)) for one in found if one.title != STANDARD_INPUT}
    common = os.path.commonpath([path.parent for path in paths.values()]) if paths else ""
    for part, probabilities, gates in rows:
        path = paths.get(part.recording)
        name = str(path.relative_to(common)) if path else "standard_input"
        if windowed:
            name += f"_{part.start:.2f}-{part.end:.2f}"
        title = f"{classes[probabilities.argmax()]} {probabilities.max():.2f}"
        content = images.explain(part.represented, settings.colour_map, gates, title)
        files.write_bytes(folder / f"{name}.png", content)
        yield part, probabilities, gates


def _write_table(rows: Iterable[Row], classes: Sequence[str], width: int, output: TextIO) -> None:
    columns, longest = " ".join(f"{name:>8}" for name in classes), max(10, *map(len, classes))
    print(f"{'':{width}} {'start':>8} {'end':>8} {'prediction':{longest}} {columns}", file=output)
    for part, probabilities, _ in rows:
        name, label = printable(part.recording.title), classes[probabilities.argmax()]
        shares = zip(classes, probabilities, strict=True)
        text = " ".join(f"{share:{max(8, len(name))}.3f}" for name, share in shares)
        row = f"{name:{width}} {part.start:8.2f} {part.end:8.2f} {label:{longest}} {text}"
        print(row, file=output, flush=True)


def _write_csv(rows: Iterable[Row], classes: Sequence[str], output: TextIO) -> None:
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow(("recording", "start", "end", "prediction", *classes))
    for part, probabilities, _ in rows:
        times = round(part.start, 6), round(part.end, 6)
        label = classes[probabilities.argmax()]
        writer.writerow([part.recording.title, *times, label, *probabilities.tolist()])
        output.flush()


def _write_json(
    rows: Iterable[Row],
    head: dict,
    unusable: Sequence[Unusable],
    by_length: bool,
    output: TextIO,
) -> None:
    """Writes an object with a recording a line; until it is complete it is not valid either."""
    text, classes = json.dumps(head, ensure_ascii=False), head["labels"]
    print(text.removesuffix("}") + ', "recordings": [', end="", file=output)
    separator = "\n"
    # The groups are made by identity, since a recording may be given twice.
    for _, group in itertools.groupby(rows, lambda row: id(row[0].recording)):
        parts, probabilities, _ = zip(*group, strict=True)
        # A short last window would count too much; windows of training count as they did there.
        weights = [part.end - part.start if by_length else 1 for part in parts]
        mean = np.average(probabilities, axis=0, weights=weights)
        record = {"recording": parts[0].recording.title, "seconds": round(parts[0].seconds, 6)}
        record |= _prediction(mean, classes)
        record["windows"] = [
            {"start": round(part.start, 6), "end": round(part.end, 6)}
            | _prediction(shares, classes)
            for part, shares in zip(parts, probabilities, strict=True)
        ]
        text = json.dumps(record, ensure_ascii=False)
        print(separator + text, end="", file=output, flush=True)
        separator = ",\n"
    reasons = [{"recording": item.title, "reason": item.reason} for item in unusable]
    print('\n], "unusable": ' + json.dumps(reasons, ensure_ascii=False) + "}", file=output)


def _prediction(probabilities: np.ndarray, classes: Sequence[str]) -> dict:
    by_label = dict(zip(classes, probabilities.tolist(), strict=True))
    return {"prediction": classes[probabilities.argmax()], "probabilities": by_label}


@contextlib.contextmanager
def _until_closed(output: TextIO) -> Iterator[None]:
    """Ends quietly when the reader of the output, such as `head`, closes it."""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())  # it is flushed again at exit
