"""Tests the models of a run on another corpus, or on their test splits again: `--mode=evaluate`."""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from ds_jax import config as configuration
from ds_jax.commands import report
from ds_jax.data import auxiliary, enrolment, fold_files, folds, generated, labels, leakage
from ds_jax.data.corpus import Corpus, Utterance
from ds_jax.evaluation import metrics, predictions, summary
from ds_jax.evaluation.predictions import Predicted
from ds_jax.evaluation.summary import RunSummary
from ds_jax.features.extract import stack
from ds_jax.runtime import locks, processes, versions
from ds_jax.runtime.files import read_json
from ds_jax.runtime.progress import many
from ds_jax.runtime.workdir import (
    CHECKPOINTS,
    CONFIG,
    FOLDS,
    GENERATED,
    REPORT,
    evaluation_directory,
    finished_folds,
    fold_number,
)
from ds_jax.systems import base as systems
from ds_jax.training import parallel
from ds_jax.training.checkpoints import read_card

# The styles of ELRA-S0329's neutral texts besides the normal one.
EXCLUDED_NEUTRAL_STYLES = ("loud", "soft", "slow", "fast")


def run(workdir: Path, corpus: Corpus, drawn: Path | None = None) -> RunSummary | None:
    """Tests the models of a run on a corpus, and writes `evaluations/<corpus>/`.

    The prediction for an utterance is the mean probability of the models that never saw it: on the
    corpus of the training, the model of the fold that tests it; on another corpus, all models
    (protocol `whole_corpus` trains a single one). On another corpus NEUTRAL spoken loud, soft, slow
    or fast is excluded (paper, section 3.3, fourth experiment), and so are recordings that are also
    in the corpus of the training, or among the auxiliary ones.

    Args:
        workdir: The folder of the run.
        corpus: The corpus to test on, with inputs as the run's config describes them.
        drawn: The folder of the report's figures and tables; none are written if None.

    Returns:
        The content of report.json; None in processes that do not write.

    Raises:
        FileNotFoundError: The workdir holds no run, or none of its folds is finished.
        ValueError: The run tests nothing of this corpus, or the corpus has changed; or auxiliary
            recordings of the run are of this corpus.
    """
    config, began = configuration.read(workdir), time.monotonic()
    made = versions.this_call()
    same_corpus = corpus.name == config.corpus
    directories = finished_folds(workdir)
    if not directories:
        raise FileNotFoundError(f"{workdir} has no finished fold: train at least one first")
    stored, trained = read_json(workdir / FOLDS), workdir / REPORT
    title = summary.read(trained).corpus_title if trained.is_file() else ""
    check_unheard(config, corpus.name)
    others = auxiliary.read(workdir / FOLDS)
    heard = {x for group in (stored, *others) for x in group.get("digests", {}).values()} - {""}
    tested, counts = _select(config, corpus, workdir, directories, heard)
    rows = {folder / CHECKPOINTS: corpus.rows_of(names) for folder, names in tested.items()}
    rows = {checkpoints: numbers for checkpoints, numbers in rows.items() if len(numbers)}
    if not rows:
        raise ValueError(
            f"the run in {workdir} tests nothing of {corpus.name}, since all of it is trained on: "
            "name another corpus by --eval_on"
        )
    fitted_by = systems.load_config(list(rows))
    if different := configuration.difference(fitted_by, config):
        raise ValueError(
            f"{workdir / CONFIG} is not the config of the models' training: {different} here. "
            "Bring back the file of the training."
        )
    if configuration.adapts(fitted_by):
        enrolment.check(corpus)
    config = fitted_by  # the run may have been given more epochs, and not have trained them yet
    for folder in rows:
        digest = _digest(stored, fold_number(folder.parent))
        leakage.check_fold(folder, read_card(folder)["fold"], digest)
    trained_with = report.how_made(config, workdir, [*map(fold_number, directories)])
    kept = {name: x for name, x in trained_with.items() if name in ("weights", "model_terms")}
    made |= {"devices": [processes.devices()]} | kept
    predicted = systems.implementation(config).predict(rows, corpus)
    utterances, predicted, records = _average(predicted, rows, corpus)
    parallel.forget_programs()
    if not processes.is_first_process():
        return None
    directory = evaluation_directory(workdir, corpus.name)
    with locks.hold_folder(directory, "evaluation"):
        predictions.write(directory, utterances, predicted, corpus.classes)
        return report.write(
            directory,
            config,
            corpus,
            [directory],
            records=records,
            protocol=stored["protocol"],
            trained=[read_card(checkpoints)["trained"] for checkpoints in rows],
            trained_on=config.corpus,
            trained_on_title=corpus.title if same_corpus else title,
            evaluated_by=_models(len(records), same_corpus),
            drawn=drawn,
            made=made | {"seconds": time.monotonic() - began},
            generated=sum(generated.count(each / GENERATED) for each in directories),
            auxiliary=auxiliary.counts(others),
            **counts,
        )


