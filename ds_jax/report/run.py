"""Writes report.json and report.html of a run or of an evaluation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ds_jax.data import generated
from ds_jax.data.corpus import Corpus
from ds_jax.evaluation import predictions, summary
from ds_jax.evaluation.predictions import Predictions
from ds_jax.evaluation.summary import RunSummary
from ds_jax.features.spectrogram import PictureSettings, unpadded
from ds_jax.report import figures, latex, pages, panels, plots, sound, tables
from ds_jax.report.panels import Panel
from ds_jax.runtime.files import write_text
from ds_jax.runtime.progress import many
from ds_jax.runtime.workdir import GENERATED, PAGE, PREDICTIONS, REPORT

ERRORS, HITS, WINDOWS = 6, 2, 3  # shown: wrong and correct predictions, windows of a recording
RECORDED, DRAWN = 2, 3  # shown of each class: recordings, and generated pictures


@dataclass(frozen=True)
class Example:
    """An utterance that was tested, to be looked at and perhaps to be heard."""

    utterance: str
    speaker: str
    sentence: str  # empty where unknown
    seconds: float
    label: str
    prediction: str
    probability: float  # of the prediction, 0 to 1
    label_probability: float  # of the true label, 0 to 1
    # uint8 [height, width] each, indices into a colour map: one, or the first few windows of a
    # recording; none where a system reads features.
    pictures: Sequence[np.ndarray] = ()
    # By the name of the layer, float [height, width] from 0 (closed) to 1; only for one picture.
    gates: Mapping[str, np.ndarray] = field(default_factory=dict)
    audio: bytes = b""  # a FLAC file; empty where the recording may not be played

    def panels(self, settings: PictureSettings | None) -> list[Panel]:
        """Returns its pictures and gates with axes; `settings` say how they were drawn."""
        times = panels.window_times(len(self.pictures), self.seconds, settings)
        return panels.of_pictures(self.pictures, self.gates, times, settings)


def write(
    directory: Path,
    result: RunSummary,
    sources: Sequence[Path],
    corpus: Corpus,
    histories: Sequence[Sequence[Mapping]] = (),
    drawn: Path | None = None,
) -> None:
    """Writes report.json and report.html, with examples from the predictions in `sources`.

    If `drawn` is a folder, the figures and tables of the page are written there, for a paper.
    """
    summary.write(directory / REPORT, result)
    settings = panels.settings_of(result.settings)
    timelines = settings is not None and settings.is_timeline
    errors, hits = (_examples(sources, corpus, correct, timelines) for correct in (False, True))
    drawings = _drawn(sources, corpus, settings)
    write_page(directory / PAGE, result, histories, errors, hits, corpus.audio_terms, drawings)
    if drawn is not None:
        kinds = {"error": errors, "hit": hits}
        shown = {
            f"{kind}_{number + 1}": example.panels(settings)
            for kind, examples in kinds.items()
            for number, example in enumerate(examples)
            if example.pictures
        }
        figures.write_run(drawn, result, histories, shown)
        latex.write(drawn, tables.of_run(result))


def write_page(
    path: Path,
    result: RunSummary,
    histories: Sequence[Sequence[Mapping]] = (),
    errors: Sequence[Example] = (),
    hits: Sequence[Example] = (),
    audio_terms: str = "",
    drawn: Mapping[str, Sequence[Panel]] | None = None,
) -> None:
    """Writes the report as one HTML file that needs no other; equal inputs give equal bytes.

    Args:
        path: The file, which is written whole or not at all.
        result: The content of report.json.
        histories: For each fold the rows of its metrics.jsonl, an epoch each.
        errors: The most confident wrong predictions.
        hits: The most confident correct predictions.
        audio_terms: The terms on which a page that plays recordings may be passed on.
        drawn: Of each class pictures that trained a model, see `drawings`.
    """
    page = pages.render(
        "report.html.jinja",
        report=result,
        fold_columns=list(dict.fromkeys(name for fold in result.folds for name in fold)),
        curves=plots.curves(histories, result.folds),
        has_training_loss=any("train_tenth_loss" in row for rows in histories for row in rows),
        reliability=plots.reliability(result.calibration) if result.calibration else None,
        settings=panels.settings_of(result.settings),
        systems={
            value for name, value in result.settings.items() if name.rpartition(".")[2] == "system"
        },
        clip_seconds=sound.CLIP_SECONDS,
        audio_terms=audio_terms,
        errors=list(errors),
        hits=list(hits),
        drawn=drawn or {},
    )
    write_text(path, page)


def headline(result: RunSummary) -> str:
    """Returns the three scores with their intervals, and how they came about, as a line."""
    scores = ", ".join(
        f"{title} {pages.with_interval(getattr(result, name))}"
        for name, title in pages.TITLES.items()
    )
    trained = f" trained on {result.trained_on}, tested" if result.trained_on else ""
    chosen = ""
    if result.chosen == "epoch":
        chosen = f", epoch chosen on {result.selected_on}"
        chosen = ", no epoch chosen" if result.selected_on == "none" else chosen
    if result.adapt == "speaker":
        chosen += ", STANDARDISED BY UNLABELLED RECORDINGS OF THE TEST SPEAKERS"
    if result.auxiliary:
        chosen += f", TRAINED ON {' AND '.join(x['corpus'] for x in result.auxiliary)} TOO"
    unknown = "" if result.speakers else ", SPEAKERS UNKNOWN"
    missing = ", ".join(map(str, result.missing_folds))
    return (
        f"{result.system}{trained} on {result.corpus}, {many(result.n, 'utterance')}, "
        f"protocol {result.protocol}{chosen}{unknown}: {scores}"
        + (f"; MISSING FOLDS: {missing}" if missing else "")
    )


def _examples(
    sources: Sequence[Path], corpus: Corpus, correct: bool, timelines: bool
) -> list[Example]:
    """Picks the most confident correct or wrong predictions, an utterance once."""
    tested = {source: predictions.read(source / PREDICTIONS) for source in sources}
    ranked = sorted(
        (-rows.probabilities[row].max(), rows.utterances[row], source, row)
        for source, rows in tested.items()
        for row in np.flatnonzero((rows.labels == rows.predictions) == correct)
    )
    chosen = {}
    for _, name, source, row in ranked:
        chosen.setdefault(name, (source, row))
    shown = list(chosen.values())[: HITS if correct else ERRORS]
    return [_example(corpus, source, tested[source], row, timelines) for source, row in shown]


def _example(
    corpus: Corpus, source: Path, tested: Predictions, row: int, timelines: bool
) -> Example:
    """Collects what a page shows of an utterance; errors may be heard."""
    name = str(tested.utterances[row])
    utterance = next(utterance for utterance in corpus.utterances if utterance.name == name)
    # Features are not pictures, and the stored gates of several windows are means.
    inputs = corpus.inputs[corpus.rows_of((name,))]
    pictures = list(inputs[:WINDOWS]) if inputs.dtype == np.uint8 else []
    single = len(inputs) == len(pictures) == 1
    label, prediction = tested.labels[row], tested.predictions[row]
    recording = corpus.recordings.get(name) if label != prediction else None
    return Example(
        utterance=name,
        speaker=utterance.speaker,
        sentence=utterance.sentence,
        seconds=utterance.seconds,
        label=tested.classes[label],
        prediction=tested.classes[prediction],
        probability=float(tested.probabilities[row, prediction]),
        label_probability=float(tested.probabilities[row, label]),
        pictures=list(map(unpadded, pictures)) if timelines else pictures,
        gates=predictions.read_gates(source, name) if single else {},
        audio=sound.clip(recording) if recording else b"",
    )


def drawings(
    recorded: Sequence[np.ndarray], drawn: Sequence[np.ndarray], settings: PictureSettings | None
) -> list[Panel]:
    """Returns pictures of recordings, and then generated ones, with axes.

    All are uint8 [bands, width], and start anywhere in a recording's time.
    """
    return [
        panels.of_pictures([picture], {}, [(0.0, 0.0)], settings)[0]._replace(
            name=kind, x_label="time in s"
        )
        for kind, pictures in {"recorded": recorded, "generated": drawn}.items()
        for picture in pictures
    ]


def _drawn(
    sources: Sequence[Path], corpus: Corpus, settings: PictureSettings | None
) -> dict[str, list[Panel]]:
    """Collects generated pictures of the first fold that has any, and recordings they stand by."""
    found = [path for each in sources if (path := each / GENERATED).is_file()]
    if not found:
        return {}
    pictures, names = generated.show(found[0])
    labels = {utterance.name: utterance.label for utterance in corpus.utterances}
    drawn = {}
    for label in corpus.classes:
        chosen = [row for row, name in enumerate(names) if labels[name] == label][:DRAWN]
        shown = [unpadded(pictures[row]) for row in chosen]
        if not shown:
            continue
        recorded = [
            corpus.inputs[corpus.rows_of((names[row],))[0]][:, : picture.shape[1]]
            for row, picture in zip(chosen[:RECORDED], shown, strict=False)
        ]
        drawn[label] = drawings(recorded, shown, settings)
    return drawn
