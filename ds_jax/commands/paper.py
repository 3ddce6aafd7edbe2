"""Runs every cell of the paper's tables and compares the numbers: `--config=configs/paper.py`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from ds_jax import config as configuration
from ds_jax.commands import cells, train
from ds_jax.commands.cells import DONE, Load
from ds_jax.evaluation import summary
from ds_jax.models import pretrained, vgg16
from ds_jax.report import paper as tables
from ds_jax.report import paper_numbers
from ds_jax.report.paper import Key, Outcome, Run
from ds_jax.report.paper_numbers import Row
from ds_jax.runtime import processes
from ds_jax.runtime.errors import ConfigError, naming
from ds_jax.runtime.workdir import REPORT
from ds_jax.systems import base as systems
from ds_jax.systems import on_pictures

# Of configs/paper.py, which override no cell's.
OWN_FIELDS = ("system", *paper_numbers.CORPORA, "rivals")
OF_CELLS = ("picture.", "model.", "train.")  # groups that override no rival's
ReadExperiment = Callable[[str], ConfigDict]  # returns the config of a name such as "ds_am_elra"


def check(config: ConfigDict, read_experiment: ReadExperiment) -> None:
    """Checks each field of the config of `configs/paper.py` alone, before any work.

    A cell says itself that two fields do not agree.

    Raises:
        FileNotFoundError: The file of weights, or the config of a rival, is missing.
        ValueError: A field is unknown or of a wrong type, or no cell can take its value; or a rival
            is impossible.
    """
    pretrained.check(vgg16.VGG16, config.weights)
    rows(config, read_experiment)  # raises for names of rivals
    for name in config.rivals:
        rival = read_experiment(name).copy_and_resolve_references()
        with naming("", f" (of the rival {name})"):
            systems.check(rival)
            train.check_backbones(rival)
        if configuration.adapts(rival):
            allowed = "of configs with adapt='none', since nobody is enrolled in the tables"
            raise ConfigError("rivals", name, allowed)
    for name, value in _changed(config).items():
        errors = []
        for cell in dict.fromkeys(row.config for row in paper_numbers.ROWS):
            experiment = read_experiment(cell).copy_and_resolve_references()
            if not _set(experiment, name, value):
                continue
            try:
                systems.check(experiment)
            except ValueError as error:
                errors.append(error)
            else:
                break
        else:
            raise errors[0]


def run(
    config: ConfigDict,
    read_experiment: ReadExperiment,
    load: Load,
    workdir: Path,
    drawn: Path | None = None,
) -> None:
    """Runs the cells that are not done, and writes paper.json and paper.html after each.

    Args:
        config: The config of `configs/paper.py`, with the full names of the corpora.
        read_experiment, load: As in `ReadExperiment` and in `cells.run`.
        workdir: The folder of the paper; each cell's run has a folder below it.
        drawn: The folder of the tables' figures, and of the tables for a paper; none are written if
            None.

    Raises:
        ValueError: Both places hold the same corpus.
    """
    if config.elra == config.emomatch:
        raise ValueError(f"elra and emomatch are both {config.elra!r}: the tables need two corpora")
    table, runs = rows(config, read_experiment), plan(config, read_experiment)

    def write(states: Mapping[Path, str]) -> dict:
        outcomes = {}
        for key, run in runs.items():
            done = states[run.folder] == DONE
            report = summary.read(workdir / run.report / REPORT) if done else None
            outcomes[key] = Outcome(run, states[run.folder], report)
        return tables.write(workdir, config, _changed(config), table, outcomes)

    content = cells.run_all(runs.values(), load, workdir, "paper", write)
    processes.say(f"the paper's tables: {workdir / 'paper.html'}")
    if drawn is not None and content is not None:
        tables.write_figures(drawn, content)


def rows(config: ConfigDict, read_experiment: ReadExperiment) -> list[Row]:
    """Returns the rows of the tables: the paper's, and after them each rival in both places.

    Raises:
        ConfigError: There is no config of a rival; or it is given twice, is a row of the paper, or
            many experiments.
    """
    table = [*paper_numbers.ROWS]
    for name in config.rivals:
        try:
            experiment = read_experiment(name)
        except FileNotFoundError as error:
            raise ConfigError("rivals", name, f"the name of a config ({error})") from error
        if "corpus" not in experiment:
            raise ConfigError("rivals", name, "the name of a config of one experiment")
        trained = any("train" in each for each in configuration.experiments(experiment))
        title, numbers = systems.title(experiment), (4 if trained else 3,)
        for place in paper_numbers.CORPORA:
            row = Row(f"{name}_{place}", place, numbers, "", title, None, rival=name)
            if row.config in {each.config for each in table}:
                allowed = "names of configs, each once, and of none that the tables have anyway"
                raise ConfigError("rivals", tuple(config.rivals), allowed)
            table.append(row)
    return table


def plan(config: ConfigDict, read_experiment: ReadExperiment) -> dict[Key, Run]:
    """Returns the run of every cell; where both protocols are one experiment, it is one run."""
    runs, changed = {}, _changed(config)

    def add(name: str, source: str, place: str, column: str, folds: str, tested: str) -> Run:
        experiment, fields = read_experiment(source), changed
        if source != name:  # a rival, which keeps its own pictures, model and training
            fields = {field: x for field, x in changed.items() if not field.startswith(OF_CELLS)}
            if not on_pictures.shares_weights(experiment):
                fields.pop("weights", None)
            experiment.folds.update(read_experiment(f"ds_am_{place}").folds)  # of the others
        for field, value in fields.items():
            _set(experiment, field, value)
        experiment.corpus, experiment.folds.protocol = config[place], folds
        # Now that what follows these fields, such as seeds and members, has them.
        experiment = experiment.copy_and_resolve_references()
        for each in configuration.experiments(experiment):
            scheduled = "train" in each and configuration.is_scheduled(each.train)
            if each.select_on != "none" and not scheduled:
                chooses = systems.chooses(each) == "epoch"
                each.select_on = "test" if column == "paper" and chooses else "dev"
        chooses = systems.selected_on(experiment) != "none"
        runs[name, column] = Run(Path(column, name), experiment, config[tested], chooses)
        return runs[name, column]

    for row in rows(config, read_experiment):
        place, leaking = row.place, paper_numbers.FOLDS[row.place][0]
        paper = add(row.config, row.source, place, "paper", leaking, place)
        clean = add(row.config, row.source, place, "clean", "speakers", place)
        if paper.experiment == clean.experiment:
            runs[row.config, "paper"] = clean
    for trained, tested in paper_numbers.CROSS:
        if trained != tested:
            name = f"ds_am_{trained}"
            add(name, name, trained, "whole_corpus", "whole_corpus", tested)
    return runs


def _changed(config: ConfigDict) -> dict[str, Any]:
    """Returns by their full names the fields that override those of the cells."""
    fields = configuration.flatten(config).items()
    return {name: value for name, value in fields if value and name not in OWN_FIELDS}


def _set(experiment: ConfigDict, name: str, value: Any) -> bool:
    """Sets a field by its full name if the experiment has it, and returns whether it does."""
    exists = name in configuration.flatten(experiment)
    if exists:
        experiment.update_from_flattened_dict({name: value})
    return exists
