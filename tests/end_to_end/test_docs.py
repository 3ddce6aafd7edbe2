"""The commands, links and paths of the documents work."""

import itertools
import json
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
import recordings
from absl.testing import flagsaver

import launch
from ds_jax import cli
from ds_jax.data.labels import LABELS
from ds_jax.systems import base as systems
from ds_jax.systems import on_pictures

# ml_collections reads config files in a way that Python 3.12 drops.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "benchmarks" / "results.md", *(ROOT / "docs").glob("*.md")]
TO_RUN = [ROOT / "docs" / f"{name}.md" for name in ("first_hour", "evaluation", "extending")]
EMOVO = ("rab", "dis", "pau", "gio", "neu")  # emotions in its file names
PROGRAM = "python launch.py"
SMALL = {
    "picture.canvas": 48,
    "picture.size": 32,
    "picture.mel_bands": 32,
    "model.freeze": "block4",
    "model.layers": "('block1_pool',)",
    "model.costs": "(0.1,1.0)",
    "train.epochs": 1,
    "train.batch_size": 16,
    "folds.count": 2,
}
FOLD = "checkpoints metrics.jsonl tensorboard gates.npz predictions.csv checksums.json fold.lock"
RESULTS = {
    "runs/robots": "config.json folds.json report.json report.html run.lock export/model.stablehlo",
    "runs/robots/fold_00": FOLD,
    "runs/emodb_whole/evaluations/emovo": "predictions.csv report.json report.html evaluation.lock",
    "runs": "robots_look/corpus.html robots_mlr/report.html paper/paper.html",
}


def commands_of_line(line):
    """Returns the arguments of the calls of launch.py in a shell line, quoted ones included."""
    if PROGRAM not in line:
        return []
    words = shlex.split(line, comments=True)
    quoted = [word.partition("=")[2] for word in words if PROGRAM in word]
    commands = [command for text in quoted for command in commands_of_line(text)]
    if "launch.py" in words:
        arguments = words[words.index("launch.py") + 1 :]
        commands.append(list(itertools.takewhile(lambda word: word != "|", arguments)))
    return commands


