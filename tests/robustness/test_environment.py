"""Strange environments: each command goes on, or ends in a sentence that says what to set."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from recordings import sound

from ds_jax import features
from ds_jax.models import pretrained, vgg16
from ds_jax.runtime import files

pytestmark = pytest.mark.slow  # each starts the program in a strange place

ROOT = Path(__file__).parents[2]
NOWHERE = "/proc/nowhere"  # a folder that nobody can make


def launch(*arguments, cwd=ROOT, umask=-1, **environment):
    """Runs the program in an environment that has nothing but what is given."""
    cache = {"JAX_COMPILATION_CACHE_DIR": os.environ.get("JAX_COMPILATION_CACHE_DIR", "")}
    return subprocess.run(
        [sys.executable, ROOT / "launch.py", *map(str, arguments)],
        cwd=cwd,
        env={"PATH": os.defpath, "HOME": NOWHERE, **cache, **environment},
        umask=umask,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
    )


@pytest.fixture(scope="module")
def classifier(finished_runs):
    """A finished run whose models predict at once."""
    return finished_runs("mlr")


def predict(run, tmp_path, name="a.wav", **options):
    """Predicts a recording; returns the process, and what it warns of on standard error."""
    sound(tmp_path / name, 0, 0.5)
    done = launch(
        "--mode=predict", "--format=csv", f"--checkpoint={run}", tmp_path / name, **options
    )
    said = re.compile("note: |.*: loading 3 models$")
    lines = [line for line in done.stderr.splitlines() if not said.match(line)]
    return done, lines


@pytest.mark.parametrize(
    "variables",
    [
        {"JAX_PLATFORMS": "cuda"},
        {"JAX_PLATFORMS": "nonsense"},
        {"JAX_PLATFORM_NAME": "gpu"},
    ],
    ids=lambda each: "=".join(*each.items()),
)
def test_a_device_that_is_not_there_is_one_sentence(tmp_path, variables):
    done = launch("--mode=predict", f"--checkpoint={tmp_path}", "a.wav", **variables)
    assert done.returncode == 1
    sentence = done.stderr.splitlines()[-1]
    assert sentence.startswith("error: ")
    assert "=".join(*variables.items()) in sentence
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "variables",
    [{}, {"XDG_CACHE_HOME": NOWHERE}, {"XDG_CACHE_HOME": "~nobody_here/x"}],
    ids=["HOME", "XDG_CACHE_HOME", "nobody"],
)
def test_without_a_folder_for_programs_it_goes_on_and_says_so(classifier, tmp_path, variables):
    done, lines = predict(classifier, tmp_path, JAX_COMPILATION_CACHE_DIR="", **variables)
    assert (done.returncode, lines) == (0, [])
    assert done.stdout.count("\n") == 2
    assert "XDG_CACHE_HOME" in done.stderr


def test_without_a_folder_for_weights_it_says_what_to_set(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    for cache in (tmp_path / "file", NOWHERE):
        monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
        with pytest.raises(OSError, match=rf"{cache}.* XDG_CACHE_HOME.* --config\.weights"):
            pretrained.load(vgg16.VGG16)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as where nobody has a home
    with pytest.raises(OSError, match="HOME"):
        files.cache_directory()
    monkeypatch.undo()


@pytest.mark.parametrize(
    "variables",
    [
        {"LC_ALL": "C"},
        {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"PYTHONIOENCODING": "ascii"},
        {"TERM": "dumb"},
    ],
    ids=str,
)
def test_names_survive_every_locale_and_terminal(classifier, tmp_path, variables):
    done, lines = predict(classifier, tmp_path, name="niño ж.wav", **variables)
    assert (done.returncode, lines) == (0, [])
    wanted = r"ni\xf1o \u0436.wav" if "PYTHONIOENCODING" in variables else "niño ж.wav"
    assert wanted in done.stdout


def test_closed_streams_are_nowhere(classifier, tmp_path):
    sound(tmp_path / "a.wav", 0, 0.5)
    command = f"'{sys.executable}' launch.py --mode=predict --checkpoint='{classifier}' "
    command += f"'{tmp_path / 'a.wav'}'"
    cases = (("0<&- 2>&-", (0, True)), ("1>&-", (0, False)), ("0<&- 1>&- 2>&-", (0, False)))
    for closed, wanted in cases:
        shell = ["sh", "-c", f"exec {command} {closed}"]
        done = subprocess.run(shell, cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert (done.returncode, "prediction" in done.stdout) == wanted, done.stderr


def test_a_folder_that_is_gone_is_named(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    shell = ["sh", "-c", f"rmdir '{gone}'; exec '{sys.executable}' '{ROOT / 'launch.py'}' --fold=0"]
    done = subprocess.run(shell, cwd=gone, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("error: the current folder is gone")


def test_numba_has_a_cache_where_nothing_can_be_written(monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", NOWHERE)  # so that what the function sets is undone
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setattr(os, "access", lambda *_: False)  # as beside libraries of the system
    monkeypatch.setenv("XDG_CACHE_HOME", NOWHERE)
    features._give_numba_a_cache()
    folder = Path(os.environ["NUMBA_CACHE_DIR"])
    assert folder.is_dir()
    folder.rmdir()


def test_the_folder_of_recordings_may_stand_in_the_environment(tmp_path):
    variables = {"HOME": str(tmp_path), "DS_JAX_CORPORA": "~/mine"}
    experiment = ("--mode=corpus", "--config=configs/ds_svc_emodb.py", f"--workdir={tmp_path}/run")
    done = launch(*experiment, **variables)
    wanted = "error: $DS_JAX_CORPORA=~/mine: there is no such folder\n"
    assert (done.returncode, done.stderr) == (1, wanted)
    (tmp_path / "mine").mkdir()
    done = launch(*experiment, f"--data_dir={tmp_path}/data", **variables)
    assert f"in {tmp_path}/mine/emodb, but there is no such folder" in done.stderr
