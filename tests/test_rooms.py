"""The arrows between the rooms of the house: who may import whom."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# A room may import from itself and from these, and from no other.
MAY_IMPORT = {
    "runtime": (),
    "config": ("runtime",),
    "cli": ("config", "runtime"),
    "features": ("runtime",),
    "data": ("features", "runtime"),
    "models": ("data", "features", "runtime"),
    "evaluation": ("data", "runtime"),
    "training": ("models", "evaluation", "data", "features", "config", "runtime"),
    "report": ("evaluation", "data", "features", "runtime"),
    "systems": ("training", "models", "evaluation", "data", "features", "config", "runtime"),
    "commands": (
        *("systems", "report", "training", "models", "evaluation", "data", "features"),
        *("config", "runtime"),
    ),
}
# What a room may not even import from outside.
NO_JAX = ("runtime/files", "features", "data", "evaluation", "report", "datasets")
FILES = sorted((ROOT / "ds_jax").rglob("*.py"))


def imported(path: Path) -> set[str]:
    """The full names of all modules and members that a file imports, late imports too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room(path: Path) -> str:
    """The folder below ds_jax, or the name of a file that lies in no folder."""
    return path.relative_to(ROOT / "ds_jax").with_suffix("").parts[0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_arrows(path):
    own = room(path)
    if own == "__init__":
        return
    for name in imported(path):
        package, *rest = name.split(".")
        assert package not in ("configs", "datasets", "launch"), name
        if package == "ds_jax" and rest:
            assert rest[0] == own or rest[0] in MAY_IMPORT[own], name
