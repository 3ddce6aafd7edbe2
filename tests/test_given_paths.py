"""What launch.py makes of paths and names on the command line, in front of the commands."""

import sys
from pathlib import Path

import pytest
from absl.testing import flagsaver

import launch
from configs import base
from datasets import prepare
from ds_jax import cli
from ds_jax import config as configuration
from ds_jax.commands import compare, evaluate, export, features, predict
from ds_jax.runtime import processes, shutdown
from ds_jax.training import epochs

# ml_collections reads config files in a way that Python 3.12 drops.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder with raw recordings, and another folder to stand in."""
    (tmp_path / "home" / "corpora").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


@pytest.fixture
def called(monkeypatch):
    """The arguments of the commands that `start` would have run, in order."""
    calls = []
    monkeypatch.setattr(processes, "start", lambda *_: None)
    monkeypatch.setattr(shutdown, "listen", lambda: None)
    monkeypatch.setattr(launch, "_train", lambda *arguments: calls.append(arguments))
    for command in (compare, export, features, predict):
        monkeypatch.setattr(command, "run", lambda *arguments: calls.append(arguments))
    return calls


def start(monkeypatch, *arguments):
    argv = ["launch.py", *map(str, arguments)]
    with flagsaver.flagsaver():
        monkeypatch.setattr(sys, "argv", argv)
        launch.main(cli.parse(argv, launch.QUICKSTART))


def refusal(capsys, monkeypatch, *arguments):
    """Returns the sentence by which a command line is refused."""
    with pytest.raises(SystemExit) as ended:
        start(monkeypatch, *arguments)
    assert ended.value.code == 1
    return capsys.readouterr().err


def test_a_home_folder_is_meant_in_every_path(home, called, monkeypatch):
    given = ("--checkpoint=~/run", "--explain=~/seen", "--enrol=~/ana")
    start(monkeypatch, "--mode=predict", *given, "~/a*.wav", "-")
    checkpoint, paths, *_, explain, _, enrol = called.pop()
    assert (checkpoint, explain, enrol) == (home / "run", home / "seen", [home / "ana"])
    assert paths == [home / "a*.wav", Path("-")]
    (home / "own.py").write_text(Path(launch.QUICKSTART).read_text())
    tables = ("--output=~/table.csv", "--labels=~/labels.csv")
    start(monkeypatch, "--mode=features", "--config", "~/own.py", *tables, "~/folder")
    _, paths, output, labels = called.pop()
    assert (paths, output, labels) == ([home / "folder"], home / "table.csv", f"{home}/labels.csv")
    given = ("--workdir=~/compared", "--figures=~/drawn")
    start(monkeypatch, "--mode=compare", *given, "~/one", "~/other")
    assert called.pop() == ([home / "one", home / "other"], home / "compared", home / "drawn")
    start(monkeypatch, "--mode=export", "--checkpoint=~/run", "--workdir=~/for_robots")
    assert called.pop() == (home / "run", home / "for_robots" / "export", "stablehlo")
    workdir = ("--workdir=~/for_robots", "--format=onnx")
    start(monkeypatch, "--mode=export", "--checkpoint=~/run", *workdir)
    assert called.pop() == (home / "run", home / "for_robots" / "export_onnx", "onnx")


def test_a_home_folder_is_meant_in_a_config(home, called, monkeypatch):
    (home / "own.py").write_text(Path(launch.QUICKSTART).read_text())
    fields = ("--noconfig.synthetic", "--config.weights=~/vgg16.h5", "--config.folds.file=f.json")
    places = ("--workdir=~/run", "--corpora_dir=~/corpora", "--data_dir=~/data")
    start(monkeypatch, "--config=~/own.py", *fields, *places)
    config, load, workdir, folds, _ = called.pop()
    assert (workdir, folds) == (home / "run", None)
    assert (config.weights, config.folds.file) == (f"{home}/vgg16.h5", str(Path.cwd() / "f.json"))
    assert (load.__self__.raw, load.__self__.data) == (home / "corpora", home / "data")


