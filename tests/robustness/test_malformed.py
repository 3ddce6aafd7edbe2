"""Malformed recordings stop no others, and each one that is skipped is named.

The slow tests, `pytest -m slow tests/robustness/test_malformed.py -s`, take all `malformed.cases`
through every builder and predict, in processes with limited time and memory.
"""

import csv
import dataclasses
import functools
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import malformed
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from datasets import base, workers
from datasets.prepare import prepare
from ds_jax.commands import predict
from ds_jax.data import recordings
from ds_jax.data.corpus import load
from ds_jax.data.labels import LABELS
from ds_jax.features import audio, source, spectrogram
from ds_jax.features.audio import Windowing
from ds_jax.features.extract import FeatureSettings
from ds_jax.features.spectrogram import PictureSettings
from ds_jax.runtime.files import path_text

ROOT = Path(__file__).parents[2]
SMALL = PictureSettings(canvas=16)
PICTURES = {
    "picture": PictureSettings(),
    "windows": PictureSettings(canvas=16, window=0.5, window_hop=0.25),
    "chroma": PictureSettings(canvas=16, mode="chroma", sample_rate=0),
}
FEATURES = ("msf", "mfcc", "mfcc_frames", "egemaps", "compare")
# For some 450 recordings: chroma took 20 minutes while others used the machine. An hour is a hang.
SECONDS = 3600
# The limit of a process that reads half an hour at once: chroma's tuning and ComParE need most.
MEGABYTES = 2500
MANY = malformed.cases()


def few() -> list[malformed.Case]:
    """A fortieth of the cases that are alike, and every third of the others, odd names included."""
    alike, others = divided()
    return others[::3] + alike[::40]


def divided() -> tuple[list[malformed.Case], list[malformed.Case]]:
    """The cases that are alike, and the others."""
    alike = [case for case in MANY if "fuzzed" in case.kind or " cut at " in case.kind]
    return alike, [case for case in MANY if case not in alike]


def write_manifest(folder: Path, names) -> None:
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "speaker"))
        writer.writerows((name, LABELS[i % 7], f"s{i % 9}") for i, name in enumerate(names))


def lay_out(corpora: Path, corpus: str, cases) -> dict[str, malformed.Case]:
    found = malformed.lay_out(corpora / corpus, corpus, cases)
    if corpus == "manifest":
        write_manifest(corpora / corpus, found)
    return found


def check(placed: dict[str, malformed.Case], used: set[str], skipped: dict[str, str]) -> None:
    """Checks that each file is either used or skipped with a reason, as its case demands."""
    assert not used & set(skipped)
    assert used | set(skipped) == {path_text(name) for name in placed}
    for name, case in placed.items():
        assert case.usable in (None, path_text(name) in used), case.kind
    for name, reason in skipped.items():
        assert len(reason) > 8, name
        assert "Traceback" not in reason


