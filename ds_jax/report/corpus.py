"""Counts what a corpus holds, and writes corpus.html, one file without links to others."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ds_jax.data.corpus import Corpus, Utterance
from ds_jax.features.spectrogram import PictureSettings, unpadded
from ds_jax.report import pages, panels, plots, sound
from ds_jax.report.panels import Panel
from ds_jax.runtime.files import write_text

SHOWN_SPEAKERS = 4  # by whom the page shows a picture of each class
BINS = 24  # of the histogram, at most
ASPECTS = ("speaker", "sentence", "gender", "style")


class Example(NamedTuple):
    """An utterance to be looked at and perhaps to be heard."""

    utterance: Utterance
    panel: Panel  # its first picture
    audio: bytes  # a FLAC file; empty where the recording may not be played


def summarise(corpus: Corpus) -> dict:
    """Counts what a corpus holds.

    Returns:
        `name`, `title`, `utterances` (their number), `inputs` (their number), `seconds` (of all
        utterances), `classes` (a row for each label), `tables` (for each aspect, such as speaker,
        a row for each of its values), `durations`, the `largest` and the `smallest` class,
        `largest_share` and `imbalance` (the largest class by the smallest), `skipped` (the rows of
        skipped.csv), and `equal` (groups of utterances that have the same recording).
    """
    utterances = corpus.utterances
    seconds = np.asarray([utterance.seconds for utterance in utterances])
    counts = Counter(utterance.label for utterance in utterances)
    present = [label for label in corpus.classes if counts[label]]
    return {
        "name": corpus.name,
        "title": corpus.title,
        "utterances": len(utterances),
        "inputs": len(corpus.recorded_owners),
        "seconds": float(seconds.sum()),
        "classes": [_class(label, utterances) for label in corpus.classes],
        "tables": {aspect: _table(aspect, corpus) for aspect in ASPECTS},
        "durations": {
            "shortest": utterances[int(seconds.argmin())],
            "longest": utterances[int(seconds.argmax())],
            "median": float(np.median(seconds)),
            "histogram": histogram(seconds),
        },
        "largest": max(present, key=counts.__getitem__),
        "smallest": min(present, key=counts.__getitem__),
        "largest_share": max(counts.values()) / len(utterances),
        "imbalance": max(counts.values()) / min(counts.values()),
        "skipped": corpus.skipped,
        "equal": _equal(utterances),
    }


def write(
    path: Path,
    content: Mapping,
    examples: Sequence[tuple[str, list[Example]]],
    audio_terms: str = "",
) -> None:
    """Writes a summary as one self-contained HTML file, completely or not at all.

    Args:
        path: The file.
        content, examples: The results of `summarise`, with `synthetic`, and of `examples`.
        audio_terms: The terms on which a page that plays recordings may be passed on.
    """
    page = pages.render(
        "corpus.html.jinja",
        content=content,
        histogram=plots.histogram(content["durations"]["histogram"]),
        examples=examples,
        clip_seconds=sound.CLIP_SECONDS,
        audio_terms=audio_terms,
    )
    write_text(path, page)


def examples(corpus: Corpus, settings: PictureSettings | None) -> list[tuple[str, list[Example]]]:
    """Selects for each label an utterance of middle length by each of some speakers.

    `settings` say how the corpus' pictures were drawn; of a corpus of features nothing is selected.
    """
    if corpus.inputs.dtype != np.uint8:
        return []
    selected = []
    first_rows = np.searchsorted(corpus.recorded_owners, np.arange(len(corpus.utterances)))
    for label in corpus.classes:
        shown = []
        for speaker in _shown_speakers(corpus.utterances):
            candidates = [
                (utterance.seconds, row)
                for row, utterance in enumerate(corpus.utterances)
                if (utterance.label, utterance.speaker) == (label, speaker)
            ]
            if candidates:
                row = sorted(candidates)[len(candidates) // 2][1]
                picture = corpus.inputs[first_rows[row]]
                shown.append(_example(corpus, corpus.utterances[row], picture, settings))
        if shown:
            selected.append((label, shown))
    return selected


def _example(
    corpus: Corpus, utterance: Utterance, picture: np.ndarray, settings: PictureSettings | None
) -> Example:
    if settings is not None and settings.is_timeline:
        picture = unpadded(picture)
    times = panels.window_times(1, utterance.seconds, settings)
    (panel,) = panels.of_pictures([picture], {}, times, settings)
    recording = corpus.recordings.get(utterance.name)
    return Example(utterance, panel, sound.clip(recording) if recording else b"")


def histogram(seconds: np.ndarray) -> dict:
    """Counts durations in at most `BINS` bins of 1, 2 or 5 times a power of ten seconds.

    Returns:
        `width` of a bin, `start` of the first one, and `counts`.
    """
    longest = float(seconds.max())
    power = 10.0 ** math.floor(math.log10(longest / BINS))
    width = next(power * factor for factor in (1, 2, 5, 10) if power * factor * BINS > longest)
    first, last = int(seconds.min() // width), int(longest // width)
    counts = np.bincount((seconds // width).astype(int), minlength=last + 1)[first:]
    return {"width": width, "start": first * width, "counts": counts.tolist()}


def _class(label: str, utterances: Sequence[Utterance]) -> dict:
    members = [utterance for utterance in utterances if utterance.label == label]
    seconds = [utterance.seconds for utterance in members]
    return {
        "label": label,
        "count": len(members),
        "seconds": sum(seconds),
        "median": float(np.median(seconds)) if members else math.nan,
        "speakers": len({utterance.speaker for utterance in members if utterance.speaker}),
        "sentences": len({utterance.sentence for utterance in members if utterance.sentence}),
    }


def _table(aspect: str, corpus: Corpus) -> list[dict]:
    """Returns a row for each value of an aspect; none if the corpus does not know the aspect."""
    groups = defaultdict(list)
    for utterance in corpus.utterances:
        groups[getattr(utterance, aspect)].append(utterance)
    if set(groups) == {""}:
        return []
    rows = []
    for value, members in sorted(groups.items()):
        counts = Counter(utterance.label for utterance in members)
        rows.append(
            {
                "value": value,
                "counts": [counts[label] for label in corpus.classes],
                "count": len(members),
                "median": float(np.median([utterance.seconds for utterance in members])),
                "genders": sorted({utterance.gender for utterance in members}),
            }
        )
    return rows


def _equal(utterances: Sequence[Utterance]) -> list[list[Utterance]]:
    """Groups the utterances that have the same recording, as `leakage` defines it."""
    groups = defaultdict(list)
    for utterance in utterances:
        if utterance.digest:
            groups[utterance.digest].append(utterance)
    return [group for group in groups.values() if len(group) > 1]


def _shown_speakers(utterances: Sequence[Utterance]) -> list[str]:
    """Selects the speakers with most labels and utterances, with the genders in turn."""
    labels, counts, genders = defaultdict(set), Counter(), {}
    for utterance in utterances:
        labels[utterance.speaker].add(utterance.label)
        counts[utterance.speaker] += 1
        genders[utterance.speaker] = utterance.gender
    turns = Counter()
    ranked = []
    for speaker in sorted(counts, key=lambda name: (-len(labels[name]), -counts[name], name)):
        ranked.append((turns[genders[speaker]], genders[speaker], speaker))
        turns[genders[speaker]] += 1
    return [speaker for _, _, speaker in sorted(ranked)[:SHOWN_SPEAKERS]]
