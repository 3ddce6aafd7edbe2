"""What a prepared corpus holds: as tables on the terminal, and in corpus.html with its pictures."""

import csv
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import ml_collections
import numpy as np

from ds_jax.data.corpus import LABELS, Corpus, Utterance
from ds_jax.report import images, pages, plots
from ds_jax.runtime import processes, progress
from ds_jax.runtime.files import check_writable, write_text

PAGE = "corpus.html"
SHOWN_SPEAKERS = 4  # of each class the page shows a picture by each of so many
PRINTED = 24  # rows of a table on the terminal; the page has all
BINS = 24  # of the histogram at most
ASPECTS = ("speaker", "sentence", "gender", "style")


def run(config: ml_collections.ConfigDict, corpus: Corpus, directory: Path) -> None:
    """Prints what a corpus holds and writes corpus.html.

    Args:
        config: Of an experiment on it: the colours of its pictures, and whether it is synthetic.
        corpus: In memory.
        directory: Where corpus.html goes.

    Raises:
        OSError: The folder cannot be written.
    """
    if not processes.is_first_process():
        return
    check_writable(directory)
    content = summarise(corpus)
    print("\n".join(lines(content)))
    colour_map = config.picture.colour_map if "picture" in config else ""
    content |= {"synthetic": config.synthetic}
    write(directory / PAGE, content, _examples(corpus), colour_map)
    print(f"page: {directory / PAGE}")


def summarise(corpus: Corpus) -> dict:
    """Counts what a corpus holds.

    Returns:
        `name`, `utterances` (their number), `seconds` (of all), `classes` (a row for each of the
        seven labels), `tables` (by aspect: speaker, sentence, gender, style; a row for each of its
        values), `durations`, `largest` and `smallest` class that there is, `skipped` (rows of
        skipped.csv) and `equal` (groups of utterances that are the same recording).
    """
    utterances = corpus.utterances
    seconds = np.asarray([utterance.seconds for utterance in utterances])
    counts = Counter(utterance.label for utterance in utterances)
    present = [label for label in LABELS if counts[label]]
    return {
        "name": corpus.name,
        "title": corpus.title,
        "utterances": len(utterances),
        "inputs": len(corpus.inputs),
        "seconds": float(seconds.sum()),
        "classes": [_class(label, utterances) for label in LABELS],
        "tables": {aspect: _table(aspect, utterances) for aspect in ASPECTS},
        "durations": {
            "shortest": utterances[int(seconds.argmin())],
            "longest": utterances[int(seconds.argmax())],
            "median": float(np.median(seconds)),
            "histogram": _histogram(seconds),
        },
        "largest": max(present, key=counts.__getitem__),
        "smallest": min(present, key=counts.__getitem__),
        "imbalance": max(counts.values()) / min(counts.values()),
        "skipped": _skipped(corpus.directory),
        "equal": _equal(utterances),
    }


def lines(content: Mapping) -> list[str]:
    """The tables of a summary as text."""
    tables, equal = content["tables"], content["equal"]
    found = [
        f"{content['name']}: {content['utterances']} utterances, "
        f"{progress.clock(content['seconds'])}, {len(tables['speaker'])} speakers, "
        f"{len(tables['sentence'])} sentences, {len(content['skipped'])} skipped, "
        f"{sum(map(len, equal))} of equal recordings",
        "",
    ]
    head = ("label", "utterances", "share", "speakers", "sentences", "median s")
    body = [
        (
            row["label"],
            row["count"],
            f"{row['count'] / content['utterances']:.3f}",
            row["speakers"],
            row["sentences"],
            f"{row['median']:.1f}" if row["count"] else "-",
        )
        for row in content["classes"]
    ]
    found += [*_aligned([head, *body]), ""]
    durations, balance = content["durations"], "all classes are equally frequent"
    if content["imbalance"] > 1:
        times = f"{content['imbalance']:.1f} times as frequent"
        balance = f"it is {times} as {content['smallest']}"
    found += [
        f"always {content['largest']}: accuracy {_largest_share(content):.3f}; {balance}",
        f"seconds: {durations['shortest'].seconds:.2f} to {durations['longest'].seconds:.2f}, "
        f"median {durations['median']:.2f}",
    ]
    for aspect, rows in tables.items():
        if len(rows) < 2 and aspect in ("gender", "style", "sentence"):
            continue
        head = (aspect, *(label.lower()[:8] for label in LABELS), "all", "median s")
        body = [
            (row["value"] or "-", *row["counts"], row["count"], f"{row['median']:.1f}")
            for row in rows[:PRINTED]
        ]
        found += ["", *_aligned([head, *body])]
        if len(rows) > PRINTED:
            found.append(f"... and {len(rows) - PRINTED} more")
    for title, rows in (
        ("skipped", [f"{file}: {reason}" for _, file, reason in content["skipped"]]),
        ("equal recordings", [", ".join(_described(one) for one in group) for group in equal]),
    ):
        if rows:
            found += ["", f"{title}:", *(f"  {row}" for row in rows[:PRINTED])]
            found += [f"  ... and {len(rows) - PRINTED} more"] if len(rows) > PRINTED else []
    return found