def check_prepared(builder, corpus: str, placed) -> tuple[int, int]:
    prepared = load(builder, corpus)
    text = (Path(builder.data_path) / "skipped.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines(keepends=True)))
    assert (len(prepared.utterances), len(prepared.skipped)) == (len(placed) - len(rows), len(rows))
    assert np.isfinite(prepared.inputs[0]).any()
    names = {builder_name(corpus, name): path_text(name) for name in placed}
    used = {names[utterance.name] for utterance in prepared.utterances}
    check(placed, used, {row["file"]: row["reason"] for row in rows})
    return len(used), len(rows)


def builder_name(corpus: str, relative: str) -> str:
    """Returns the name of a file's utterance."""
    path = Path(relative)
    if corpus == "manifest":
        return relative
    return path_text(f"f/{path.parent.name}/{path.stem}" if corpus == "elra_s0329" else path.stem)


@pytest.fixture(autouse=True)
def _without_totals(monkeypatch):
    monkeypatch.setattr(base.CorpusBuilder, "totals", ())


@pytest.fixture(scope="module")
def fitted(finished_runs):
    """A run of a classifier of features, which needs no weights."""
    return finished_runs("mlr")


@pytest.mark.parametrize("corpus", ["elra_s0329", "manifest"])
def test_builders_name_what_they_skip(corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(workers.loky, "cpu_count", lambda: 1)
    placed = lay_out(tmp_path, corpus, few())
    builder = prepare(corpus, tmp_path, tmp_path / "data", SMALL)
    used, skipped = check_prepared(builder, corpus, placed)
    assert used > 25
    assert skipped > 25
    assert f"{used} utterances, {skipped} skipped" in capsys.readouterr().out


def check_answered(output: dict, placed: dict, folder: Path) -> None:
    """Checks that predict's output has windows of each recording, or the reason for none."""
    start = f"{folder}/"
    used = {one["recording"].removeprefix(start) for one in output["recordings"]}
    reasons = {one["recording"].removeprefix(start): one["reason"] for one in output["unusable"]}
    reasons = {name: reason for name, reason in reasons.items() if name not in used}
    check(placed, used, reasons)


@pytest.mark.parametrize("window", [0.0, 0.2])
def test_predict_answers_or_names_each(fitted, tmp_path, capsys, window):
    placed = malformed.lay_out(tmp_path / "odd", "", few())
    with pytest.raises(ValueError, match="could not be used") as error:
        predict.run(fitted, [tmp_path / "odd"], "json", window)
    output = json.loads(capsys.readouterr().out)
    check_answered(output, placed, tmp_path / "odd")
    count = len(output["unusable"])
    lines = str(error.value).split("\n")
    assert lines[0].startswith(f"{count} ")
    assert len(lines) == 1 + count  # a name with a newline in it adds none
    assert all(line.isprintable() for line in lines)


def test_the_table_of_predictions_has_a_printable_line_for_each(fitted, tmp_path, capsys):
    named = [case for case in MANY if case.name]
    malformed.lay_out(tmp_path / "odd", "", named)
    predict.run(fitted, [tmp_path / "odd"])
    lines = capsys.readouterr().out.split("\n")
    assert len(lines) == 1 + len(named) + 1
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_pipes_devices_and_broken_links_are_never_opened(suffix, tmp_path):
    """Opening a pipe would wait for a writer for ever."""
    reasons = dict.fromkeys(("a pipe", "a socket", "/dev/zero"), "pipe or device")
    reasons |= dict.fromkeys(("a dangling link", "a link to itself"), "leads nowhere")
    seen = []
    for case in MANY:
        if case.kind.endswith(suffix) and (kind := case.kind.removesuffix(f" {suffix}")) in reasons:
            path = tmp_path / f"{kind.replace('/', ' ')}{suffix}"
            case.make(path)
            for decode in (
                lambda path=path: audio.read(path, 16_000),
                lambda path=path: next(audio.windows(path, 16_000, Windowing(1.0))),
            ):
                with pytest.raises(ValueError, match=reasons[kind]):
                    decode()
            seen.append(kind)
    assert sorted(seen) == sorted(reasons)
    with pytest.raises(ValueError, match="is a folder"):
        audio.read(tmp_path, 16_000)


def test_circles_of_links_are_walked_once(tmp_path):
    """Two links to the folder that they are in would double the paths with each level."""
    (tmp_path / "deep").mkdir()
    for folder in (tmp_path, tmp_path / "deep"):
        for number in range(6):
            (folder / f"circle{number}").symlink_to(tmp_path)
    (tmp_path / "deep/a.wav").touch()
    began = time.monotonic()
    assert base.audio_files(tmp_path) == [tmp_path / "deep/a.wav"]
    assert [one.path for one in recordings.find([tmp_path])[0]] == [tmp_path / "deep/a.wav"]
    assert time.monotonic() - began < 5


# Lengths and levels.


def test_too_long_a_recording_is_named_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "LONGEST", 1.0)
    soundfile.write(tmp_path / "a.wav", malformed.speech(1.01), 16_000)
    soundfile.write(tmp_path / "b.wav", malformed.speech(1.0), 16_000)
    with pytest.raises(ValueError, match=r"a\.wav is longer than"):
        audio.read(tmp_path / "a.wav", 16_000)
    assert len(audio.read(tmp_path / "b.wav", 16_000)[0]) == 16_000
    assert len(list(audio.windows(tmp_path / "a.wav", 16_000, Windowing(0.5)))) == 2
    monkeypatch.undo()
    with (tmp_path / "sparse.l16").open("wb") as file:  # of 8 GB, and 38 hours
        file.write(b"\1\0" * 1000)
        file.truncate(8 << 30)
    began = time.monotonic()
    with pytest.raises(ValueError, match=r"sparse\.l16 is longer than"):
        audio.read(tmp_path / "sparse.l16", 16_000)
    assert time.monotonic() - began < 60


def test_many_channels_need_little_memory(tmp_path, monkeypatch):
    path, asked = tmp_path / "a.wav", []
    soundfile.write(path, np.tile(malformed.speech(0.5), 64), 16_000)
    read = soundfile.SoundFile.read
    monkeypatch.setattr(
        soundfile.SoundFile, "read", lambda self, n, **how: asked.append(n) or read(self, n, **how)
    )
    np.testing.assert_allclose(audio.read(path, 0)[0], malformed.speech(0.5)[:, 0], atol=1e-4)
    assert max(asked) * 64 <= source.BLOCK


@pytest.mark.parametrize(("rate", "passes"), [(999, False), (1000, True), (768_001, False)])
def test_an_impossible_rate_is_an_error(tmp_path, rate, passes):
    soundfile.write(tmp_path / "a.wav", malformed.speech(1.0, rate), rate)
    if passes:
        assert len(audio.read(tmp_path / "a.wav", 16_000)[0]) == 16_000
        return
    with pytest.raises(ValueError, match=rf"a\.wav is damaged.*{rate} Hz"):
        audio.read(tmp_path / "a.wav", 16_000)


# Properties.

PATIENT = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
# The beginnings of files, so that decoding does not always end at the first four bytes.
WHOLE = [malformed.encoded(form=form) for form in ("WAV", "FLAC", "RF64", "AIFF")]
BEGINNINGS = st.sampled_from([b"", *(one[:size] for one in WHOLE for size in (12, 44, 200, 3000))])


@PATIENT
@given(
    beginning=BEGINNINGS,
    rest=st.binary(max_size=400),
    suffix=st.sampled_from([".wav", ".flac", ".l16", ".mp3"]),
)
def test_any_bytes_are_samples_or_a_valueerror_that_names_the_file(
    tmp_path, beginning, rest, suffix
):
    path = tmp_path / f"any{suffix}"
    path.write_bytes(beginning + rest)
    try:
        samples, rate, refusal = *audio.read(path, 16_000), ""
    except ValueError as error:
        refusal = str(error)
    if refusal:
        assert str(path) in refusal
        with pytest.raises(ValueError, match=re.escape(refusal)):
            list(audio.windows(path, 16_000, Windowing(0.01)))
        return
    assert (samples.dtype, samples.ndim, rate) == (np.float32, 1, 16_000)
    assert samples.size
    assert np.isfinite(samples).all()


FINITE = st.floats(-audio.LOUDEST, audio.LOUDEST, width=32)


# librosa compiles for twenty seconds before the first picture of pitch classes.
@pytest.mark.parametrize(
    "mode", ["mel", "spectrogram", pytest.param("chroma", marks=pytest.mark.slow)]
)
@PATIENT
@given(
    samples=arrays.arrays(np.float32, st.integers(1, 1200), elements=FINITE),
    rate=st.sampled_from([1000, 8000, 16_000, 44_100, 192_000]),
    layout=st.sampled_from(["deepspectrum", "plain"]),
    canvas=st.integers(16, 60),
    floor=st.sampled_from([0.0, 40.0]),
)
def test_any_finite_samples_can_be_drawn(samples, rate, mode, layout, canvas, floor):
    wanted = PictureSettings(
        sample_rate=0, mode=mode, layout=layout, canvas=canvas, floor_db=floor, mel_bands=4
    )
    drawn = spectrogram.draw(samples, rate, wanted)
    assert (drawn.shape, drawn.dtype) == ((canvas, canvas), np.uint8)
    wanted = PictureSettings(sample_rate=0, layout="timeline", mel_bands=32, floor_db=floor)
    drawn = spectrogram.draw(samples, 16_000, wanted)
    assert (drawn.shape[0], drawn.dtype) == (32, np.uint8)
    assert drawn.min() >= 1  # 0 is what pads


# All of them: slow.


def run_within_limits(*program: object, status: int) -> tuple[str, str]:
    """Runs a program in limited time and memory; returns what it printed."""
    command = [sys.executable, "-c", MEASURE, *map(str, program)]
    began = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=SECONDS)
    seconds = time.monotonic() - began
    printed, megabytes = done.stdout.decode().rsplit("MEGABYTES", 1)
    error = done.stderr.decode("utf-8", "surrogateescape")
    assert done.returncode == status, error[-3000:]
    assert "Traceback" not in error
    print(f"\n{seconds:.0f} s, {megabytes.strip()} MB")
    assert float(megabytes) < MEGABYTES
    return printed, error


