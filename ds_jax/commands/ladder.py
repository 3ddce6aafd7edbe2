"""Runs rows of experiments on several corpora, and tests each change: configs/ladder.py."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from ml_collections import ConfigDict

from ds_jax.commands import cells, report, train
from ds_jax.commands.cells import Load
from ds_jax.models import pretrained
from ds_jax.report import ladder as page
from ds_jax.report.ladder import Key
from ds_jax.report.paper import Run
from ds_jax.runtime import processes, versions
from ds_jax.runtime.errors import ConfigError, naming, one_of
from ds_jax.systems import base as systems
from ds_jax.systems import on_pictures


def check(config: ConfigDict) -> None:
    """Checks all rows of the config of `configs/ladder.py` before any work.

    Raises:
        ConfigError: A field has an impossible value.
        FileNotFoundError: A file of weights is missing.
        ValueError: It holds another network; or Keras is missing.
    """
    for field in ("only", "references", "headlines"):
        if unknown := [name for name in config[field] if name not in config.rows]:
            raise ConfigError(field, unknown[0], one_of(config.rows))
    for name, folds in config.corpora.items():
        if {*folds} != {"protocol", "count", "seed", "file"}:
            allowed = "given with protocol, count, seed and file, and no others"
            raise ConfigError(f"corpora.{name}", folds.to_dict(), allowed)
    if not config.seeds or len(set(config.seeds)) < len(config.seeds):
        raise ConfigError("seeds", tuple(config.seeds), "one or more numbers, each once")
    for name, row in config.rows.items():
        if row.after and row.after not in config.rows:
            raise ConfigError(f"rows.{name}.after", row.after, f"'' or {one_of(config.rows)}")
    if absent := [name for name in config.rows if name not in page.ordered(config.rows)]:
        row = config.rows[absent[0]]
        raise ConfigError(f"rows.{absent[0]}.after", row.after, "a row that is not after this one")
    needed = set()
    for (corpus, name, _), experiment in plan(config):
        with naming(f"rows.{name}.experiment.", f" (on {corpus})"):
            systems.check(experiment)
            needed |= train.check_backbones(experiment)
    for backbone, path, full in needed:
        if path:  # what is published is downloaded for its row alone
            pretrained.check(backbone, path, full=full)


def run(config: ConfigDict, load: Load, workdir: Path, drawn: Path | None = None) -> None:
    """Runs the rows that are not done, and writes ladder.md and ladder.json after each.

    Args:
        config, load: As in `check` and in `cells.run`.
        workdir: The folder of the ladder; each run has a folder below it.
        drawn: The folder of the ladder's figures and tables; none are written if None.
    """
    runs = {key: Run(key.folder, x, key.corpus) for key, x in plan(config)}

    command = report.public_command(versions.this_call()["command"])

    def write(states: Mapping[Path, str]) -> dict:
        of_keys = {key: states[run.folder] for key, run in runs.items()}
        return page.write(workdir, config, of_keys, command)

    def is_chosen(run: Run) -> bool:
        return run.folder.parent.name in (config.only or config.rows)

    content = cells.run_all(runs.values(), load, workdir, "ladder", write, is_chosen)
    processes.say(f"the ladder: {workdir / page.TABLES}")
    if drawn is not None and content is not None:
        page.write_figures(drawn, content)


def plan(config: ConfigDict) -> Iterator[tuple[Key, ConfigDict]]:
    """Yields each run's key and experiment: corpus by corpus, and rows after those they change."""
    for corpus, folds in config.corpora.items():
        for name in page.ordered(config.rows):
            for seed in config.seeds:
                experiment = config.rows[name].experiment
                experiment.corpus, experiment.seed = corpus, seed
                experiment.folds.update(folds)
                if on_pictures.shares_weights(experiment):
                    experiment.weights = config.weights
                # Now that what follows these fields, such as members and their seeds, has them.
                yield Key(corpus, name, seed), experiment.copy_and_resolve_references()
