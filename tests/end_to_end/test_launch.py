"""End to end: the real program, in processes of its own, on a small corpus and few pixels."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny

from ds_jax import cli
from ds_jax.data.labels import LABELS
from ds_jax.evaluation import summary
from ds_jax.runtime import shutdown, versions

ROOT = Path(__file__).parents[2]
# One step differs by rounding alone; Adam, which follows a gradient's sign, makes more of it over
# two epochs of noise. At the published weights and rates 1e-5 is kept, see test_devices.py.
AFTER_TWO_EPOCHS = 5e-3
SMALL = (
    "--config.picture.canvas=48",
    "--config.picture.size=32",
    "--config.train.batch_size=16",
)
# Heads alone compile soon.
HEADS = (
    "--config.model.freeze=block5",
    "--config.model.gates=('block5_pool',)",
    "--config.model.loss_weights=(1.0,)",
)


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """A corpus of one's own: six speakers who say seven chirps, one of them unreadable."""
    folder = tmp_path_factory.mktemp("corpora") / "chirps"
    folder.mkdir()
    rows, seconds = ["path,label,speaker,sentence"], np.arange(8000) / 16_000
    for speaker in range(6):
        for number, label in enumerate(LABELS):
            name = f"s{speaker}_{label.lower()}.wav"
            phase = 2 * np.pi * (200 + 30 * speaker + 250 * number * seconds) * seconds
            soundfile.write(folder / name, 0.4 * np.sin(phase), 16_000)
            rows.append(f"{name},{label},s{speaker},chirp{number}")
    (folder / "s0_joy.wav").write_text("this is no audio")
    (folder / "manifest.csv").write_text("\n".join(rows))
    return folder.parent


def command(*arguments):
    return [sys.executable, "launch.py", *map(str, arguments)]


def launch(*arguments, environment=None, **options):
    return subprocess.run(
        command(*arguments),
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=600,
        **options,
    )


def start_until(path, *arguments):
    """Starts the program, and returns its process as soon as it has written a file."""
    process = subprocess.Popen(
        command(*arguments),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 300
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return process


def experiment(corpora, weights_file, workdir, *more):
    return (
        "--config=configs/ds_am_emomatch.py",
        "--config.corpus=chirps",
        "--config.folds.count=2",
        "--config.train.epochs=2",
        f"--config.weights={weights_file}",
        f"--corpora_dir={corpora}",
        f"--data_dir={corpora.parent / 'prepared'}",
        f"--workdir={workdir}",
        *SMALL,
        *HEADS,
        *more,
    )


@pytest.fixture(scope="module")
def undisturbed(corpora, weights_file, tmp_path_factory):
    """A finished run and what it printed."""
    workdir = tmp_path_factory.mktemp("undisturbed")
    done = launch(*experiment(corpora, weights_file, workdir))
    assert done.returncode == 0, done.stderr
    return workdir, done.stdout


def probabilities(workdir):
    rows = (workdir / "fold_00" / "predictions.csv").read_text().splitlines()[1:]
    return np.asarray([row.split(",")[-7:] for row in rows], float)


def folds_of(workdir):
    return sorted(workdir.glob("fold_*/predictions.csv"))


def test_a_run_ends_in_a_report(undisturbed):
    workdir, printed = undisturbed
    assert "41 utterances, 1 skipped" in printed
    report = json.loads((workdir / "report.json").read_text())
    assert (report["n"], report["corpus"], report["skipped"]) == (41, "chirps", 1)
    assert report["shared"] == {"speakers": 0, "sentences": 14, "recordings": 0}
    page = (workdir / "report.html").read_text()
    assert page.count("data:image/png") >= 6
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status", "sentence"),
    [
        (signal.SIGKILL, -signal.SIGKILL, ""),
        (signal.SIGTERM, shutdown.STATUS, f"stopped by SIGTERM: {shutdown.ADVICE}\n"),
    ],
    ids=["SIGKILL", "SIGTERM"],
)
def test_stopped_in_the_second_fold_it_ends_with_the_same_bytes(
    undisturbed, corpora, weights_file, tmp_path, number, status, sentence
):
    arguments = experiment(corpora, weights_file, tmp_path / "run")
    second = tmp_path / "run" / "fold_01"
    stopped = start_until(second / "checkpoints" / "1", *arguments)
    stopped.send_signal(number)
    assert stopped.communicate(timeout=300)[1] == sentence
    assert stopped.returncode == status
    assert (second / "checkpoints" / "1").exists()
    assert not (second / "predictions.csv").exists()
    done = launch(*arguments)
    assert done.returncode == 0, done.stderr
    assert "going on after epoch" in done.stdout
    before, after = folds_of(undisturbed[0]), folds_of(tmp_path / "run")
    assert len(before) == len(after) == 2
    for one, other in zip(before, after, strict=True):
        assert one.read_bytes() == other.read_bytes()
    (before, folds), (after, same_folds) = (
        (summary.read(run / "report.json"), (run / "folds.json").read_bytes())
        for run in (undisturbed[0], tmp_path / "run")
    )
    assert before == after  # but for how they were made
    assert folds == same_folds
    assert before.made["versions"] == after.made["versions"]


