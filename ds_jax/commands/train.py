"""Trains and tests the folds of a run, continues a stopped one, and reports: `--mode=train`."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from ds_jax import config as configuration
from ds_jax.commands import report
from ds_jax.data import auxiliary, enrolment, fold_files, folds
from ds_jax.data.corpus import Corpus
from ds_jax.evaluation import predictions
from ds_jax.evaluation.predictions import Predicted
from ds_jax.models import pretrained
from ds_jax.models.backbone import Backbone
from ds_jax.models.backbones import built, needs_full_weights
from ds_jax.runtime import files, locks, processes, versions
from ds_jax.runtime.workdir import FOLDS, fold_directory, is_finished
from ds_jax.systems import base as systems
from ds_jax.systems import on_pictures
from ds_jax.training import parallel


def check(config: ConfigDict, numbers: Sequence[int] | None = None) -> None:
    """Checks the config of a run, and the numbers of the folds to be run, before any work.

    Raises:
        FileNotFoundError: A file that the config names is missing.
        ValueError: The config is impossible, or has no such folds.
    """
    systems.check(config)
    if config.folds.file:
        _check_numbers(numbers or (), len(fold_files.read_entries(config.folds.file)[1]))
    elif config.folds.protocol != "leave_one_speaker_out":  # which has a fold for each speaker
        whole = config.folds.protocol == "whole_corpus"
        _check_numbers(numbers or (), 1 if whole else config.folds.count)
    for backbone, path, full in check_backbones(config):
        pretrained.check(backbone, path, full=full)


def check_backbones(config: ConfigDict) -> set[tuple[Backbone, str, bool]]:
    """Checks that the backbones of an experiment have the layers that it names.

    Returns:
        What `pretrained.check` takes, each file once, since that takes a moment.

    Raises:
        ConfigError: A backbone has no such layer.
        ValueError: Keras is missing, or does not run on JAX.
    """
    needed = set()
    for each in configuration.experiments(config):
        if "weights" in each and "members" not in each:
            on_pictures.check_built(each)
            needed.add((built(each), each.weights, needs_full_weights(each)))
    return needed


def run(
    config: ConfigDict, corpus: Corpus, workdir: Path, numbers: Sequence[int] | None = None
) -> bool:
    """Cross-validates a system on a corpus.

    Finished folds are not run again, unless their files are damaged. When all folds are finished,
    report.json and report.html are written.

    Args:
        config: The experiment.
        corpus: The corpus in memory.
        workdir: The folder of the run; several machines may share it, each with other folds.
        numbers: The folds to run, from 0; all if None.

    Returns:
        Whether all folds are finished.

    Raises:
        ValueError: The config is impossible, or the workdir holds a run of another one; or the
            corpus has other auxiliary recordings than the config names.
        BlockingIOError: Another process runs one of the folds.
    """
    configuration.check_same(config, workdir)
    auxiliary.check_joined(config.auxiliary, corpus)
    if configuration.adapts(config):
        enrolment.check(corpus)
    protocol, all_folds = _folds(config, corpus, workdir, numbers or ())
    every = range(len(all_folds))
    numbers = every if numbers is None else numbers
    unfinished = [number for number in numbers if not _is_whole(config, workdir, number)]
    with _hold_folds(workdir, unfinished):
        processes.wait_for_others("locks")
        # Another process may have finished a fold until now.
        unfinished = [n for n in unfinished if not _is_whole(config, workdir, n, explain=True)]
        if unfinished:
            fit_folds = systems.implementation(config).fit(config, corpus, protocol)
            for number, predicted in fit_folds({n: all_folds[n] for n in unfinished}, workdir):
                _write(corpus, all_folds[number], predicted, fold_directory(workdir, number))
            del fit_folds
            parallel.forget_programs()
        processes.wait_for_others("folds")
    missing = [n for n in every if not report.is_done(config, fold_directory(workdir, n))]
    if missing:
        processes.say(
            f"folds still to run: {', '.join(map(str, missing))}; the same command without --fold "
            f"runs them, and --mode=report --workdir={workdir} reports those that are done"
        )
        return False
    if protocol == "whole_corpus":
        processes.say("trained on the whole corpus; test it with --mode=evaluate --eval_on=CORPUS")
    elif processes.is_first_process():
        report.run(config, corpus, workdir)
    return True


def _folds(
    config: ConfigDict, corpus: Corpus, workdir: Path, numbers: Sequence[int]
) -> tuple[str, list[folds.Fold]]:
    """Reads the workdir's folds.json; the first process writes it where it is missing."""
    path = workdir / FOLDS
    if processes.is_first_process():
        if not path.is_file():
            _write_folds(config, corpus, workdir, numbers)
        else:
            configuration.check_files(config, workdir)
            if configuration.has_grown(config, workdir):
                with locks.hold_folder(workdir, "run"):
                    configuration.write(config, workdir)
            before = configuration.recorded(workdir).get(configuration.VERSIONS, {})
            if changed := versions.difference(before):
                processes.say(f"note: the run began with other versions ({changed})")
    processes.wait_for_others("folds.json")
    if not path.is_file():
        raise FileNotFoundError(
            f"the first process has written {path}, and this one does not see it: give all "
            "processes one --workdir and one --data_dir, on a disk that they share"
        )
    protocol, all_folds = fold_files.read_folds(
        path, corpus.utterances, config.select_on, verify=True
    )
    auxiliary.check_same(path, corpus.auxiliary)
    _check_numbers(numbers, len(all_folds))
    return protocol, all_folds


