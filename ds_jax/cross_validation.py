"""Trains and tests fold after fold, goes on where it was stopped, and reports them together."""

import json
from collections.abc import Sequence
from pathlib import Path

import ml_collections
import numpy as np

from ds_jax import config as configuration
from ds_jax import (
    devices,
    evaluate,
    folds,
    leaks,
    predictions,
    results,
    systems,
    targets,
    weights,
)
from ds_jax.corpus import LABELS, Corpus
from ds_jax.files import check_writable
from ds_jax.inference import Judgement


def check(config: ml_collections.ConfigDict, chosen: Sequence[int] | None = None) -> None:
    """Checks what a run is to be made of, before any work.

    Args:
        config: The experiment.
        chosen: Numbers of the folds to run.

    Raises:
        FileNotFoundError: A file that the config names is missing.
        ValueError: The config is impossible, or has no such folds.
    """
    systems.check(config)
    made = config.folds
    if made.file:
        folds.read_entries(made.file)
    elif made.protocol != "leave_one_speaker_out":  # which has a fold for each speaker
        count = 1 if made.protocol == "whole_corpus" else made.count
        _check_chosen(chosen or (), count)
    if "weights" in config:
        weights.check(config.weights, full=systems.needs_full_weights(config))


def run(
    config: ml_collections.ConfigDict,
    corpus: Corpus,
    workdir: Path,
    chosen: Sequence[int] | None = None,
) -> bool:
    """Cross-validates a system on a corpus.

    Folds that have their predictions.csv are not run again. When all folds have one, report.json
    and report.html are written.

    Args:
        config: The experiment.
        corpus: In memory.
        workdir: Where the run's files go; several machines may share it, each with its own folds.
        chosen: Numbers of the folds to run, from 0; all without.

    Returns:
        Whether all folds are done.

    Raises:
        ValueError: The config is impossible, or the workdir holds a run of another one.
    """
    configuration.check_same(config, workdir)
    protocol, divided = _folds(config, corpus, workdir, chosen or ())
    chosen = range(len(divided)) if chosen is None else chosen
    open_folds = [number for number in chosen if not _is_done(workdir, number)]
    if open_folds:
        fit_folds = systems.create(config, corpus, protocol)
        for number, judgement in fit_folds({k: divided[k] for k in open_folds}, workdir):
            _write(corpus, divided[number], judgement, folds.fold_directory(workdir, number))
    devices.wait_for_others("folds")
    missing = [number for number in range(len(divided)) if not _is_done(workdir, number)]
    if missing:
        devices.say(f"folds still to run: {', '.join(map(str, missing))}")
        return False
    if protocol == "whole_corpus":
        devices.say("trained on the whole corpus; test it with --mode=evaluate --eval_on=CORPUS")
    elif devices.is_first_process():
        report(config, corpus, workdir)
    return True


def _folds(
    config: ml_collections.ConfigDict, corpus: Corpus, workdir: Path, chosen: Sequence[int]
) -> tuple[str, list[folds.Fold]]:
    """Reads the workdir's folds.json; the first process makes it where there is none."""
    path = workdir / "folds.json"
    if devices.is_first_process() and not path.is_file():
        protocol, divided = _make_folds(config, corpus)
        _check_chosen(chosen, len(divided))
        check_writable(workdir)
        configuration.write(config, workdir)  # only now: what is impossible leaves no trace
        folds.write_folds(
            path,
            corpus.name,
            protocol,
            config.folds.seed,
            config.select_on,
            divided,
            corpus.utterances,
        )
    devices.wait_for_others("folds.json")
    protocol, divided = folds.read_folds(path, corpus.utterances, config.select_on)
    _check_chosen(chosen, len(divided))
    return protocol, divided


