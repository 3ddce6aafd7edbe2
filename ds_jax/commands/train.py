"""Trains and tests fold after fold, goes on where it was stopped, and reports them together."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import ml_collections
import numpy as np

from ds_jax import config as configuration
from ds_jax.data import folds, leakage
from ds_jax.data.corpus import LABELS, Corpus
from ds_jax.evaluation import predictions, summary
from ds_jax.evaluation.predictions import Predicted
from ds_jax.models import create, pretrained
from ds_jax.report import paper_numbers, results
from ds_jax.runtime import files, locks, processes
from ds_jax.runtime.workdir import FOLDS, PAGE, PREDICTIONS, fold_directory
from ds_jax.systems import base as systems
from ds_jax.training import parallel


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
        full = create.needs_full_weights(config)
        pretrained.check(create.backbone_of(config), config.weights, full=full)


def run(
    config: ml_collections.ConfigDict,
    corpus: Corpus,
    workdir: Path,
    chosen: Sequence[int] | None = None,
) -> bool:
    """Cross-validates a system on a corpus.

    Folds that have their predictions.csv are not run again, unless it is damaged. When all folds
    have one, report.json and report.html are written.

    Args:
        config: The experiment.
        corpus: In memory.
        workdir: Where the run's files go; several machines may share it, each with its own folds.
        chosen: Numbers of the folds to run, from 0; all without.

    Returns:
        Whether all folds are done.

    Raises:
        ValueError: The config is impossible, or the workdir holds a run of another one.
        BlockingIOError: One of the folds is run by another process.
    """
    configuration.check_same(config, workdir)
    protocol, divided = _folds(config, corpus, workdir, chosen or ())
    chosen = range(len(divided)) if chosen is None else chosen
    open_folds = [number for number in chosen if not _is_whole(workdir, number)]
    with _hold(workdir, open_folds):
        processes.wait_for_others("locks")
        # Another process may have had a fold until now, and have finished it.
        open_folds = [number for number in open_folds if not _is_whole(workdir, number, tell=True)]
        if open_folds:
            fit_folds = systems.create(config, corpus, protocol)
            for number, judgement in fit_folds({k: divided[k] for k in open_folds}, workdir):
                _write(corpus, divided[number], judgement, fold_directory(workdir, number))
            del fit_folds
            parallel.forget_programs()
        processes.wait_for_others("folds")
    missing = [number for number in range(len(divided)) if not _is_done(workdir, number)]
    if missing:
        processes.say(f"folds still to run: {', '.join(map(str, missing))}")
        return False
    if protocol == "whole_corpus":
        processes.say("trained on the whole corpus; test it with --mode=evaluate --eval_on=CORPUS")
    elif processes.is_first_process():
        report(config, corpus, workdir)
    return True


def _folds(
    config: ml_collections.ConfigDict, corpus: Corpus, workdir: Path, chosen: Sequence[int]
) -> tuple[str, list[folds.Fold]]:
    """Reads the workdir's folds.json; the first process makes it where there is none."""
    path = workdir / FOLDS
    if processes.is_first_process():
        if not path.is_file():
            _write_folds(config, corpus, workdir, path, chosen)
        else:
            configuration.check_weights(config, workdir)
            if changed := configuration.changed_versions(workdir):
                processes.say(f"note: the run began with other versions ({changed})")
    processes.wait_for_others("folds.json")
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} was written by the first process, and is not here: give all processes one "
            "--workdir and one --data_dir, on a disk that they share"
        )
    protocol, divided = folds.read_folds(path, corpus.utterances, config.select_on, own=True)
    _check_chosen(chosen, len(divided))
    return protocol, divided


def _write_folds(
    config: ml_collections.ConfigDict,
    corpus: Corpus,
    workdir: Path,
    path: Path,
    chosen: Sequence[int],
) -> None:
    protocol, divided = _make_folds(config, corpus)
    _check_chosen(chosen, len(divided))
    files.check_writable(workdir)
    with _hold_reports(workdir):  # only now: what is impossible leaves no trace
        configuration.check_same(config, workdir)
        if path.is_file():  # by another process, which had the lock
            return
        files.remove_unfinished(workdir)
        configuration.write(config, workdir)
        made = config.folds.seed, config.select_on, divided, corpus.utterances
        folds.write_folds(path, corpus.name, protocol, *made)