def commands_of(path):
    """Returns those of a document's indented blocks and inline code."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = re.findall(r"^ {4,}(\S.*)$", text, re.MULTILINE)
    lines += re.findall(rf"`({PROGRAM}[^`]*)`", text)
    return [command for line in lines for command in commands_of_line(line)]


def parse(arguments):
    """Parses and checks flags as launch.py does before its work begins; returns the config."""
    argv = ["launch.py", *arguments]
    with flagsaver.flagsaver(), mock.patch.object(sys, "argv", argv):
        paths = [Path(word) for word in cli.parse(argv, launch.QUICKSTART)[1:]]
        mode, config = launch.flags.FLAGS["mode"].value, launch.flags.FLAGS["config"].value
        cli.check_flags(mode, cli.given_flags(), paths, config.system in launch.MANY)
        if config.system not in launch.MANY:
            systems.check(config)
        return config


def test_every_command_parses(monkeypatch):
    monkeypatch.chdir(ROOT)
    sources = [*PAGES, *(ROOT / "configs").glob("*.py"), cli.HELP]
    commands = [command for path in sources for command in commands_of(path)]
    assert len(commands) > 80
    for command in commands:
        if command != ["--help"]:
            parse(command)


@pytest.mark.slow
def test_backbones_have_the_layers_that_commands_name(monkeypatch):
    monkeypatch.chdir(ROOT)
    commands = commands_of(ROOT / "docs" / "backbones.md")
    assert len(commands) == 2
    for command in commands:
        on_pictures.check_built(parse(command))


@pytest.mark.parametrize(
    "line",
    [
        "python launch.py --config=configs/ds_am_elra.py --config.picture.sice=3",
        "srun --wrap='python launch.py --checkpont=runs/x' --hold  # a comment",
        "cat a.wav | python launch.py --mode=train - | head",
        "python launch.py --fold=1 --mode=export",
    ],
)
def test_a_wrong_command_would_be_noticed(line, monkeypatch):
    monkeypatch.chdir(ROOT)
    (command,) = commands_of_line(line)
    with pytest.raises((SystemExit, ValueError)):
        parse(command)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_and_paths_resolve(page):
    text = page.read_text(encoding="utf-8")
    assert len(commands_of(page)) == text.count(PROGRAM)  # none lies outside of the code
    for target, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", text):
        file = page.parent / target if target else page
        assert file.exists(), target
        titles = re.findall(r"^#+ (.*)$", file.read_text("utf-8"), re.MULTILINE) if anchor else ""
        names = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
        assert not anchor or anchor in names
    paths = re.findall(r"(?<![\w/])(?:datasets|ds_jax|docs|configs|tests)/[\w/.]*\w", text)
    paths += re.findall(r"[\w/]*requirements[\w-]*\.txt", text)
    modules = re.findall(r"python -m (benchmarks\.\w+)", text)
    for path in [*paths, *(f"{name.replace('.', '/')}.py" for name in modules)]:
        assert (ROOT / path).exists(), path


def test_all_corpora_and_experiments_are_listed():
    licences = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    for readme in (ROOT / "datasets").glob("*/README.md"):
        assert f"](../{readme.relative_to(ROOT)})" in licences
    table = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    patterns = re.findall(r"`([a-z_*]+\.py)`", table)
    files = [set((ROOT / "configs").glob(pattern)) for pattern in patterns]
    assert all(files)
    unlisted = set((ROOT / "configs").glob("*.py")) - set.union(*files)
    assert {path.stem for path in unlisted} == {"base", "deepspectrum"}


def scaled_down(command, weights):
    """Returns a command with few pixels, one epoch, two folds and random weights."""
    options = dict(argument.partition("=")[::2] for argument in command)
    if options.get("--mode", "train") not in ("train", "features", "corpus"):
        return command  # a run's own config rules
    if options["--config"] in ("configs/paper.py", "configs/ladder.py"):
        # Their cells have tests; here all are missing.
        return [*command, "--corpora_dir=nothing", "--data_dir=nothing"]
    config = runpy.run_path(str(ROOT / options["--config"]))["get_config"]().to_dict()
    if config.get("picture", {}).get("layout") == "timeline":  # of any width, and never resized
        del config["picture"]["canvas"], config["picture"]["size"]
    for name, value in {**SMALL, "weights": weights}.items():
        group, _, field = name.rpartition(".")
        if field in (config.get(group, {}) if group else config):
            command = [*command, f"--config.{name}={value}"]
    return command


def write_interviews(folder):
    """Writes the table of the first hour, and recordings for it."""
    text = (ROOT / "docs" / "first_hour.md").read_text(encoding="utf-8")
    rows = re.search(r"^    Datei;.*\n(    .*\n)+", text, re.MULTILINE)[0].split()
    for seed, name in enumerate(sorted({row.partition(";")[0] for row in rows[1:]})):
        recordings.sound(folder / name, seed, 4.0)
    (folder / "manifest.csv").write_text("\n".join(rows), encoding="utf-8")


@pytest.mark.slow
def test_every_command_runs(tmp_path, weights_file, monkeypatch):
    monkeypatch.delenv("DS_JAX_CORPORA", raising=False)
    names, rows = ["a.wav", "folder/b.wav", "folder/anger/c.wav"], ["path,label,speaker"]
    names += [f"zoe/{number}.wav" for number in range(10)]
    for speaker, take, label in itertools.product("123", "12", LABELS):
        names.append(f"corpora/robots/{speaker}/{label}{take}.wav")
        rows.append(f"{speaker}/{label}{take}.wav,{label},robot{speaker}")
    for speaker, text, emotion in itertools.product(("03", "08", "09"), "123", "WEAFNT"):
        names.append(f"corpora/emodb/wav/{speaker}a0{text}{emotion}a.wav")
    for speaker, emotion in itertools.product(("f1", "m1", "m2"), EMOVO):
        names.append(f"corpora/emovo/{speaker}/{emotion}-{speaker}-b1.wav")
    for seed, name in enumerate(names):
        recordings.sound(tmp_path / name, seed, 0.5)
    (tmp_path / "corpora" / "robots" / "manifest.csv").write_text("\n".join(rows))
    write_interviews(tmp_path / "corpora" / "interviews")
    (tmp_path / "nothing").mkdir()
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    commands = [command for page in TO_RUN for command in commands_of(page) if command]
    assert len(commands) > 15
    printed = ""
    for command in commands:
        with open(tmp_path / "a.wav", "rb") as stdin:
            finished = subprocess.run(
                [sys.executable, ROOT / "launch.py", *scaled_down(command, weights_file)],
                cwd=tmp_path,
                stdin=stdin,
                capture_output=True,
                text=True,
            )
        assert finished.returncode == 0, (command, finished.stdout, finished.stderr)
        printed += finished.stdout
    for folder, files in RESULTS.items():
        for name in files.split():
            assert (tmp_path / folder / name).exists(), name
    leaking = tmp_path / "runs" / "emodb_leaking" / "report.json"
    assert '"selected_on": "test"' in leaking.read_text()
    assert "data:audio/flac" in (tmp_path / "runs" / "robots" / "report.html").read_text()
    assert list((tmp_path / "pictures").glob("*.svg"))
    header, *table = (tmp_path / "features.csv").read_text().splitlines()
    assert header.startswith("name,neuron_0,")
    assert len(table) == 2
    assert "folder/anger/c.wav" in printed
    for said in ("label = Stimmung, speaker = Sprecherin, start = von, end = bis", "unklar (1)"):
        assert said in printed
        assert said in (ROOT / "docs" / "first_hour.md").read_text(encoding="utf-8")
    report = json.loads((tmp_path / "runs" / "interviews" / "report.json").read_text())
    assert (report["n"], report["labels"]) == (6, ["Freude", "Langeweile"])
    assert report["other_labels"] == {"unklar": 1}
    assert set(report["speakers"]) == {"Ana", "Bea", "Eva"}