@pytest.mark.parametrize(
    "given",
    ["workdir", "data_dir", "corpora_dir", "config.weights", "config.folds.file", "config"],
)
def test_a_home_folder_of_nobody_is_refused(home, called, monkeypatch, capsys, given):
    line = refusal(capsys, monkeypatch, "--noconfig.synthetic", f"--{given}=~nobody_here/x")
    assert "~nobody_here/x" in line
    assert not called
    assert not list(Path.cwd().iterdir())


def test_a_folder_of_recordings_that_is_not_there_is_refused(home, called, monkeypatch, capsys):
    given = ("--noconfig.synthetic", "--corpora_dir=~/nowhere")
    for mode in ("train", "corpus"):
        assert "--corpora_dir=~/nowhere" in refusal(capsys, monkeypatch, f"--mode={mode}", *given)
    start(monkeypatch, "--noconfig.synthetic")  # the default may be missing: data may be prepared


def test_a_corpus_is_known_however_it_is_spelt(home, called, monkeypatch):
    fields = ("--noconfig.synthetic", "--config.eval_on=('Emo-DB','RAVDESS')")
    start(monkeypatch, *fields, "--config.corpus=ELRA S0329")
    config = called.pop()[0]
    assert (config.corpus, tuple(config.eval_on)) == ("elra_s0329", ("emodb", "ravdess"))
    start(monkeypatch, "--noconfig.synthetic", "--config.corpus=emod", "--config.eval_on=()")
    assert called.pop()[0].corpus == "emodb"


def test_some_folds_are_given_by_their_numbers(home, called, monkeypatch):
    start(monkeypatch, "--fold=0,2")
    assert called.pop()[3] == [0, 2]


def test_predict_names_the_run_that_answers_for_it(home, called, monkeypatch, capsys):
    start(monkeypatch, "--mode=predict", "a.wav")
    printed = capsys.readouterr()
    assert str(Path.cwd() / "runs" / "quickstart") in printed.err
    assert not printed.out
    start(monkeypatch, "--mode=predict", "--checkpoint=run", "a.wav")
    assert not capsys.readouterr().err


def test_how_recordings_are_read_is_said_by_the_run_or_by_a_flag(home, called, monkeypatch, capsys):
    start(monkeypatch, "--mode=predict", "--checkpoint=run", "a.wav")
    assert called.pop()[-2:] == ({}, [])
    start(monkeypatch, "--mode=predict", "--checkpoint=run", "--channel=left", "a.wav")
    assert called.pop()[-2] == {"channel": "left"}
    trained = base.get_config()
    trained.channel = "right"
    configuration.write(trained, home / "run")
    monkeypatch.setattr(evaluate, "run", lambda *arguments: None)
    monkeypatch.setattr(prepare.Corpora, "load", lambda *arguments: called.append(arguments))
    given = ("--mode=evaluate", "--workdir=~/run", "--eval_on=emovo", "--corpora_dir=~/corpora")
    for flags, expected in (((), ("right", 16_000)), (("--raw_rate=8000",), ("right", 8000))):
        start(monkeypatch, *given, *flags)
        config = called.pop()[1]
        assert (config.channel, config.raw_rate) == expected
    assert "from 1000 to" in refusal(capsys, monkeypatch, *given, "--raw_rate=8")
    assert "--mode=predict" in refusal(capsys, monkeypatch, "--channel=left")


def test_a_config_that_lies_elsewhere_is_named(home, called, monkeypatch, capsys):
    line = refusal(capsys, monkeypatch, "--config=configs/ds_am_emodb.py")
    assert str(Path(launch.__file__).parent / "configs" / "ds_am_emodb.py") in line


def test_a_workdir_that_cannot_be_made_is_told_before_a_corpus_is_prepared(monkeypatch):
    monkeypatch.setattr(epochs, "report_errors_once", lambda: None)  # it is for whole processes
    config, loaded = base.get_config(), []
    base.use_mlr(config, "mfcc")
    config.corpus = "emodb"
    with pytest.raises(OSError, match="--workdir"):
        launch._train(
            config, lambda *asked: loaded.append(asked), Path("/proc/nowhere/run"), None, None
        )
    assert not loaded
