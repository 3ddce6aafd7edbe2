"""Writes the report of the folds that are finished: `--mode=report`."""

import shlex
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from ds_jax import config as configuration
from ds_jax.data import auxiliary, fold_files, folds, generated
from ds_jax.data.corpus import Corpus
from ds_jax.evaluation import predictions, summary
from ds_jax.evaluation.summary import RunSummary
from ds_jax.report import paper_numbers
from ds_jax.report import run as run_report
from ds_jax.runtime import files, locks, processes, versions
from ds_jax.runtime.workdir import (
    CHECKPOINTS,
    FOLDS,
    GENERATED,
    PAGE,
    PREDICTIONS,
    fold_directory,
    is_finished,
    member_directories,
)
from ds_jax.systems import base as systems
from ds_jax.systems.card import hash_of_weights, terms_of_models
from ds_jax.training.checkpoints import read_card
from ds_jax.training.fold import is_over


def run(config: ConfigDict, corpus: Corpus, workdir: Path, drawn: Path | None = None) -> RunSummary:
    """Writes report.json and report.html from the folds that are finished, and names the others.

    Args:
        config: The config of the run.
        corpus: The corpus that is divided into its folds.
        workdir: The folder of the run.
        drawn: The folder of the report's figures and tables; none are written if None.

    Returns:
        The content of report.json.

    Raises:
        FileNotFoundError: No fold is finished.
        ValueError: The run has nothing to report, or the corpus has changed.
    """
    protocol, all_folds = fold_files.read_folds(
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
        if is_done(config, directory := fold_directory(workdir, number))
    }
    if not finished:
        raise FileNotFoundError(f"{workdir} has no finished fold: train at least one first")
    records, histories, trained = [], [], []
    labels = {utterance.name: utterance.label for utterance in corpus.utterances}
    for number, directory in finished.items():
        fold, tested = all_folds[number], predictions.read(directory / PREDICTIONS)
        if tested.classes != corpus.classes:
            raise ValueError(
                f"{directory / PREDICTIONS} has other classes than the run: delete {directory} and "
                "run this fold again, or bring back the file of this fold"
            )
        if sorted(tested.utterances) != list(fold.test):
            raise ValueError(
                f"{directory / PREDICTIONS} tests other utterances than fold {number} of "
                f"{workdir / FOLDS}: delete {directory} and run this fold again, or bring back the "
                "file of this fold"
            )
        history = predictions.read_metrics(directory)
        chosen = systems.chosen(config, history)
        sizes = {"train": len(fold.train), "dev": len(fold.dev), "dev_rule": fold.dev_rule}
        fitted = fold.train
        if systems.chooses(config) != "epoch":  # a system without epochs is fitted on dev too
            fitted += fold.dev
            sizes, history = {"train": len(fitted)}, []
        trained.append({labels[name] for name in fitted})
        if drawn_pictures := sum(
            generated.count(fold_directory(part, number) / GENERATED)
            for part in trained_in(config, workdir)
        ):
            sizes["generated"] = drawn_pictures
        record = summary.fold_record(number, tested.confusion)
        records.append(record | sizes | chosen)
        histories.append(history)
    with locks.hold_folder(workdir, "run"):
        return write(
            workdir,
            config,
            corpus,
            list(finished.values()),
            histories,
            records=records,
            trained=trained,
            protocol=protocol,
            shared=folds.shared([all_folds[number] for number in finished], corpus.utterances),
            equal_left_out=len(folds.excluded_duplicates(all_folds, corpus.utterances)),
            missing_folds=sorted(set(range(len(all_folds))) - set(finished)),
            auxiliary=auxiliary.counts(auxiliary.read(workdir / FOLDS)),
            generated=sum(record.get("generated", 0) for record in records),
            drawn=drawn,
            made=how_made(config, workdir, finished),
        )


def is_done(config: ConfigDict, directory: Path) -> bool:
    """Tells whether a fold is finished, and had all epochs if its run was given more of them."""
    if not is_finished(directory):
        return False
    return "train" not in config or is_over(config, predictions.read_metrics(directory))


def trained_in(config: ConfigDict, workdir: Path) -> list[Path]:
    """Returns the folders of the runs whose models a run is the mean of: itself, or its members."""
    members = member_directories(workdir, config).items()
    parts = [part for name, each in members for part in trained_in(config.members[name], each)]
    return [*parts, workdir] if not parts or systems.is_joined(config) else parts