def _make_folds(config: ml_collections.ConfigDict, corpus: Corpus) -> tuple[str, list[folds.Fold]]:
    """The folds that a config wants; says where they are not what one would expect."""
    made = config.folds
    if made.file:
        return folds.read_folds(made.file, corpus.utterances, config.select_on)
    divided = folds.make_folds(
        corpus.utterances, made.protocol, made.count, made.seed, config.select_on
    )
    if made.protocol in ("speakers", "sentences") and len(divided) < made.count:
        devices.say(
            f"folds.count={made.count}, but {corpus.name} has {len(divided)} {made.protocol}: "
            f"there are {len(divided)} folds, one for each"
        )
    if left_out := leaks.left_out([fold.sides for fold in divided], corpus.utterances):
        devices.say(
            f"left out of training where the same recording, called otherwise, judges: "
            f"{', '.join(sorted(left_out))}"
        )
    return made.protocol, divided


def _check_chosen(chosen: Sequence[int], count: int) -> None:
    if bad := [number for number in chosen if not 0 <= number < count]:
        raise ValueError(f"--fold={bad[0]}: the folds are numbered 0 to {count - 1}")


def _is_done(workdir: Path, number: int) -> bool:
    return (folds.fold_directory(workdir, number) / results.PREDICTIONS).is_file()


def _write(corpus: Corpus, fold: folds.Fold, judgement: Judgement | None, directory: Path) -> None:
    if judgement is None:  # nothing to test: an empty file says that the fold is done
        predictions.write(directory / results.PREDICTIONS, [], np.empty((0, len(LABELS))))
        return
    tested = set(fold.test)
    utterances = [u for u in corpus.utterances if u.name in tested]
    results.write(directory, utterances, judgement)


def report(config: ml_collections.ConfigDict, corpus: Corpus, workdir: Path) -> dict:
    """Writes report.json and report.html from the folds that are done, and names the others.

    Args:
        config: The run's.
        corpus: That it was run on.
        workdir: The run's.

    Returns:
        The content of report.json.

    Raises:
        FileNotFoundError: No fold is done.
        ValueError: The run has nothing to report, or the corpus has changed.
    """
    protocol, divided = folds.read_folds(
        workdir / "folds.json", corpus.utterances, config.select_on
    )
    if protocol == "whole_corpus":
        raise ValueError(
            f"the run in {workdir} tests nothing of {corpus.name}, which it was trained on whole: "
            "test it with --mode=evaluate --eval_on=CORPUS"
        )
    done = [number for number in range(len(divided)) if _is_done(workdir, number)]
    if not done:
        raise FileNotFoundError(f"{workdir} has no finished fold: train at least one first")
    directories = {number: folds.fold_directory(workdir, number) for number in done}
    records, curves = [], []
    for number, directory in directories.items():
        tested = predictions.read(directory / results.PREDICTIONS)
        lines = (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        rows, fold = [json.loads(line) for line in lines], divided[number]
        sides = {"train": len(fold.train), "dev": len(fold.dev), "dev_rule": fold.dev_rule}
        chosen = systems.chosen(config, rows)
        if "epoch" not in chosen:  # then dev was fitted too, see `systems`
            sides, rows = {"train": len(fold.train) + len(fold.dev)}, []
        records.append(evaluate.fold_record(number, tested) | sides | chosen)
        curves.append(rows)
    content = {
        "system": systems.title(config),
        "chosen": systems.CHOOSES.get(config.system, ""),
        "protocol": protocol,
        "selected_on": config.select_on,
        "shared": folds.shared([divided[number] for number in done], corpus.utterances),
        "equal_left_out": len(leaks.left_out([fold.sides for fold in divided], corpus.utterances)),
        "folds": records,
        "missing_folds": sorted(set(range(len(divided))) - set(done)),
        "synthetic": config.synthetic,
        "paper": targets.beside(config, corpus.name, protocol, len(divided)),
        "settings": configuration.described(config),
    }
    sources = list(directories.values())
    result = results.write_report(workdir, sources, corpus, content, curves)
    devices.say(results.summary(result))
    devices.say(f"report: {workdir / 'report.html'}")
    return result
