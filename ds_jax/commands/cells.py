"""Experiments of a page: each is run in a folder of its own; if one fails, the others still run."""

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ml_collections import ConfigDict

from ds_jax import config as configuration
from ds_jax.commands import ensemble
from ds_jax.data.corpus import Corpus, keep_last
from ds_jax.evaluation import summary
from ds_jax.features import embeddings
from ds_jax.report.paper import ERRORS, Run
from ds_jax.runtime import files, locks, processes, progress
from ds_jax.runtime.errors import in_one_line
from ds_jax.runtime.workdir import REPORT
from ds_jax.systems import base as systems
from ds_jax.systems import on_pictures

DONE, WAITING, MISSING = "done", "not run: not reached yet", "not run: corpus missing"
Load = Callable[[ConfigDict, str], Corpus]


def run_all(
    runs: Iterable[Run],
    load: Load,
    workdir: Path,
    name: str,
    write: Callable[[Mapping[Path, str]], dict],
    chosen: Callable[[Run], bool] = lambda run: True,
) -> dict | None:
    """Runs the cells that are not done, and writes the page first and after each.

    A missing corpus or a cell that fails is reported, in the page too, and the rest is run.

    Args:
        runs: The cells.
        load: As in `run`; the corpus that was loaded last is kept for the next experiment.
        workdir: The folder of the page.
        name: What the page's lock is called.
        write: Writes the page from the state of each cell, see `state`; returns its content.
        chosen: Tells whether a cell is run if it is not done.

    Returns:
        The content of the page; None in processes that do not write.
    """

    def write_page() -> dict | None:
        if not processes.is_first_process():
            return None
        with locks.hold_folder(workdir, name):
            return write(states)

    runs = {run.folder: run for run in runs}  # two cells may have one
    states = {
        folder: state(each.experiment, workdir / folder, workdir / each.report)
        for folder, each in runs.items()
    }
    content, load = write_page(), keep_last(load)
    for folder, text in states.items():
        if text != WAITING:
            processes.say(f"{folder}: {text}")
    waiting = [each for each in runs.values() if states[each.folder] == WAITING and chosen(each)]
    began = time.monotonic()
    for count, (folder, experiment, tested, _) in enumerate(waiting, start=1):
        processes.say(f"{folder}: starts, {count} of {len(waiting)}")
        states[folder] = run(experiment, load, workdir / folder, tested)
        left = progress.clock((time.monotonic() - began) / count * (len(waiting) - count))
        processes.say(f"{folder}: {states[folder]}; about {left} left for all")
        processes.wait_for_others(str(folder))
        content = write_page()
    return content


def state(experiment: ConfigDict, workdir: Path, report: Path) -> str:
    """Returns the state of an experiment before it is run; what is damaged is run again.

    A `picture.size` of 0 becomes what its backbone takes. `workdir` is the folder of its run, and
    `report` that of its report.json.

    Returns:
        `DONE`, `WAITING`, or a phrase that says why it cannot be run.
    """
    try:
        embeddings.pin(experiment)
        for each in configuration.experiments(experiment):
            if "picture" in each:
                on_pictures.complete(each)
        configuration.check_same(experiment, workdir)
        if configuration.has_grown(experiment, workdir):
            return WAITING
    except ERRORS as error:
        return f"failed: {in_one_line(error)}"
    try:
        if summary.read(report / REPORT).missing_folds:
            return WAITING
        sources = [*sorted(workdir.glob("fold_*")), report]
        damage = next(filter(None, map(files.find_damage, sources)), "")
    except FileNotFoundError:
        return WAITING
    except ValueError as error:
        damage = in_one_line(error)
    if damage:
        processes.say(damage)
    return WAITING if damage else DONE


def run(experiment: ConfigDict, load: Load, workdir: Path, tested: str) -> str:
    """Runs an experiment, and evaluates it on another corpus if that is the one to be tested.

    Args:
        experiment: Its config.
        load: Returns the corpus of a name with the inputs that an experiment describes; raises
            FileNotFoundError if its recordings are missing.
        workdir: The folder of its run.
        tested: The name of the corpus that it is tested on.

    Returns:
        `DONE`, `MISSING`, or a phrase that says what went wrong.
    """
    try:
        systems.check(experiment)
        for corpus in dict.fromkeys((tested, experiment.corpus)):
            load(configuration.last_member(experiment), corpus)  # first: it may be missing
    except FileNotFoundError as error:
        processes.say(in_one_line(error))
        return MISSING
    except Exception as error:  # as below
        return f"not run: {in_one_line(error)}"
    try:
        ensemble.run(experiment, load, workdir)
        if tested != experiment.corpus:
            ensemble.evaluate_on(experiment, load, workdir, tested)
    except Exception as error:  # of any kind, such as a device's full memory: the others are run
        return f"failed: {in_one_line(error)}"
    return DONE
