"""--mode=corpus: prints the classes of a prepared corpus, and writes corpus.html with the rest."""

from collections.abc import Mapping
from pathlib import Path

from ml_collections import ConfigDict

from ds_jax import config as configuration
from ds_jax.data.corpus import Corpus
from ds_jax.report import corpus as report
from ds_jax.report import pages, panels
from ds_jax.runtime import processes, progress
from ds_jax.runtime.files import check_writable
from ds_jax.runtime.progress import many

PAGE = "corpus.html"


def run(config: ConfigDict, corpus: Corpus, directory: Path) -> None:
    """Prints how many utterances each class of a corpus has, and writes corpus.html.

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
    """Formats what `report.corpus.summarise` says of all utterances and of each class as text."""
    tables = content["tables"]
    speakers = many(len(tables["speaker"]), "speaker") if tables["speaker"] else "unknown speakers"
    text = [
        f"{content['name']}: {many(content['utterances'], 'utterance')}, "
        f"{progress.clock(content['seconds'])}, {speakers}, "
        f"{many(len(tables['sentence']), 'sentence')}, {len(content['skipped'])} skipped, "
        f"{sum(map(len, content['equal']))} of equal recordings",
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
    return text
