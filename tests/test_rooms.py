"""The imports between the rooms: each room imports from the rooms below it, and from no other."""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# A room may import from itself and from these.
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
    "serving": ("report", "evaluation", "features", "runtime"),
    "commands": (
        *("serving", "systems", "report", "training", "models", "evaluation", "data", "features"),
        *("config", "runtime"),
    ),
}
LEVELS = 7  # of rooms, one importing the next
NEEDS_JAX = {"jax", "jaxlib", "flax", "optax", "orbax", "chex"}
WITHOUT_JAX = ("datasets", "config", "cli", "features", "data", "evaluation", "report", "runtime")
# The twin of the picture on the device, and the start of JAX.
WITH_JAX = ("ds_jax.features.spectrogram_jax", "ds_jax.runtime.processes")


def imported(path: Path) -> set[str]:
    """Returns the full names of all modules and members that a file imports, late imports too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


IMPORTS = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): imported(path)
    for folder in ("ds_jax", "datasets")
    for path in sorted((ROOT / folder).rglob("*.py"))
}


def room(name: str) -> str:
    """Returns the room of a module or member: the part of its name after the package."""
    package, _, rest = name.partition(".")
    return rest.split(".")[0] if package == "ds_jax" else package


MODULES = [name for name in IMPORTS if room(name) in MAY_IMPORT]


def test_every_module_has_a_room():
    assert {room(name) for name in IMPORTS} - {"", "datasets"} <= set(MAY_IMPORT)


@pytest.mark.parametrize("module", MODULES)
def test_imports_follow_the_arrows(module):
    for name in IMPORTS[module]:
        package = name.partition(".")[0]
        assert package not in ("configs", "datasets", "launch"), name
        if package == "ds_jax" and room(name):
            assert room(name) in (room(module), *MAY_IMPORT[room(module)]), name


def test_rooms_have_few_levels_and_no_circle():
    """Measured on the imports that there are, not on those that are allowed."""
    used = {name: set() for name in MAY_IMPORT}
    for module in MODULES:
        used[room(module)] |= {room(name) for name in IMPORTS[module] if name[:7] == "ds_jax."}
    below = {name: rooms - {name} for name, rooms in used.items()}
    level = {}
    for name in graphlib.TopologicalSorter(below).static_order():  # raises CycleError
        level[name] = 1 + max((level[other] for other in below[name]), default=0)
    assert max(level.values()) <= LEVELS, level


def direct(module: str) -> set[str]:
    """Returns the modules of ours that a module imports, also those of which it takes a member."""
    names = IMPORTS[module] | {name.rpartition(".")[0] for name in IMPORTS[module]}
    return names & {*IMPORTS} - {module}


def test_no_two_modules_need_each_other():
    graph = {module: direct(module) for module in IMPORTS}
    assert [*graphlib.TopologicalSorter(graph).static_order()]  # raises CycleError


def reached(module: str) -> set[str]:
    """Returns the modules of ours that a module imports, directly or through others, and itself."""
    found, waiting = set(), {module}
    while waiting:
        found |= waiting
        waiting = set().union(*map(direct, waiting)) - found
    return found


@pytest.mark.parametrize(
    "module", [name for name in IMPORTS if room(name) in WITHOUT_JAX and name not in WITH_JAX]
)
def test_files_corpora_features_and_reports_do_without_jax(module):
    for own in reached(module):
        needed = {name.partition(".")[0] for name in IMPORTS[own]} & NEEDS_JAX
        assert not needed, f"{own} imports {needed}"