def _write_folds(config: ConfigDict, corpus: Corpus, workdir: Path, numbers: Sequence[int]) -> None:
    """Writes config.json and folds.json; an impossible config writes nothing."""
    protocol, all_folds = _make_folds(config, corpus)
    _check_numbers(numbers, len(all_folds))
    files.check_writable(workdir)
    with locks.hold_folder(workdir, "run"):
        configuration.check_same(config, workdir)
        if (workdir / FOLDS).is_file():  # another process had the lock and has written it
            return
        configuration.write(config, workdir)
        content = config.folds.seed, config.select_on, all_folds, corpus.utterances
        content += (auxiliary.describe(corpus.auxiliary),)
        fold_files.write_folds(workdir / FOLDS, corpus.name, protocol, *content)


def _make_folds(config: ConfigDict, corpus: Corpus) -> tuple[str, list[folds.Fold]]:
    """Makes the folds of a config, and says where they may surprise."""
    fields = config.folds
    whole = fields.protocol == "whole_corpus"
    if corpus.gives_folds and (fields.file or whole):
        reason = "folds.file names others" if fields.file else "folds.protocol is 'whole_corpus'"
        processes.say(f"note: the folds that {corpus.name} gives are not used, since {reason}")
    if fields.file or (corpus.gives_folds and not whole):
        return _given_folds(config, corpus)
    all_folds = folds.make_folds(
        corpus.utterances, fields.protocol, fields.count, fields.seed, config.select_on
    )
    if fields.protocol in ("speakers", "sentences", "genders") and len(all_folds) < fields.count:
        processes.say(
            f"folds.count={fields.count}, but {corpus.name} has {len(all_folds)} "
            f"{fields.protocol}: the run has {len(all_folds)} folds, one for each"
        )
    if excluded := folds.excluded_duplicates(all_folds, corpus.utterances):
        processes.say(
            "excluded from training where the same recording, under another name, or a part that "
            f"overlaps, is tested or chooses the epoch: {', '.join(sorted(excluded))}"
        )
    return fields.protocol, all_folds


def _given_folds(config: ConfigDict, corpus: Corpus) -> tuple[str, list[folds.Fold]]:
    """Returns the folds of a file, or those that the corpus gives; says what they do not."""
    fields, protocol = config.folds, "custom"
    settings = corpus.utterances, config.select_on, fields.seed
    if fields.file:
        protocol, all_folds = fold_files.read_folds(fields.file, *settings, left_out=corpus.absent)
    else:
        all_folds = fold_files.given_folds(*settings)
        processes.say(
            f"{corpus.name} gives its own folds ({len(all_folds)}), which are used in place of "
            f"folds.protocol={fields.protocol!r}"
        )
    if rules := sorted({fold.dev_rule for fold in all_folds if fold.dev_rule}):
        processes.say(
            "dev was taken from train, about a tenth of it, by the rule "
            f"{' or '.join(rules)}; systems without epochs are fitted on both"
        )
    return protocol, all_folds


def _check_numbers(numbers: Sequence[int], count: int) -> None:
    if bad := [number for number in numbers if not 0 <= number < count]:
        raise ValueError(f"--fold={bad[0]} does not exist: the folds are numbered 0 to {count - 1}")


@contextlib.contextmanager
def _hold_folds(workdir: Path, numbers: Sequence[int]) -> Iterator[None]:
    """Keeps other runs from some folds; of several processes of one run, the first holds them."""
    with contextlib.ExitStack() as held:
        for number in numbers if processes.is_first_process() else ():
            directory = fold_directory(workdir, number)
            what, advice = f"fold {number} of {workdir}", "choose other folds by --fold"
            held.enter_context(locks.hold(directory / "fold.lock", what, advice=advice))
            files.remove_unfinished(directory)
        yield


def _is_whole(config: ConfigDict, workdir: Path, number: int, explain: bool = False) -> bool:
    """Tells whether a fold is done and undamaged; may say why it is run again."""
    directory = fold_directory(workdir, number)
    if not is_finished(directory):
        return False
    damage = files.find_damage(directory)
    if damage and explain:
        processes.say(f"fold {number}: {damage}, and is made anew")
    return not damage and report.is_done(config, directory)


def _write(corpus: Corpus, fold: folds.Fold, predicted: Predicted | None, directory: Path) -> None:
    """Writes the predictions of a fold; those of an empty test mark the fold as finished."""
    if predicted is None:
        predicted = Predicted(np.empty((0, len(corpus.classes))), {}, {})
    tested = set(fold.test)
    utterances = [u for u in corpus.utterances if u.name in tested]
    predictions.write(directory, utterances, predicted, corpus.classes)
