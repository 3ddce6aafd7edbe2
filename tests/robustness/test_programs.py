"""No program executes, unpickles or extracts what it reads."""

import ast
import re
from pathlib import Path

import malformed
import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in ROOT.rglob("*.py")
    if path.name not in ("test_programs.py", "test_trust.py")  # which attack
    and not path.relative_to(ROOT).parts[0].startswith(".")
}

# What makes a program of data.
MODULES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal"}
CALLS = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "pty.spawn"),
    *("joblib.load", "joblib.dump", "torch.load", "pandas.read_pickle", "numpy.fromregex"),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all"),
    *("subprocess.getoutput", "subprocess.getstatusoutput", "shutil.unpack_archive"),
    *("markupsafe.Markup", "Markup"),
}
KEYWORDS = {"shell", "allow_pickle", "trusted", "load_external_data", "autoescape"}
METHODS = {"extractall", "extract", "read_pickle"}


def dangers(source: str) -> list[str]:
    """Returns the imports and calls of a program that would trust what it reads."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [name for name in names if name.split(".")[0] in MODULES or name in CALLS]
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func).replace("np.", "numpy.", 1)
            given = {k.arg: ast.unparse(k.value) for k in node.keywords if k.arg in KEYWORDS}
            if (
                name in CALLS
                or (isinstance(node.func, ast.Attribute) and node.func.attr in METHODS)
                or given.get("shell", "False") != "False"
                or given.get("allow_pickle", "False") != "False"
                or (name.startswith("skops.io.load") and "trusted" in given)
                or (name == "onnx.load" and given.get("load_external_data") != "False")
                or (name == "jinja2.Environment" and given.get("autoescape", "False") == "False")
            ):
                found.append(f"{name}({given})")
    return found


def test_no_program_trusts_what_it_reads():
    found = {path: dangers(text) for path, text in PROGRAMS.items()}
    markdown = found.pop("ds_jax/commands/export.py")  # in which nothing is escaped
    assert all(call.startswith("jinja2.Environment") for call in markdown)
    documents = found.pop("tests/end_to_end/test_from_python.py")  # whose code it runs
    assert all(call.startswith(("exec", "compile")) for call in documents)
    assert len(found) > 100
    assert {path: calls for path, calls in found.items() if calls} == {}


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
        "jinja2.Environment(loader=loader)",
    ],
)
def test_what_would_trust_is_found(line):
    assert dangers(line)


def test_templates_escape():
    templates = list(ROOT.glob("ds_jax/**/*.jinja"))
    assert len(templates) > 5
    for path in templates:
        text = re.sub(r"'[^']*' \| safe", "", path.read_text(encoding="utf-8"))  # of constants
        text = text.replace('<script src="/', "")  # of the server's own page
        assert not re.search(r"\|\s*safe\b|autoescape|<script", text), path.name


def test_no_shell_is_called_with_names_from_data():
    """Programs are called with lists of arguments: pip, and ffmpeg with a recording's path."""
    callers = {path for path, text in PROGRAMS.items() if "subprocess." in text}
    callers = {path for path in callers if not path.startswith(("tests/", "benchmarks/"))}
    assert callers == {"ds_jax/runtime/downloads.py", "ds_jax/features/ffmpeg.py"}
    assert not [path for path in callers if "shell=" in PROGRAMS[path]]
    names = [case for case in malformed.cases() if "touch pwned" in case.name]
    assert len(names) == 4