# Runs a program, and prints the memory of its largest process.
MEASURE = """
import resource, subprocess, sys
status = subprocess.run([sys.executable, *sys.argv[1:]]).returncode
print("\\nMEGABYTES", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
sys.exit(status)
"""
PREPARE = """
import json, sys
from pathlib import Path
from datasets import base
from datasets.prepare import prepare
from ds_jax.features.extract import FeatureSettings
from ds_jax.features.spectrogram import PictureSettings
base.CorpusBuilder.totals = ()
corpus, folder, fields = sys.argv[1:]
fields = json.loads(fields)
wanted = FeatureSettings(fields["set"]) if "set" in fields else PictureSettings(**fields)
prepare(corpus, Path(folder), Path(folder) / "data", wanted)
"""


@pytest.fixture(scope="module")
def everything(tmp_path_factory) -> list[malformed.Case]:
    """All cases, one of half an hour and one of two hours, which are written once."""
    folder, long = tmp_path_factory.mktemp("long"), []
    for kind, minutes, usable in (("half an hour", 30, True), ("two hours", 121, False)):
        malformed.write_long(folder / f"{kind}.flac", minutes)
        link = functools.partial(os.link, folder / f"{kind}.flac")
        long.append(malformed.Case(kind, ".flac", link, usable))
    return MANY + long


