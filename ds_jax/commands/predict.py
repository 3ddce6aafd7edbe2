"""--mode=predict: prints the emotions of a user's recordings."""

import contextlib
import csv
import dataclasses
import itertools
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from ds_jax import config as configuration
from ds_jax.data import recordings
from ds_jax.data.recordings import STANDARD_INPUT, Recording, Unusable
from ds_jax.report import pages, panels
from ds_jax.runtime import files, progress
from ds_jax.systems.finding import find
from ds_jax.systems.model import SYNTHETIC, Model, Row


def run(
    checkpoint: Path,
    arguments: Sequence[str | Path],
    form: str = "table",
    window: float = 0.0,
    hop: float = 0.0,
    explain: str | Path | None = None,
    reading: Mapping[str, Any] | None = None,
    enrol: Sequence[str | Path] = (),
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
        form: "table", "csv" or "json".
        window: Seconds; the last window may be shorter, and reaches the end. 0 takes the windows
            on which the models were trained, if they were, cut as in training.
        hop: Seconds between the starts of windows; 0 means window.
        explain: A folder for drawings (SVG) of each window's picture and gates; None draws none.
        reading: Fields of `source.Reading` that hold in place of the models' own.
        enrol: Recordings of the speaker, as `arguments`, for models that need them.

    Raises:
        FileNotFoundError: There is no checkpoint.
        ValueError: No recording was given, some cannot be used (the predictions of the others are
            printed first), or the models have no windows or gates as asked for; or as
            `Model.enrol`.
    """
    if not arguments:
        raise ValueError(
            "give recordings, folders, patterns or - for standard input: "
            "python launch.py --mode=predict --checkpoint=DIR a.wav"
        )
    output = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        model = find(checkpoint, **(reading or {}))
        windowing = model.windowing(window, hop)
        if explain:
            model.check_gates()
            files.check_writable(explain, "--explain")
        if model.config.synthetic:
            print(SYNTHETIC)
        if model.never_answered:
            print(pages.never_answered(model.never_answered))
        model.enrol(enrol)
        found, unusable = recordings.find(arguments)
        with recordings.standard_input(found) as found:
            if found:
                loading = f"{model.title}: loading {progress.many(model.count, 'model')}"
                experiments = configuration.experiments(model.config)
                if any("picture" in each or "train" in each for each in experiments):
                    loading += (
                        "; the first answer takes up to a minute where nothing was compiled before"
                    )
                progress.say(loading)
                rows = model.rows(found, windowing, unusable, output.isatty())
                if explain:
                    rows = _explain(rows, model, found, Path(explain), bool(windowing.window))
                if form == "table":
                    width = max(len(files.printable(recording.title)) for recording in found)
                    _write_table(rows, model.classes, width, output)
                elif form == "csv":
                    _write_csv(rows, model.classes, output)
                else:
                    _write_json(rows, model, unusable, windowing.to_end, output)
    if unusable:
        raise ValueError(recordings.complaint(unusable))


def _explain(
    rows: Iterable[Row], model: Model, found: Sequence[Recording], folder: Path, windowed: bool
) -> Iterator[Row]:
    """Draws each row's picture and gates, in a tree of folders like that of the recordings."""
    paths = {one: Path(os.path.abspath(one.path)) for one in found if one.title != STANDARD_INPUT}
    common = os.path.commonpath([path.parent for path in paths.values()]) if paths else ""
    for row in rows:
        part, probabilities, gates = row
        path = paths.get(part.recording)
        name = str(path.relative_to(common)) if path else "standard_input"
        if windowed:
            name += f"_{part.start:.2f}-{part.end:.2f}"
        settings = dataclasses.replace(model.settings, sample_rate=part.rate)
        drawn = pages.render(
            "explanation.svg.jinja",
            name=files.printable(name),
            answer=f"{model.classes[probabilities.argmax()]} {probabilities.max():.2f}",
            panels=panels.of_pictures(
                [part.represented], gates, [(part.start, part.end)], settings
            ),
        )
        files.write_text(folder / f"{name}.svg", drawn)
        yield row


def _write_table(rows: Iterable[Row], classes: Sequence[str], width: int, output: TextIO) -> None:
    columns, longest = " ".join(f"{name:>8}" for name in classes), max(10, *map(len, classes))
    print(f"{'':{width}} {'start':>8} {'end':>8} {'prediction':{longest}} {columns}", file=output)
    for part, probabilities, _ in rows:
        name, label = files.printable(part.recording.title), classes[probabilities.argmax()]
        shares = zip(classes, probabilities, strict=True)
        text = " ".join(f"{share:{max(8, len(name))}.3f}" for name, share in shares)
        row = f"{name:{width}} {part.start:8.2f} {part.end:8.2f} {label:{longest}} {text}"
        print(row, file=output, flush=True)


def _write_csv(rows: Iterable[Row], classes: Sequence[str], output: TextIO) -> None:
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow(("recording", "start", "end", "prediction", *classes))
    for row in rows:
        writer.writerow(row.record(classes).values())
        output.flush()


def _write_json(
    rows: Iterable[Row], model: Model, unusable: Sequence[Unusable], by_length: bool, output: TextIO
) -> None:
    """Writes an object with a recording a line; until it is complete it is not valid either."""
    classes = model.classes
    head = {"system": model.title, "models": model.count}
    head |= {"synthetic": model.config.synthetic, "labels": classes}
    text = json.dumps(head, ensure_ascii=False)
    print(text.removesuffix("}") + ', "recordings": [', end="", file=output)
    separator = "\n"
    # The groups are made by identity, since a recording may be given twice.
    for _, group in itertools.groupby(rows, lambda row: id(row[0].recording)):
        parts, probabilities, _ = zip(*group, strict=True)
        record = {"recording": parts[0].recording.title, "seconds": round(parts[0].seconds, 6)}
        windows = [
            (part.start, part.end, shares)
            for part, shares in zip(parts, probabilities, strict=True)
        ]
        record |= model.describe(windows, by_length)
        text = json.dumps(record, ensure_ascii=False)
        print(separator + text, end="", file=output, flush=True)
        separator = ",\n"
    reasons = [{"recording": item.title, "reason": item.reason} for item in unusable]
    print('\n], "unusable": ' + json.dumps(reasons, ensure_ascii=False) + "}", file=output)
