"""Runs an experiment, or several of them on the same folds, whose answers it merges: an ensemble.

Each member of an ensemble is a run of its own in `<workdir>/members/<name>/`, with its own report.
The workdir has what every run leaves, and each member's predictions stand beside those of all: the
mean of their probabilities or, where they are joined as kernels, those of one ridge.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from ds_jax import config as configuration
from ds_jax.commands import evaluate, report, train
from ds_jax.data import auxiliary, fold_files
from ds_jax.data.corpus import Corpus, keep_last
from ds_jax.evaluation import predictions, summary
from ds_jax.evaluation.predictions import Predicted
from ds_jax.evaluation.summary import RunSummary
from ds_jax.report import run as run_report
from ds_jax.runtime import files, locks, processes
from ds_jax.runtime.workdir import (
    FOLDS,
    METRICS,
    PREDICTIONS,
    evaluation_directory,
    fold_directory,
    member_directories,
)
from ds_jax.systems import base as systems
from ds_jax.systems import joined

Load = Callable[[ConfigDict, str], Corpus]


def run(
    config: ConfigDict, load: Load, workdir: Path, numbers: Sequence[int] | None = None
) -> bool:
    """Cross-validates an experiment; of an ensemble each member, and then reports the mean of all.

    Args:
        config: The experiment; the values of `config.members` are those of the members.
        load: Returns the corpus of a name with the inputs that a member's config describes.
        workdir: The folder of the run.
        numbers: The folds to run, from 0; all if None.

    Returns:
        Whether all folds of all members are finished.

    Raises:
        ValueError, BlockingIOError: As `train.run`; or members test different utterances.
    """
    if "members" not in config:
        return train.run(config, load(config, config.corpus), workdir, numbers)
    configuration.check_same(config, workdir)
    files.check_writable(workdir)
    if processes.is_first_process():
        with locks.hold_folder(workdir, "run"):
            configuration.write(config, workdir)
    load, finished = keep_last(load), True
    for name, directory in member_directories(workdir, config).items():
        processes.say(f"{name}: {systems.title(config.members[name])}")
        finished &= run(config.members[name], load, directory, numbers)
    if systems.is_joined(config):
        finished &= train.run(config, joined.read(config, load, config.corpus), workdir, numbers)
    elif finished and processes.is_first_process():
        corpus = load(configuration.last_member(config), config.corpus)
        _average_folds(config, corpus, workdir)
        if config.folds.protocol != "whole_corpus":
            report.run(config, corpus, workdir)
    processes.wait_for_others("ensemble")
    return finished


def report_finished(
    config: ConfigDict, load: Load, workdir: Path, drawn: Path | None = None
) -> RunSummary:
    """Reports the folds that are finished, of an ensemble by all members: `--mode=report`.

    Args:
        config, load, workdir: As in `run`.
        drawn: As in `report.run`.

    Returns:
        The content of report.json.

    Raises:
        FileNotFoundError, ValueError: As `report.run`; or members test different utterances.
    """
    if "members" not in config:
        return report.run(config, load(config, config.corpus), workdir, drawn)
    load = keep_last(load)
    for name, directory in member_directories(workdir, config).items():
        if "members" in config.members[name]:
            report_finished(config.members[name], load, directory)
    corpus = load(configuration.last_member(config), config.corpus)
    if not systems.is_joined(config):
        _average_folds(config, corpus, workdir)
    elif not (workdir / FOLDS).is_file():
        raise FileNotFoundError(f"{workdir} has no finished fold: train at least one first")
    return report.run(config, corpus, workdir, drawn)


def _average_folds(config: ConfigDict, corpus: Corpus, workdir: Path) -> None:
    """Writes folds.json, and predictions.csv of each fold that all members have finished."""
    members = member_directories(workdir, config)
    tests = {}
    for name, folder in members.items():
        select_on = config.members[name].select_on
        _, of_member = fold_files.read_folds(
            folder / FOLDS, corpus.utterances, select_on, verify=True
        )
        tests[name] = [fold.test for fold in of_member]
    # Members that choose no epoch may have other dev splits.
    first = next(name for name in members if config.members[name].select_on == config.select_on)
    for name, tested in tests.items():
        if tested != tests[first]:
            raise ValueError(
                f"{members[name] / FOLDS} tests other utterances than {members[first] / FOLDS}: "
                "members of an ensemble need the same folds; delete the folder of one and run again"
            )
    with locks.hold_folder(workdir, "run"):
        # Of other corpora members may have heard different recordings, which some cannot use.
        if heard := auxiliary.unite(folder / FOLDS for folder in members.values()):
            content = files.read_json(members[first] / FOLDS) | {"auxiliary": heard}
            files.write_json(workdir / FOLDS, content, sealed=True)
        else:
            files.write_bytes(workdir / FOLDS, (members[first] / FOLDS).read_bytes())
    for number, names in enumerate(tests[first]):
        directory = fold_directory(workdir, number)
        parts = {name: fold_directory(folder, number) for name, folder in members.items()}
        if not all(report.is_done(config.members[name], part) for name, part in parts.items()):
            continue
        files.make_folder(directory)
        files.write_text(directory / METRICS, "")  # nothing is trained here
        tested = {*names}
        utterances = [u for u in corpus.utterances if u.name in tested]
        predictions.write(directory, utterances, _mean(parts, utterances), corpus.classes)


def evaluate_on(
    config: ConfigDict, load: Load, workdir: Path, corpus_name: str, drawn: Path | None = None
) -> RunSummary | None:
    """Tests an experiment as `evaluate.run` does; of an ensemble each member, and the mean of all.

    Of members that are joined as kernels the one ridge alone is tested.

    Args:
        config, load, workdir: As in `run`.
        corpus_name: The corpus to test on.
        drawn: As in `report.run`.

    Returns:
        The content of report.json; None in processes that do not write.

    Raises:
        FileNotFoundError, ValueError: As `evaluate.run`.
    """
    if "members" not in config:
        return evaluate.run(workdir, load(config, corpus_name), drawn)
    evaluate.check_unheard(config, corpus_name)
    load, results = keep_last(load), {}
    if systems.is_joined(config):
        return evaluate.run(workdir, joined.read(config, load, corpus_name), drawn)
    members = member_directories(workdir, config)
    for name, folder in members.items():
        results[name] = evaluate_on(config.members[name], load, folder, corpus_name)
    if not processes.is_first_process():
        return None
    corpus = load(configuration.last_member(config), corpus_name)
    directory = evaluation_directory(workdir, corpus.name)
    parts = {name: evaluation_directory(folder, corpus.name) for name, folder in members.items()}
    # Members leave out recordings that trained them, and may have been trained on others.
    of_members = [predictions.read(part / PREDICTIONS).utterances for part in parts.values()]
    tested = set.intersection(*({*names.tolist()} for names in of_members))
    utterances = [u for u in corpus.utterances if u.name in tested]
    first = next(iter(results.values()))
    made = [result.made for result in results.values()]
    with locks.hold_folder(directory, "evaluation"):
        predictions.write(directory, utterances, _mean(parts, utterances), corpus.classes)
        pooled = predictions.read_pooled([directory])
        answered = pooled.probabilities.any(axis=0)  # a class that nobody trained has none
        unanswerable = [name for name, any in zip(corpus.classes, answered, strict=True) if not any]
        measured = summary.measure(pooled, predictions.read_heads([directory]), unanswerable)
        result = dataclasses.replace(
            first,
            **measured,
            system=systems.title(config),
            selected_on=systems.selected_on(config),
            chosen=systems.chooses(config),
            folds=[],
            untrained={
                name: sum(each.untrained.get(name, 0) for each in results.values())
                for name in unanswerable
            },
            settings=configuration.describe(config),
            equal_left_out=max(each.equal_left_out for each in results.values()),
            generated=sum(each.generated for each in results.values()),
            auxiliary=auxiliary.of_all(each.auxiliary for each in results.values()),
            evaluated_by=f"the mean of {len(members)} members, each of them {first.evaluated_by}",
            made=made[0]
            | {
                "seconds": sum(each["seconds"] for each in made),
                "weights": ", ".join(sorted({each["weights"] for each in made} - {""})),
                "model_terms": sorted({x for each in made for x in each.get("model_terms", ())}),
            },
        )
        run_report.write(directory, result, [directory], corpus, drawn=drawn)
    processes.say(run_report.headline(result))
    return result


def _mean(parts: Mapping[str, Path], utterances: Sequence) -> Predicted:
    """Averages what the predictions.csv in some folders have for some utterances, by name."""
    shares = {}
    for name, folder in parts.items():
        read = predictions.read(folder / PREDICTIONS)
        places = {utterance: row for row, utterance in enumerate(read.utterances.tolist())}
        if missing := [each.name for each in utterances if each.name not in places]:
            raise ValueError(
                f"{folder / PREDICTIONS} lacks {missing[0]!r}, which another member has: delete "
                f"{folder} and run again"
            )
        shares[name] = read.probabilities[[places[each.name] for each in utterances]]
    return Predicted(np.mean([*shares.values()], axis=0), shares, {})
