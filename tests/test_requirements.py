"""Whatever is imported is installed by the requirements, and not by chance."""

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OWN = {
    "benchmarks",
    "configs",
    "datasets",
    "ds_jax",
    "launch",
    *(path.stem for path in ROOT.glob("tests/*.py")),
}


def imported(*patterns):
    """The top packages that files import, of neither this project nor Python."""
    names = set()
    for path in (path for pattern in patterns for path in ROOT.glob(pattern)):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module.partition(".")[0])
    return names - OWN - set(sys.stdlib_module_names)


def required(name):
    """The distributions that a file of requirements names, and those that it includes."""
    found = set()
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        if included := re.match(r"-r (\S+)", line):
            found |= required(included[1])
        elif package := re.match(r"[\w.-]+", line):
            found.add(package[0].lower().replace("_", "-"))
    return found


@pytest.mark.parametrize(
    ("patterns", "files"),
    [
        (
            ("launch.py", "configs/*.py", "datasets/**/*.py", "ds_jax/*.py"),
            ("requirements.txt", "requirements-opensmile.txt"),
        ),
        (("tests/*.py",), ("requirements-dev.txt",)),
    ],
)
def test_every_package_that_is_imported_is_required(patterns, files):
    distributions = packages_distributions()
    wanted = set.union(*map(required, files))
    names = imported(*patterns)
    assert "jax" in names
    missing = []
    for name in sorted(names - {"jaxlib", "a_package_that_is_not_there"}):  # jax brings jaxlib
        installed = {one.lower().replace("_", "-") for one in distributions.get(name, [name])}
        if not installed & wanted:
            missing.append(name)
    assert not missing
