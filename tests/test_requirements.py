"""The requirements install every package that is imported."""

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OWN = {path.stem for pattern in ("*", "tests/**/*.py") for path in ROOT.glob(pattern)}
NOT_REQUIRED = {"jaxlib", "a_package_that_is_not_there"}  # jax installs jaxlib


def imported(*patterns):
    """Returns the top packages that files import, without this project's and Python's."""
    names = set()
    for path in (path for pattern in patterns for path in ROOT.glob(pattern)):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module.partition(".")[0])
    return names - OWN - NOT_REQUIRED - set(sys.stdlib_module_names)


def required(name):
    """Returns the distributions that a file of requirements names or includes."""
    distributions, file = set(), ROOT / name
    for line in file.read_text(encoding="utf-8").splitlines():
        if included := re.match(r"-r (\S+)", line):
            distributions |= required(file.parent.relative_to(ROOT) / included[1])
        elif package := re.match(r"[\w.-]+", line):
            distributions.add(package[0].lower().replace("_", "-"))
    return distributions


@pytest.mark.parametrize(
    ("patterns", "files"),
    [
        (
            ("launch.py", "configs/*.py", "datasets/**/*.py", "ds_jax/**/*.py"),
            (
                *("requirements.txt", "requirements-opensmile.txt"),
                *("requirements-serve.txt", "requirements-figures.txt", "requirements-keras.txt"),
                "requirements-embeddings.txt",
            ),
        ),
        # Those of embeddings skip without their packages.
        (("tests/**/*.py",), ("requirements-dev.txt", "requirements-embeddings.txt")),
        (
            ("benchmarks/**/*.py",),
            ("benchmarks/requirements.txt", "requirements-dev.txt"),  # they have tests
        ),
    ],
    ids=["program", "tests", "benchmarks"],
)
def test_every_package_that_is_imported_is_required(patterns, files):
    distributions = packages_distributions()
    wanted = set.union(*map(required, files))
    names = imported(*patterns)
    assert "jax" in names
    for name in names:
        assert {one.lower().replace("_", "-") for one in distributions.get(name, [name])} & wanted
