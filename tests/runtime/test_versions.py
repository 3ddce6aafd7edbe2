"""The versions that a run began with, and those that have changed since."""

import shlex
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path

import jax
import numpy as np

from ds_jax.runtime import versions

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


def test_the_versions_are_those_in_use():
    now = versions.current()
    assert (now["jax"], now["numpy"]) == (jax.__version__, np.__version__)
    assert now["ds_jax"] == versions.program()


def test_the_program_s_version_is_that_of_the_package_else_of_the_checkout(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "version", missing)
    assert versions.program() == PROJECT["version"]
    monkeypatch.setattr(metadata, "version", lambda name: {"ds_jax": "9.8"}[name])
    assert versions.program() == "9.8"


def test_differences_are_named():
    now = versions.current()
    assert versions.difference(now) == ""
    other = now | {"jax": "0.1", "gone": "2"}
    del other["numpy"]
    assert versions.difference(other) == (
        f"gone 2, now none; jax 0.1, now {now['jax']}; numpy none, now {now['numpy']}"
    )


def test_a_command_is_read_by_shells_as_it_was_and_by_people_too():
    words = ["a", "b c", "('d',)", "it's $HOME", 'e"f', "'g'`h`", "\\'", "", "i=j'!"]
    command = versions.join_words(words)
    assert shlex.split(command) == words
    printed = ["bash", "-c", f"printf '%s\\n' {command}"]
    assert subprocess.run(printed, capture_output=True, text=True).stdout.splitlines() == words
    call = ["python", "launch.py", "--config.only=('statistics',)"]
    assert versions.join_words(call) == "python launch.py \"--config.only=('statistics',)\""