def _make_folds(config: ml_collections.ConfigDict, corpus: Corpus) -> tuple[str, list[folds.Fold]]:
    """The folds that a config wants; says where they are not what one would expect."""
    made = config.folds
    if made.file:
        return folds.read_folds(made.file, corpus.utterances, config.select_on)
    divided = folds.make_folds(
        corpus.utterances, made.protocol, made.count, made.seed, config.select_on
    )
    if made.protocol in ("speakers", "sentences") and len(divided) < made.count:
        processes.say(
            f"folds.count={made.count}, but {corpus.name} has {len(divided)} {made.protocol}: "
            f"there are {len(divided)} folds, one for each"
        )
    if left_out := leakage.excluded_duplicates(
        [fold.splits for fold in divided], corpus.utterances
    ):
        processes.say(
            f"left out of training where the same recording, called otherwise, judges: "
            f"{', '.join(sorted(left_out))}"
        )
    return made.protocol, divided


def _check_chosen(chosen: Sequence[int], count: int) -> None:
    if bad := [number for number in chosen if not 0 <= number < count]:
        raise ValueError(f"--fold={bad[0]}: the folds are numbered 0 to {count - 1}")


@contextlib.contextmanager
def _hold(workdir: Path, numbers: Sequence[int]) -> Iterator[None]:
    """Keeps other processes from some folds; those of the same run let the first one do it."""
    with contextlib.ExitStack() as held:
        for number in numbers if processes.is_first_process() else ():
            directory = fold_directory(workdir, number)
            what, advice = f"fold {number} of {workdir}", "choose other folds by --fold"
            held.enter_context(locks.hold(directory / "fold.lock", what, advice=advice))
            files.remove_unfinished(directory)
        yield


def _hold_reports(workdir: Path) -> contextlib.AbstractContextManager:
    """Keeps other processes from what all folds share, and waits for those that have it."""
    return locks.hold(workdir / "run.lock", f"{workdir}", wait=True)


def _is_done(workdir: Path, number: int) -> bool:
    return (fold_directory(workdir, number) / PREDICTIONS).is_file()


def _is_whole(workdir: Path, number: int, tell: bool = False) -> bool:
    """Whether a fold is done and as it was written; may tell what is damaged, and is made anew."""
    if not _is_done(workdir, number):
        return False
    damage = files.find_damage(fold_directory(workdir, number))
    if damage and tell:
        processes.say(f"fold {number}: {damage}, and is made anew")
    return not damage


def _write(corpus: Corpus, fold: folds.Fold, judgement: Predicted | None, directory: Path) -> None:
    if judgement is None:  # nothing to test: an empty file says that the fold is done
        judgement = Predicted(np.empty((0, len(LABELS))), {}, {})
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
        workdir / FOLDS, corpus.utterances, config.select_on, own=True
    )
    if protocol == "whole_corpus":
        raise ValueError(
            f"the run in {workdir} tests nothing of {corpus.name}, which it was trained on whole: "
            "test it with --mode=evaluate --eval_on=CORPUS"
        )
    done = [number for number in range(len(divided)) if _is_done(workdir, number)]
    if not done:
        raise FileNotFoundError(f"{workdir} has no finished fold: train at least one first")
    directories = {number: fold_directory(workdir, number) for number in done}
    records, curves = [], []
    for number, directory in directories.items():
        tested = predictions.read(directory / PREDICTIONS)
        rows, fold = results.read_metrics(directory), divided[number]
        if sorted(tested.utterances) != list(fold.test):
            raise ValueError(
                f"{directory / PREDICTIONS} tests other utterances than fold {number} of "
                f"{workdir / FOLDS}: delete {directory} and run this fold again, or bring "
                "back its own"
            )
        sides = {"train": len(fold.train), "dev": len(fold.dev), "dev_rule": fold.dev_rule}
        chosen = systems.chosen(config, rows)
        if "epoch" not in chosen:  # then dev was fitted too, see `systems`
            sides, rows = {"train": len(fold.train) + len(fold.dev)}, []
        records.append(summary.fold_record(number, tested) | sides | chosen)
        curves.append(rows)
    content = {
        "system": systems.title(config),
        "chosen": systems.SYSTEMS[config.system].chooses,
        "protocol": protocol,
        "selected_on": config.select_on,
        "shared": folds.shared([divided[number] for number in done], corpus.utterances),
        "equal_left_out": len(
            leakage.excluded_duplicates([fold.splits for fold in divided], corpus.utterances)
        ),
        "folds": records,
        "missing_folds": sorted(set(range(len(divided))) - set(done)),
        "synthetic": config.synthetic,
        "paper": paper_numbers.paper_comparison(config, corpus.name, protocol, len(divided)),
        "settings": configuration.describe(config),
    }
    sources = list(directories.values())
    with _hold_reports(workdir):
        files.remove_unfinished(workdir)
        result = results.write_report(workdir, sources, corpus, content, curves)
    processes.say(results.summary(result))
    processes.say(f"report: {workdir / PAGE}")
    return result