def write(
    path: Path, content: Mapping, examples: Sequence[tuple[str, list]], colour_map: str
) -> None:
    """Writes a summary as one self-contained HTML file.

    Args:
        path: The file to write, whole or not at all.
        content: Of `summarise`, and `synthetic`.
        examples: For each label pairs of an utterance and its picture, uint8 [canvas, canvas].
        colour_map: Of the pictures.
    """
    page = pages.render(
        "corpus.html.jinja",
        content=content,
        labels=LABELS,
        histogram=plots.histogram(content["durations"]["histogram"]),
        largest_share=_largest_share(content),
        examples=[
            (
                label,
                [
                    (utterance, pages.picture_uri(images.colour(picture, colour_map)))
                    for utterance, picture in pairs
                ],
            )
            for label, pairs in examples
        ],
    )
    write_text(path, page)


def _class(label: str, utterances: Sequence[Utterance]) -> dict:
    own = [utterance for utterance in utterances if utterance.label == label]
    seconds = [utterance.seconds for utterance in own]
    return {
        "label": label,
        "count": len(own),
        "seconds": sum(seconds),
        "median": float(np.median(seconds)) if own else math.nan,
        "speakers": len({utterance.speaker for utterance in own}),
        "sentences": len({utterance.sentence for utterance in own if utterance.sentence}),
    }


def _table(aspect: str, utterances: Sequence[Utterance]) -> list[dict]:
    """A row for each value of an aspect; none where the corpus does not tell it."""
    groups = defaultdict(list)
    for utterance in utterances:
        groups[getattr(utterance, aspect)].append(utterance)
    if set(groups) == {""}:
        return []
    rows = []
    for value, own in sorted(groups.items()):
        counts = Counter(utterance.label for utterance in own)
        rows.append(
            {
                "value": value,
                "counts": [counts[label] for label in LABELS],
                "count": len(own),
                "median": float(np.median([utterance.seconds for utterance in own])),
                "genders": sorted({utterance.gender for utterance in own}),
            }
        )
    return rows


def _histogram(seconds: np.ndarray) -> dict:
    """Counts in at most `BINS` bins, whose width is 1, 2 or 5 times a power of ten seconds."""
    longest = float(seconds.max())
    power = 10.0 ** math.floor(math.log10(longest / BINS))
    width = next(power * factor for factor in (1, 2, 5, 10) if power * factor * BINS > longest)
    first, last = int(seconds.min() // width), int(longest // width)
    counts = np.bincount((seconds // width).astype(int), minlength=last + 1)[first:]
    return {"width": width, "start": first * width, "counts": counts.tolist()}


def _skipped(directory: Path | None) -> list[list[str]]:
    """Rows (utterance, file, reason) of a prepared corpus' skipped.csv."""
    if directory is None:
        return []
    with open(directory / "skipped.csv", newline="", encoding="utf-8") as file:
        return list(csv.reader(file))[1:]


def _equal(utterances: Sequence[Utterance]) -> list[list[Utterance]]:
    """Groups of utterances that are the same recording, as `leaks` knows them."""
    groups = defaultdict(list)
    for utterance in utterances:
        if utterance.digest:
            groups[utterance.digest].append(utterance)
    return [group for group in groups.values() if len(group) > 1]


def _examples(corpus: Corpus) -> list[tuple[str, list[tuple[Utterance, np.ndarray]]]]:
    """For each label an utterance of middle length by each of some speakers; none of features."""
    if corpus.inputs.dtype != np.uint8:
        return []
    examples = []
    first_rows = np.searchsorted(corpus.owners, np.arange(len(corpus.utterances)))
    for label in LABELS:
        pairs = []
        for speaker in _shown_speakers(corpus.utterances):
            own = [
                (utterance.seconds, row)
                for row, utterance in enumerate(corpus.utterances)
                if (utterance.label, utterance.speaker) == (label, speaker)
            ]
            if own:
                row = sorted(own)[len(own) // 2][1]
                pairs.append((corpus.utterances[row], corpus.inputs[first_rows[row]]))
        if pairs:
            examples.append((label, pairs))
    return examples


def _shown_speakers(utterances: Sequence[Utterance]) -> list[str]:
    """Those with most labels and utterances, the genders in turn."""
    labels, counts, genders = defaultdict(set), Counter(), {}
    for utterance in utterances:
        labels[utterance.speaker].add(utterance.label)
        counts[utterance.speaker] += 1
        genders[utterance.speaker] = utterance.gender
    turns = Counter()
    ranked = []
    for speaker in sorted(counts, key=lambda one: (-len(labels[one]), -counts[one], one)):
        ranked.append((turns[genders[speaker]], genders[speaker], speaker))
        turns[genders[speaker]] += 1
    return [speaker for _, _, speaker in sorted(ranked)[:SHOWN_SPEAKERS]]


def _largest_share(content: Mapping) -> float:
    return max(row["count"] for row in content["classes"]) / content["utterances"]


def _described(utterance: Utterance) -> str:
    return f"{utterance.name} ({utterance.label}, {utterance.speaker})"


def _aligned(rows: Iterable[Sequence]) -> list[str]:
    """Rows as text, the first column to the left and the others to the right."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in texts
    ]