def check_unheard(config: ConfigDict, corpus: str) -> None:
    """Checks that no model of an experiment was fitted on recordings of a corpus besides its own.

    Raises:
        ValueError: One was.
    """
    for each in configuration.experiments(config):
        if corpus in auxiliary.shares(each.auxiliary, each.corpus):
            raise ValueError(
                f"recordings of {corpus} trained the models too, as config.auxiliary says: name "
                "another corpus by --eval_on"
            )


def _select(
    config: ConfigDict,
    corpus: Corpus,
    workdir: Path,
    directories: Sequence[Path],
    heard: Collection[str],
) -> tuple[dict[Path, tuple[str, ...]], dict[str, Any]]:
    """Selects the utterances that each model tests.

    Args:
        config, corpus, workdir, directories: As in `run`; the folders of the finished folds.
        heard: The digests of all recordings of the run's corpus, and of the auxiliary ones.

    Returns:
        The names of the utterances by the folder of each fold; and the fields "shared",
        "equal_left_out" and "left_out" of `RunSummary`.
    """
    if corpus.name == config.corpus:
        _, all_folds = fold_files.read_folds(
            workdir / FOLDS, corpus.utterances, config.select_on, verify=True
        )
        names = {directory: all_folds[fold_number(directory)].test for directory in directories}
        duplicates = folds.excluded_duplicates(all_folds, corpus.utterances)
        shared = folds.shared(all_folds, corpus.utterances)
        return names, {"shared": shared, "equal_left_out": len(duplicates)}
    neutral = labels.classes_of_labels(config.classes, config.label_map).get("neutral")
    kept = [
        u for u in corpus.utterances if u.label != neutral or u.style not in EXCLUDED_NEUTRAL_STYLES
    ]
    if corpus.gives_folds:
        processes.say(
            f"note: the folds that {corpus.name} gives are not used: the models never saw it, and "
            "are tested on all of it"
        )
    new = tuple(u.name for u in kept if u.digest not in heard)
    if duplicates := len(kept) - len(new):
        processes.say(
            f"left out: {many(duplicates, 'recording')} of {corpus.name}, since the models were "
            "trained on the same"
        )
    shared = {"speakers": None, "sentences": None, "recordings": 0 if heard else None}
    counts = {"shared": shared, "equal_left_out": duplicates}
    counts["left_out"] = len(corpus.utterances) - len(kept)
    return dict.fromkeys(directories, new), counts


def _average(
    predictors: Iterable[tuple[Path, Predicted]], rows: Mapping[Path, np.ndarray], corpus: Corpus
) -> tuple[list[Utterance], Predicted, list[dict]]:
    """Averages what models predict for their rows, by the folders of their checkpoints.

    Returns:
        The utterances that were tested, the mean outputs for them, and a record for each fold.
    """
    parts, owners, records = [], [], []
    for checkpoints, predicted in predictors:
        tested = rows[checkpoints]
        predicted = predictions.average_windows(predicted, corpus, tested)
        of_part, first = np.unique(corpus.owners[tested], return_index=True)
        parts.append(predicted)
        owners.append(of_part)
        labels, answers = corpus.labels[tested][first], predicted.probabilities.argmax(1)
        confusion = metrics.confusion(labels, answers, len(corpus.classes))
        records.append(summary.fold_record(fold_number(checkpoints.parent), confusion))
    tested, places, count = np.unique(
        np.concatenate(owners), return_inverse=True, return_counts=True
    )

    def average(*of_parts):
        outputs = stack([row for part in of_parts for row in part])  # gates may differ in width
        total = np.zeros((len(tested), *outputs.shape[1:]), outputs.dtype)
        np.add.at(total, places, outputs)
        return (total.T / count).T.astype(outputs.dtype)

    mean = jax.tree.map(average, *parts)
    return [corpus.utterances[owner] for owner in tested], mean, records


def _digest(stored: Mapping, number: int) -> str:
    """Returns the digest of a fold, from the content of folds.json."""
    splits = {split: stored["folds"][number].get(split, ()) for split in folds.SPLITS}
    return leakage.fold_digest(number, splits, stored.get("digests", {}))


def _models(count: int, same_corpus: bool) -> str:
    """Describes which models predicted an utterance."""
    if same_corpus:
        return "the mean probability of the models of the folds that test it"
    if count == 1:
        return "one model"
    return f"the mean probability of {count} models, one a fold; the folds below are each alone"
