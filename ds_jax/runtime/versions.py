"""Which versions of this program and of its libraries a run began with."""

import platform
import tomllib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

# Those whose next version may round otherwise or draw other random numbers.
LIBRARIES = (
    *("jax", "jaxlib", "flax", "optax", "numpy", "scipy", "scikit-learn"),
    *("xgboost-cpu", "xgboost", "librosa", "opensmile", "soundfile", "soxr"),
)


def current() -> dict[str, str]:
    """The versions in use, by name; a library that is not installed is left out."""
    with (Path(__file__).parents[2] / "pyproject.toml").open("rb") as file:
        own = tomllib.load(file)["project"]["version"]
    found = {"ds_jax": own, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def difference(before: Mapping[str, str]) -> str:
    """Says which versions are others than before; empty where all are the same."""
    now = current()
    changed = [
        f"{name} {before.get(name, 'none')}, now {now.get(name, 'none')}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]
    return "; ".join(changed)
