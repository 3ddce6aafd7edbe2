"""Writes the report of the folds that are finished: `--mode=report`."""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import ml_collections

from ds_jax import config as configuration
from ds_jax.data import folds, leakage
from ds_jax.data.corpus import Corpus
from ds_jax.evaluation import predictions, summary
from ds_jax.evaluation.summary import RunSummary
from ds_jax.report import paper_numbers
from ds_jax.report import run as run_report
from ds_jax.runtime import files, locks, processes
from ds_jax.runtime.workdir import FOLDS, PAGE, PREDICTIONS, fold_directory, is_finished
from ds_jax.systems import base as systems


def run(config: ml_collections.ConfigDict, corpus: Corpus, workdir: Path) -> RunSummary:
    """Writes report.json and report.html from the folds that are finished, and names the others.

    Args:
        config: The config of the run.
        corpus: The corpus of the run.
        workdir: The folder of the run.

    Returns:
        The content of report.json.

    Raises:
        FileNotFoundError: No fold is finished.
        ValueError: The run has nothing to report, or the corpus has changed.
    """
    protocol, all_folds = folds.read_folds(
        workdir / FOLDS, corpus.utterances, config.select_on, verify=True
    )
    if protocol == "whole_corpus":
        raise ValueError(
            f"the run in {workdir} tests nothing of {corpus.name}, since all of it is trained on: "
            "test the run with --mode=evaluate --eval_on=CORPUS"
        )
    finished = {
        number: directory
        for number in range(len(all_folds))
        if is_finished(directory := fold_directory(workdir, number))
    }
    if not finished:
        raise FileNotFoundError(f"{workdir} has no finished fold: train at least one first")
    records, histories = [], []
    for number, directory in finished.items():
        fold, tested = all_folds[number], predictions.read(directory / PREDICTIONS)
        if sorted(tested.utterances) != list(fold.test):
            raise ValueError(
                f"{directory / PREDICTIONS} tests other utterances than fold {number} of "
                f"{workdir / FOLDS}: delete {directory} and run this fold again, or bring back the "
                "file of this fold"
            )
        history = predictions.read_metrics(directory)
        chosen = systems.chosen(config, history)
        sizes = {"train": len(fold.train), "dev": len(fold.dev), "dev_rule": fold.dev_rule}
        if "epoch" not in chosen:  # a system without epochs is fitted on dev too
            sizes, history = {"train": len(fold.train) + len(fold.dev)}, []
        records.append(summary.fold_record(number, tested) | sizes | chosen)
        histories.append(history)
    sources, reported = list(finished.values()), [all_folds[number] for number in finished]
    result = summarise(
        config,
        corpus,
        sources,
        protocol=protocol,
        fold_count=len(all_folds),
        records=records,
        shared=folds.shared(reported, corpus.utterances),
        excluded=len(excluded_duplicates(all_folds, corpus)),
        untrained=_untrained(reported, config, corpus),
    )
    missing = sorted(set(range(len(all_folds))) - set(finished))
    result = dataclasses.replace(result, missing_folds=missing)
    with hold(workdir):
        files.remove_unfinished(workdir)
        run_report.write(workdir, result, sources, corpus, histories)
    announce(workdir, result)
    return result


def _untrained(
    reported: Sequence[folds.Fold], config: ml_collections.ConfigDict, corpus: Corpus
) -> dict[str, int]:
    """Counts for each class the folds that train on no utterance of it; those of none are left."""
    labels = {utterance.name: utterance.label for utterance in corpus.utterances}
    epochs = systems.SYSTEMS[config.system].chooses == "epoch"
    trained = [
        {labels[name] for name in fold.train + (() if epochs else fold.dev)} for fold in reported
    ]
    counts = {name: sum(name not in each for each in trained) for name in corpus.classes}
    return {name: count for name, count in counts.items() if count}


def summarise(
    config: ml_collections.ConfigDict,
    corpus: Corpus,
    sources: Sequence[Path],
    *,
    protocol: str,
    fold_count: int,
    records: Sequence[Mapping],
    shared: Mapping[str, int | None],
    excluded: int,
    untrained: Mapping[str, int],
) -> RunSummary:
    """Evaluates the predictions in some folders, those of a run's folds or of an evaluation.

    Args:
        config: The config of the run.
        corpus: The corpus that was tested.
        sources: The folders.
        protocol: The protocol of the folds.
        fold_count: The number of folds, which is compared with the paper's.
        records: The records of the folds.
        shared: What training and test share.
        excluded: The number of recordings that are excluded as duplicates.
        untrained: For each class that some models cannot answer the number of these models.

    Raises:
        ValueError: A file in one of the folders is missing or damaged.
    """
    for damage in filter(None, map(files.find_damage, sources)):
        raise ValueError(f"{damage}. {files.ADVICE}")
    return RunSummary(
        **summary.measure(
            predictions.read_pooled(sources),
            predictions.read_heads(sources),
            [name for name, models in untrained.items() if models == len(records)],
        ),
        corpus=corpus.name,
        corpus_title=corpus.title,
        corpus_licence=corpus.licence,
        system=systems.title(config),
        protocol=protocol,
        protocol_text=folds.PROTOCOLS.get(protocol, ""),
        selected_on=config.select_on,
        shared=dict(shared),
        folds=list(records),
        skipped=corpus.skipped,
        chosen=systems.SYSTEMS[config.system].chooses,
        equal_left_out=excluded,
        other_labels=dict(corpus.left_out),
        untrained=dict(untrained),
        synthetic=config.synthetic,
        paper=paper_numbers.paper_comparison(config, corpus.name, protocol, fold_count),
        settings=configuration.describe(config),
    )


def excluded_duplicates(all_folds: Sequence[folds.Fold], corpus: Corpus) -> set[str]:
    """Returns the utterances that some fold excludes, since it tests the same recording."""
    return leakage.excluded_duplicates([fold.splits for fold in all_folds], corpus.utterances)


def hold(workdir: Path) -> contextlib.AbstractContextManager:
    """Keeps other processes from the files that all folds share, and waits for those that do."""
    return locks.hold(workdir / "run.lock", f"{workdir}", wait=True)


def announce(directory: Path, result: RunSummary) -> None:
    """Prints the scores, and where their report is."""
    processes.say(run_report.headline(result))
    processes.say(f"report: {directory / PAGE}")