@pytest.mark.slow
def test_two_processes_give_the_probabilities_of_one(undisturbed, corpora, weights_file, tmp_path):
    address = f"127.0.0.1:{tiny.free_port()}"
    shared = {"JAX_COORDINATOR_ADDRESS": address, "DS_JAX_PROCESSES": "2"}
    arguments = experiment(corpora, weights_file, tmp_path, "--fold=0", "--distributed")
    both = [
        subprocess.Popen(
            command(*arguments),
            cwd=ROOT,
            env={**os.environ, **shared, "DS_JAX_PROCESS": str(process)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for process in range(2)
    ]
    printed = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], printed
    assert "folds still to run: 1" in printed[0]
    assert "epoch" not in printed[1]
    np.testing.assert_allclose(
        probabilities(tmp_path), probabilities(undisturbed[0]), atol=AFTER_TWO_EPOCHS
    )


def predictions(text):
    rows = list(csv.DictReader(io.StringIO(text)))
    return {row["recording"]: [float(row[label]) for label in LABELS] for row in rows}


@pytest.mark.slow
def test_a_folder_is_predicted_on_any_number_of_devices(undisturbed, corpora):
    fold = undisturbed[0] / "fold_00"
    arguments = ("--mode=predict", f"--checkpoint={fold}", "--format=csv", corpora)
    one, eight = (
        launch(*arguments, environment={"JAX_NUM_CPU_DEVICES": count}) for count in ("1", "8")
    )
    for done in (one, eight):
        assert done.returncode == 1
        joy = f"error: {corpora}/chirps/s0_joy.wav cannot be decoded"
        assert done.stderr.splitlines()[-1].startswith(joy)
    alone, shared = predictions(one.stdout), predictions(eight.stdout)
    assert list(alone) == list(shared)
    assert len(alone) == 41
    np.testing.assert_allclose(list(shared.values()), list(alone.values()), atol=1e-5)


@pytest.mark.slow
def test_two_processes_on_one_fold_keep_out_of_each_others_way(corpora, weights_file, tmp_path):
    arguments = experiment(corpora, weights_file, tmp_path, "--config.train.epochs=50", "--fold=1")
    owner = start_until(tmp_path / "fold_01" / "checkpoints", *arguments)
    try:
        refused = launch(*arguments)
        held = f"error: fold 1 of {tmp_path} is in the hands of process {owner.pid} of "
        assert refused.stderr.startswith(held)
        assert "wait for its end, or choose other folds by --fold" in refused.stderr
        assert refused.returncode == 1
        assert owner.poll() is None
    finally:
        owner.kill()
        owner.communicate()


@pytest.mark.slow
def test_the_quick_start_crosses_corpora(weights_file, tmp_path):
    done = launch(
        f"--workdir={tmp_path}",
        "--config.train.epochs=1",
        "--config.folds.count=2",
        "--config.model.freeze=block4",
        f"--config.weights={weights_file}",
        *SMALL,
    )
    assert done.returncode == 0, done.stderr
    assert "SYNTHETIC" in done.stdout
    for report in (tmp_path, tmp_path / "evaluations" / "elra_s0329"):
        assert json.loads((report / "report.json").read_text())["synthetic"]
        assert "synthetic" in (report / "report.html").read_text().lower()
    refused = launch("--mode=evaluate", "--eval_on=emodb", f"--workdir={tmp_path}")
    assert "--eval_on='emodb': synthetic speech is" in refused.stderr
    assert "published" not in done.stderr  # the counts of the licensed corpora are not expected


def imported(done) -> set[str]:
    """Returns the modules that a program with `-X importtime` has imported."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


def sentences(done) -> list[str]:
    """Returns what such a program has said besides."""
    return [line for line in done.stderr.splitlines() if not line.startswith("import time:")]


def run_with_import_times(*arguments):
    program = [sys.executable, "-X", "importtime", "launch.py", *map(str, arguments)]
    return subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=300)


HEAVY = {"jax", "flax", "sklearn", "tensorflow_datasets"}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("--config.picture.sice=3", "picture.size"),
        ("--config=configs/ds_am_embodb.py", "configs/ds_am_emodb.py"),
        ("--mode=trian", "the nearest is train"),
        ("--config.train.epochs=few", "--config.train.epochs=few"),
        ("--fold=x", "--fold=x"),
        ("--mode=predict --corpora_dir=x a.wav", "--corpora_dir"),
        ("--mode=evaluate --workdir={}", "config.json"),
    ],
)
def test_a_mistake_is_one_sentence_before_anything_heavy_is_imported(arguments, named, tmp_path):
    done = run_with_import_times(*arguments.format(tmp_path).split())
    (sentence,) = sentences(done)
    assert done.returncode == 1
    assert sentence.startswith("error: ")
    assert named in sentence
    assert not (HEAVY | {"numpy", "scipy"}) & imported(done)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("field", ["picture.size=10", "corpus=nowhere", "model.freeze=block9"])
def test_a_value_that_cannot_be_is_named_before_jax_is_imported(field, tmp_path):
    done = run_with_import_times(f"--config.{field}", f"--workdir={tmp_path}")
    (sentence,) = sentences(done)
    name, _, value = field.partition("=")
    assert done.returncode == 1
    assert sentence.startswith("error: ")
    assert name in sentence
    assert value in sentence
    assert not HEAVY & imported(done)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("flag", ["--help", "-h", "--version", "--helpfull"])
def test_help_and_version_answer_at_once(flag):
    done = run_with_import_times("--mode=predict", flag)
    help_text = cli.HELP.read_text(encoding="utf-8")
    printed = {"--version": f"ds_jax {versions.program()}\n"}.get(flag, help_text)
    if flag == "--helpfull":  # is absl's
        assert "--stderrthreshold" in done.stdout
    else:
        assert (done.returncode, done.stdout) == (0, printed)
    assert not (HEAVY | {"numpy"}) & imported(done)