def how_made(config: ConfigDict, workdir: Path, numbers: Collection[int]) -> dict[str, Any]:
    """Collects what config.json and the cards of some folds' models record, if they have it."""
    made = {"began": "", "command": "", "versions": {}} | configuration.recorded(workdir)
    parts = [fold_directory(part, n) for part in trained_in(config, workdir) for n in numbers]
    cards = [card for each in parts if (card := _recorded(each / CHECKPOINTS))]
    devices = [card["devices"] for card in cards]
    made["devices"] = [each for i, each in enumerate(devices) if each not in devices[:i]]
    made["seconds"] = sum(card["seconds"] for card in cards)
    if stopped := sum(card.get("stopped_fits", 0) for card in cards):
        made["stopped_fits"] = stopped
    made = {name: x for name, x in made.items() if name not in configuration.PATHS.values()}
    if terms := terms_of_models(cards):
        made["model_terms"] = terms
    return made | {"weights": hash_of_weights(workdir, cards)}


def _recorded(checkpoints: Path) -> dict[str, Any]:
    """Returns what the card of a model records of its making; nothing where there is no card."""
    try:
        return read_card(checkpoints).get("made", {})
    except (OSError, ValueError):  # the predictions do not need the model, which may be deleted
        return {}


def public_command(command: str) -> str:
    """Returns a command with `...` for the folders of absolute paths, which name users."""
    words = []
    for word in shlex.split(command):
        name, equals, value = word.rpartition("=")
        words.append(f"{name}{equals}.../{Path(value).name}" if value.startswith("/") else word)
    return versions.join_words(words)


def write(
    directory: Path,
    config: ConfigDict,
    corpus: Corpus,
    sources: Sequence[Path],
    histories: Sequence[Sequence[Mapping]] = (),
    *,
    records: Sequence[Mapping],
    trained: Sequence[Collection[str]],
    protocol: str,
    missing_folds: Sequence[int] = (),
    made: Mapping[str, Any],
    drawn: Path | None = None,
    **fields: Any,
) -> RunSummary:
    """Evaluates the predictions in some folders, writes the report and prints the scores.

    Args:
        directory: The folder of report.json and report.html.
        config: The config of the run.
        corpus: The corpus that was tested.
        sources: The folders of the run's folds, or of an evaluation.
        histories: For each fold the rows of its metrics.jsonl.
        records: The records of the folds.
        trained: For each fold the classes that its training utterances have.
        protocol: The protocol of the folds.
        missing_folds: The numbers of the folds that are not finished.
        made: How the report came about, see `RunSummary`; the command as it was given.
        drawn: The folder of the report's figures and tables; none are written if None.
        **fields: More fields of `RunSummary`, such as "shared".

    Returns:
        The content of report.json.

    Raises:
        ValueError: A file in one of the folders is missing or damaged.
    """
    for damage in filter(None, map(files.find_damage, sources)):
        raise ValueError(f"{damage}. {files.ADVICE}")
    count = len(records) + len(missing_folds)
    untrained = {name: sum(name not in each for each in trained) for name in corpus.classes}
    unanswerable = [name for name, models in untrained.items() if models == len(trained)]
    pooled, heads = predictions.read_pooled(sources), predictions.read_heads(sources)
    result = RunSummary(
        **summary.measure(pooled, heads, unanswerable),
        corpus=corpus.name,
        corpus_title=corpus.title,
        corpus_licence=corpus.licence,
        system=systems.title(config),
        protocol=protocol,
        protocol_text=folds.PROTOCOLS.get(protocol, ""),
        selected_on=systems.selected_on(config),
        adapt=config.adapt,
        folds=list(records),
        missing_folds=list(missing_folds),
        skipped=len(corpus.skipped),
        other_labels=dict(Counter(corpus.left_out.values())),
        untrained={name: models for name, models in untrained.items() if models},
        chosen=systems.chooses(config),
        synthetic=config.synthetic,
        paper=paper_numbers.paper_comparison(config, corpus.name, protocol, count),
        settings=configuration.describe(config),
        made={**made, "command": public_command(made["command"])},
        **fields,
    )
    run_report.write(directory, result, sources, corpus, histories, drawn)
    processes.say(run_report.headline(result))
    processes.say(f"report: {directory / PAGE}")
    return result
