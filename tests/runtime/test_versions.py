"""The versions that a run began with, and what has changed since."""

import tomllib
from pathlib import Path

import jax
import numpy as np

from ds_jax.runtime import versions


def test_the_versions_are_those_in_use():
    now = versions.current()
    assert now["jax"] == jax.__version__
    assert now["numpy"] == np.__version__
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert now["ds_jax"] == project["project"]["version"]


def test_differences_are_named():
    now = versions.current()
    assert versions.difference(now) == ""
    other = now | {"jax": "0.1", "gone": "2"}
    del other["numpy"]
    assert versions.difference(other) == (
        f"gone 2, now none; jax 0.1, now {now['jax']}; numpy none, now {now['numpy']}"
    )
