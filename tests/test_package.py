"""The package that `pip install .` makes, and what importing it costs."""

import ast
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

import ds_jax
from ds_jax.runtime.versions import program as program_version

ROOT = Path(__file__).parents[1]


def test_the_wheel_holds_the_package_alone_and_all_of_it(tmp_path):
    pytest.importorskip("hatchling")
    pytest.importorskip("hatch_requirements_txt")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.iterdir()
    with zipfile.ZipFile(path) as wheel:
        names = [name for name in wheel.namelist() if ".dist-info/" not in name]
        (metadata,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
        facts = message_from_string(wheel.read(metadata).decode())
    here = [path for path in (ROOT / "ds_jax").rglob("*") if path.is_file()]
    here = [path.relative_to(ROOT).as_posix() for path in here if "__pycache__" not in path.parts]
    assert sorted(names) == sorted(here)
    assert "ds_jax/report/templates/report.html.jinja" in names
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    listed = [line for line in lines if line and not line.startswith("#")]
    needed = facts.get_all("Requires-Dist")
    optional = [text for text in needed if "extra ==" in text]
    assert len(needed) - len(optional) == len(listed)
    extras = ["embeddings", "figures", "keras", "opensmile", "serve"]
    assert facts.get_all("Provides-Extra") == extras
    assert facts["License-Expression"] == "Apache-2.0"
    assert facts.get_payload(decode=False).lstrip().startswith("# ds_jax")


def test_type_checkers_see_the_names_and_the_places_of_the_api():
    tree = ast.parse((ROOT / "ds_jax" / "__init__.pyi").read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    seen = {alias.asname: f"{node.module}.{alias.name}" for node in imports for alias in node.names}
    assert seen == {name: f"ds_jax.{place}.{name}" for name, place in ds_jax._MODULES.items()}


def test_the_package_tells_its_version_with_and_without_installation(tmp_path):
    program = "import sys; sys.path.append(sys.argv[1]); import ds_jax; print(ds_jax.__version__)"
    command = [sys.executable, "-S", "-c", program, ROOT]  # without installed packages
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert done.stdout == f"{stated['version']}\n"
    assert ds_jax.__version__ == program_version()
    assert "__version__" in dir(ds_jax)


def test_importing_the_package_imports_nothing_heavy():
    program = (
        "import sys, ds_jax; ds_jax.__version__;"
        " print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "ds_jax" in loaded
    assert not loaded & {"jax", "flax", "numpy", "scipy", "librosa", "sklearn", "absl"}


def test_predicting_imports_nothing_heavy_that_it_does_not_use():
    program = "import sys, ds_jax.commands.predict, ds_jax.systems.network; print(*sys.modules)"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    heavy = {"scipy.stats", "sklearn", "optax", "orbax.checkpoint", "onnx", "keras"}
    assert not heavy & set(done.stdout.split())
