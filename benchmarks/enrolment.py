"""Measures how many recordings an enrolment needs, and what it is worth with one class alone.

    python -m benchmarks.enrolment --workdir=runs/emodb_ridge_speaker --corpora_dir=corpora

The run is one of `config.adapt = "speaker"` whose folds are of whole speakers; classifiers answer
soonest. Each test speaker is enrolled by recordings that are drawn from their own, and the others
are predicted; then by all recordings, and by those of one class, and all are predicted. UAR is over
all speakers, and a range is over the draws.
"""

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from benchmarks import measuring
from datasets.prepare import Corpora
from ds_jax import config as configuration
from ds_jax.data import fold_files
from ds_jax.data.corpus import Corpus
from ds_jax.evaluation.metrics import confusion, uar
from ds_jax.runtime import processes
from ds_jax.runtime.workdir import CHECKPOINTS, FOLDS, fold_directory
from ds_jax.systems import base as systems

COUNTS = (3, 5, 10, 20)  # recordings


def speakers(corpus: Corpus, workdir: Path, select_on: str) -> list[tuple[Path, np.ndarray]]:
    """Returns the folder of the model that tests each speaker, and the speaker's rows."""
    _, folds = fold_files.read_folds(workdir / FOLDS, corpus.utterances, select_on)
    found = []
    for number, fold in enumerate(folds):
        rows = corpus.rows_of(fold.test)
        names = np.asarray([corpus.utterances[owner].speaker for owner in corpus.owners[rows]])
        folder = fold_directory(workdir, number) / CHECKPOINTS
        found += [(folder, rows[names == name]) for name in np.unique(names)]
    return found


def score(
    implementation: systems.Implementation,
    corpus: Corpus,
    tested: list[tuple[Path, np.ndarray]],
    choose: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
) -> float:
    """Returns the UAR over all speakers.

    Args:
        implementation: The system.
        corpus: The corpus.
        tested: As `speakers` returns them.
        choose: Maps a speaker's rows to those that are enrolled and those that are predicted.
    """
    count = len(corpus.classes)
    total = np.zeros((count, count), int)
    for folder, rows in tested:
        enrolled, predicted = choose(rows)
        if len(enrolled) < 2:  # one alone has no deviation
            continue
        inputs = corpus.inputs[enrolled]
        measured = implementation.load_measure([folder])(inputs, len(inputs))()
        start = implementation.load_ensemble([folder], measured)
        shares = start(corpus.inputs[predicted], len(predicted))().probabilities
        total += confusion(corpus.labels[predicted], shares.argmax(axis=1), count)
        jax.clear_caches()
    return float(uar(total))


def main(arguments: list[str] | None = None) -> dict:
    """Measures, prints and writes."""
    parser = measuring.parser("enrolment", __doc__)
    parser.add_argument("--workdir", type=Path, required=True, help="folder of the run")
    parser.add_argument("--corpora_dir", type=Path, default=Path("corpora"), help="raw recordings")
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="prepared corpora")
    parser.add_argument("--draws", type=measuring.positive, default=5, help="of each number")
    flags = parser.parse_args(arguments)
    processes.start()
    config = configuration.read(flags.workdir)
    corpus = Corpora(flags.corpora_dir, flags.data_dir).load(config, config.corpus)
    found = measure(config, corpus, flags.workdir, flags.draws)
    rows = [
        (f"{count} recordings", float(np.mean(each)), min(each), max(each))
        for count, each in found["counts"].items()
    ]
    rows.append(("all, which are tested too", found["all"], None, None))
    rows += [(f"{name} alone", each, None, None) for name, each in found["classes"].items()]
    title = f"{systems.title(config)} on {corpus.name}, {flags.draws} draws"
    measuring.table(title, ("enrolled by", "UAR", "lowest", "highest"), rows)
    measuring.save(flags.output, {"machine": measuring.machine(), **found})
    return found


def measure(config: ConfigDict, corpus: Corpus, workdir: Path, draws: int) -> dict:
    """Returns the UAR by the number of recordings, with all of them, and by the class."""
    implementation = systems.implementation(config)
    tested = speakers(corpus, workdir, config.select_on)

    def drawn(rng, count):
        def choose(rows):
            enrolled = rng.choice(rows, min(count, len(rows) - 1), replace=False)
            return enrolled, np.setdiff1d(rows, enrolled)

        return score(implementation, corpus, tested, choose)

    counts = {}
    for count in COUNTS:
        counts[count] = [drawn(np.random.default_rng(seed), count) for seed in range(draws)]
    present = np.unique(corpus.labels)
    return {
        "counts": counts,
        "all": score(implementation, corpus, tested, lambda rows: (rows, rows)),
        "classes": {
            corpus.classes[label]: score(
                *(implementation, corpus, tested),
                lambda rows, label=label: (rows[corpus.labels[rows] == label], rows),
            )
            for label in present
        },
    }


if __name__ == "__main__":
    main()
