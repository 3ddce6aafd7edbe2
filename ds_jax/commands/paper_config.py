"""The fields of `configs/paper.py`, which override those of every cell that has them."""

from collections.abc import Callable, Iterator
from typing import Any

from ml_collections import ConfigDict

from ds_jax.models import pretrained, vgg16
from ds_jax.report import paper_numbers
from ds_jax.systems import base as systems

# They override nothing.
OWN_FIELDS = ("system", *paper_numbers.CORPORA)


def check(config: ConfigDict, read_experiment: Callable[[str], ConfigDict]) -> None:
    """Checks each field alone, before any work; a cell in which two do not agree says so itself.

    Args:
        config: Of `configs/paper.py`.
        read_experiment: As for `run`.

    Raises:
        FileNotFoundError: There is no such file of weights.
        ValueError: No cell can take the value of a field.
    """
    pretrained.check(vgg16.VGG16, config.weights)
    for name, value in changed(config):
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


def override(experiment: ConfigDict, config: ConfigDict) -> None:
    """Changes each field that an experiment has and `config` gives; empty ones give nothing."""
    for name, value in changed(config):
        _set(experiment, name, value)


def _set(experiment: ConfigDict, name: str, value: Any) -> bool:
    """Sets the field `x.y`, and says whether there is one."""
    *folders, last = name.split(".")
    within = experiment
    for folder in folders:
        within = within.get(folder, {})
    if last in within:
        within[last] = value
    return last in within


def changed(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields `x.y` and its value for every field that overrides those of the cells."""
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield from changed(value, f"{prefix}{name}.")
        elif value and prefix + name not in OWN_FIELDS:
            yield prefix + name, value
