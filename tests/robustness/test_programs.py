"""No program here trusts what it reads: none runs it, unpickles it or extracts it."""

import ast
import re
from pathlib import Path

import malformed
import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = sorted(
    path
    for path in ROOT.rglob("*.py")
    if path.name not in ("test_programs.py", "test_trust.py")  # which play the stranger
    and not path.relative_to(ROOT).parts[0].startswith(".")
)
TEMPLATES = sorted(ROOT.glob("ds_jax/*.jinja"))

# What makes a program of data.
MODULES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal"}
CALLS = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "pty.spawn"),
    *("joblib.load", "joblib.dump", "torch.load", "pandas.read_pickle", "numpy.fromregex"),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all"),
    *("subprocess.getoutput", "subprocess.getstatusoutput", "shutil.unpack_archive"),
    *("markupsafe.Markup", "Markup"),
}
METHODS = {"extractall", "extract", "read_pickle"}


def dangers(source: str) -> list[str]:
    """The calls and imports of a program that would trust what it reads."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [one.name for one in node.names if one.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom):
            module = (node.module or "").split(".")[0]
            names = [f"{node.module}.{one.name}" for one in node.names]
            found += [name for name in names if module in MODULES or name in CALLS]
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            given = {one.arg: ast.unparse(one.value) for one in node.keywords}
            plain = name.replace("np.", "numpy.", 1)
            if plain in CALLS or (
                isinstance(node.func, ast.Attribute) and node.func.attr in METHODS
            ):
                found.append(name)
            if (
                given.get("shell", "False") != "False"
                or given.get("allow_pickle", "False") != "False"
            ):
                found.append(f"{name}({given})")
            if plain.startswith("skops.io.load") and "trusted" in given:
                found.append(f"{name} that trusts {given['trusted']}")
            if plain == "onnx.load" and given.get("load_external_data") != "False":
                found.append(f"{name} of other files")
    return found


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_program_trusts_what_it_reads(path):
    assert dangers(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "torch.load(path)",
        "from joblib import load",
        "joblib.load(path)",
        "np.load(path, allow_pickle=True)",
        "numpy.load(path, allow_pickle=trusted)",
        "eval(text)",
        "exec(text)",
        "os.system(name)",
        "subprocess.run(name, shell=True)",
        "yaml.load(file)",
        "archive.extractall(folder)",
        "zipfile.ZipFile(path).extract(name)",
        "skops.io.loads(content, trusted=types)",
        "onnx.load(file)",
        "Markup(name)",
    ],
)
def test_what_would_trust_is_found(line):
    assert dangers(line)


def test_pages_are_made_by_templates_that_escape():
    assert len(TEMPLATES) == 6
    for path in TEMPLATES:
        text = path.read_text(encoding="utf-8")
        text = re.sub(r"'[^']*' \| safe", "", text)  # of constants
        assert not re.search(r"\|\s*safe\b|autoescape|<script", text), path.name
    for path in PROGRAMS:
        text = path.read_text(encoding="utf-8")
        environments = text.count("jinja2.Environment(")
        assert text.count("autoescape=True") == environments or path.name == "export.py"  # Markdown


def test_no_shell_is_called_with_names_from_data():
    """The one program that is called is pip, with a list of fixed arguments."""
    callers = [
        path.name
        for path in PROGRAMS
        if "tests" not in path.parts and "subprocess." in path.read_text(encoding="utf-8")
    ]
    assert set(callers) <= {"weights.py", "pictures.py"} | {
        path.name for path in PROGRAMS if "benchmarks" in path.parts
    }
    names = [case for case in malformed.cases() if "touch pwned" in case.name]
    assert len(names) == 4
