"""--mode=corpus: prints what a prepared corpus holds, and writes corpus.html with its pictures."""

from collections.abc import Mapping
from pathlib import Path

import ml_collections

from ds_jax import config as configuration
from ds_jax.data.corpus import Corpus, Utterance
from ds_jax.report import corpus as report
from ds_jax.report import pages, panels
from ds_jax.runtime import processes, progress
from ds_jax.runtime.files import check_writable
from ds_jax.runtime.progress import many

PAGE = "corpus.html"
PRINTED = 24  # rows of a table on the terminal; the page has all


def run(config: ml_collections.ConfigDict, corpus: Corpus, directory: Path) -> None:
    """Prints what a corpus holds and writes corpus.html.

    Args:
        config: The config of an experiment on the corpus, which says how its pictures are drawn,
            and whether the corpus is synthetic speech.
        corpus: The corpus.
        directory: The folder of corpus.html.

    Raises:
        OSError: The folder cannot be written.
    """
    if not processes.is_first_process():
        return
    check_writable(directory)
    content = report.summarise(corpus)
    print("\n".join(lines(content)))
    content |= {"synthetic": config.synthetic}
    settings = panels.settings_of(configuration.describe(config))
    examples = report.examples(corpus, settings)
    report.write(directory / PAGE, content, examples, corpus.audio_terms)
    print(f"page: {directory / PAGE}")


def lines(content: Mapping) -> list[str]:
    """Formats the tables of `report.corpus.summarise` as lines of text."""
    tables, equal = content["tables"], content["equal"]
    speakers = many(len(tables["speaker"]), "speaker") if tables["speaker"] else "unknown speakers"
    text = [
        f"{content['name']}: {many(content['utterances'], 'utterance')}, "
        f"{progress.clock(content['seconds'])}, {speakers}, "
        f"{many(len(tables['sentence']), 'sentence')}, {len(content['skipped'])} skipped, "
        f"{sum(map(len, equal))} of equal recordings",
        "",
    ]
    head = ("label", "utterances", "share", "speakers", "sentences", "median s")
    body = [
        (
            row["label"],
            row["count"],
            f"{row['count'] / content['utterances']:.3f}",
            row["speakers"] if tables["speaker"] else "-",
            row["sentences"],
            f"{row['median']:.1f}" if row["count"] else "-",
        )
        for row in content["classes"]
    ]
    text += [*pages.table([head, *body]), ""]
    durations, balance = content["durations"], "the classes that occur are equally frequent"
    if content["imbalance"] > 1:
        times = f"{content['imbalance']:.1f} times as frequent"
        balance = f"it is {times} as {content['smallest']}"
    text += [
        f"always {content['largest']}: accuracy {content['largest_share']:.3f}; {balance}",
        f"seconds: {durations['shortest'].seconds:.2f} to {durations['longest'].seconds:.2f}, "
        f"median {durations['median']:.2f}",
    ]
    for aspect, rows in tables.items():
        if not rows or (len(rows) < 2 and aspect in ("gender", "style", "sentence")):
            continue
        names = (row["label"] for row in content["classes"])
        head = (aspect, *names, "all", "median s")
        body = [
            (row["value"] or "-", *row["counts"], row["count"], f"{row['median']:.1f}")
            for row in rows[:PRINTED]
        ]
        text += ["", *pages.table([head, *body])]
        text += [f"... and {len(rows) - PRINTED} more"] * (len(rows) > PRINTED)
    for title, rows in (
        ("skipped", [f"{file}: {reason}" for _, file, reason in content["skipped"]]),
        ("equal recordings", [", ".join(map(_describe, group)) for group in equal]),
    ):
        if rows:
            text += ["", f"{title}:", *(f"  {row}" for row in rows[:PRINTED])]
            text += [f"  ... and {len(rows) - PRINTED} more"] * (len(rows) > PRINTED)
    return text


def _describe(utterance: Utterance) -> str:
    return f"{utterance.name} ({utterance.label}, {utterance.speaker or 'unknown speaker'})"