@pytest.mark.slow
@pytest.mark.parametrize("corpus", malformed.EMOTIONS)
def test_every_builder_survives_each_kind_of_them(corpus, tmp_path):
    """What decodes is the same for all builders: the next test takes all cases through it."""
    alike, others = divided()
    check_survived(corpus, "picture", others + alike[::10], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*PICTURES, *FEATURES])
def test_pictures_and_features_survive_all_of_them(kind, everything, tmp_path):
    check_survived("manifest", kind, everything, tmp_path)


def check_survived(corpus: str, kind: str, cases: list[malformed.Case], tmp_path: Path) -> None:
    """Prepares cases as a corpus, and checks that each is used or named."""
    placed = lay_out(tmp_path, corpus, cases)
    wanted = PICTURES.get(kind) or FeatureSettings(kind)
    fields = json.dumps(dataclasses.asdict(wanted))
    printed, _ = run_within_limits("-c", PREPARE, corpus, tmp_path, fields, status=0)
    builder = prepare(corpus, tmp_path, tmp_path / "data", wanted)
    used, skipped = check_prepared(builder, corpus, placed)
    assert f"{used} utterances, {skipped} skipped" in printed


@pytest.mark.slow
@pytest.mark.parametrize("window", [0.0, 5.0])
def test_predict_survives_all_of_them(window, fitted, everything, tmp_path):
    placed = malformed.lay_out(tmp_path / "odd", "", everything)
    arguments = (f"--checkpoint={fitted}", "--format=json", f"--window={window}", tmp_path / "odd")
    printed, error = run_within_limits("launch.py", "--mode=predict", *arguments, status=1)
    output = json.loads(printed)
    if window:  # of any length
        placed = {
            name: case._replace(usable=True) if case.kind == "two hours" else case
            for name, case in placed.items()
        }
    check_answered(output, placed, tmp_path / "odd")
    assert f"error: {len(output['unusable'])} could not be used" in error
