"""One's own recordings get seven probabilities, in the form and the pieces that are asked for."""

import csv
import io
import json
import shutil
import subprocess
import sys

import ml_collections
import numpy as np
import pytest
import soundfile
import tiny
from PIL import Image

from ds_jax.commands import predict, train
from ds_jax.data import recordings
from ds_jax.data.corpus import LABELS
from ds_jax.features import representation
from ds_jax.models import pretrained
from ds_jax.systems import base as systems
from ds_jax.systems import network

pytestmark = pytest.mark.usefixtures("narrow")


def tone(path, rate=16_000, channels=1, seconds=1.0, pitch=220):
    time = np.arange(int(rate * seconds)) / rate
    wave = 0.3 * np.sin(2 * np.pi * pitch * time) + 0.1 * np.sin(2 * np.pi * 1760 * time)
    soundfile.write(path, np.stack([wave] * channels, axis=1), rate)
    return path


def answers(capsys, *arguments, **options):
    """What csv says: for each row its recording, start, end, prediction and probabilities."""
    predict.run(*arguments, form="csv", **options)
    return rows(capsys.readouterr().out)


def rows(text):
    header, *lines = csv.reader(io.StringIO(text))
    assert header == ["recording", "start", "end", "prediction", *LABELS]
    return [
        (line[0], float(line[1]), float(line[2]), line[3], np.asarray(line[4:], float))
        for line in lines
    ]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    tone(tmp_path / "mono.wav", pitch=300)
    tone(tmp_path / "stereo.wav", 48_000, 2, 0.8)
    tone(tmp_path / "sub" / "niño, el 2º.flac", 8_000, 1, 0.3)
    return tmp_path


def test_every_recording_gets_a_distribution(run, folder, capsys):
    said = answers(capsys, run, [folder])
    assert [one[0].removeprefix(f"{folder}/") for one in said] == [
        "mono.wav",
        "stereo.wav",
        "sub/niño, el 2º.flac",
    ]
    assert [one[1:3] for one in said] == [(0, 1), (0, 0.8), (0, 0.3)]
    for _, _, _, label, shares in said:
        assert shares.sum() == pytest.approx(1, abs=1e-9)
        assert label == LABELS[shares.argmax()]
    assert len({tuple(one[4]) for one in said}) == 3


def test_answers_are_what_the_models_say_of_the_pictures(run, folder, capsys):
    said = answers(capsys, run, [folder])
    settings = representation.settings(network.load_config(run / "fold_00" / "checkpoints"))
    found, _ = recordings.find([folder])
    pictures = np.stack([representation.read(one.path, settings)[1][0] for one in found])
    every = dict.fromkeys(predict.find_checkpoints(run), np.arange(3))
    judged = [one.probabilities for _, one in network.predict_from_checkpoints(every, pictures)]
    assert len(judged) == 3
    np.testing.assert_allclose([one[4] for one in said], np.mean(judged, axis=0), atol=1e-6)


def test_a_run_is_the_mean_of_its_folds(run, folder, capsys):
    shares = [answers(capsys, run / f"fold_{n:02}", [folder / "mono.wav"])[0][4] for n in range(3)]
    together = answers(capsys, run, [folder / "mono.wav"])[0][4]
    np.testing.assert_allclose(together, np.mean(shares, axis=0), atol=1e-6)
    assert np.std(shares, axis=0).max() > 1e-3


def test_an_unfinished_fold_has_no_say(run, folder, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "fold_02" / "predictions.csv").unlink()
    (tmp_path / "run" / "fold_03" / "checkpoints").mkdir(parents=True)
    shares = [
        answers(capsys, trained, [folder / "mono.wav"])[0][4]
        for trained in (run / "fold_00", run / "fold_01", tmp_path / "run")
    ]
    np.testing.assert_allclose(shares[2], np.mean(shares[:2], axis=0), atol=1e-6)


def test_the_table_is_for_people(run, folder, capsys):
    predict.run(run, [folder])
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["start", "end", "prediction", *LABELS]
    assert len(lines) == 3
    assert len({line.rindex(".") for line in (header, *lines) if "." in line}) == 1  # columns
    for line in lines:
        start, _, prediction, *shares = line.removeprefix(str(folder)).split()[-10:]
        assert (start, prediction) == ("0.00", LABELS[np.argmax(np.asarray(shares, float))])


def test_json_says_the_same_and_more(run, folder, capsys):
    said = answers(capsys, run, [folder], window=0.25)
    (folder / "bad.wav").write_text("no audio")
    with pytest.raises(ValueError, match="bad"):
        predict.run(run, [folder, folder / "mono.wav", folder / "mono.wav"], "json", 0.25)
    told = json.loads(capsys.readouterr().out)
    assert set(told) == {"system", "models", "synthetic", "labels", "recordings", "unusable"}
    assert told["synthetic"] is False
    assert (told["system"], told["models"], told["labels"]) == ("DS-AM", 3, list(LABELS))
    (unusable,) = told["unusable"]
    assert unusable["recording"] == f"{folder}/bad.wav"
    assert unusable["reason"].startswith(f"{folder}/bad.wav cannot be decoded")
    counts = [len(one["windows"]) for one in told["recordings"]]
    assert counts == [4, 4, 2, 4, 4]  # one that is given twice is answered twice
    mono = told["recordings"][0]
    assert set(mono) == {"recording", "seconds", "prediction", "probabilities", "windows"}
    assert (mono["recording"], mono["seconds"]) == (f"{folder}/mono.wav", 1.0)
    for window, (_, start, end, prediction, shares) in zip(mono["windows"], said[:4], strict=True):
        assert (window["start"], window["end"], window["prediction"]) == (start, end, prediction)
        assert list(window["probabilities"]) == list(LABELS)
        np.testing.assert_allclose(list(window["probabilities"].values()), shares, atol=1e-9)
    mean = np.mean([shares for *_, shares in said[:4]], axis=0)
    np.testing.assert_allclose(list(mono["probabilities"].values()), mean, atol=1e-9)
    assert mono["prediction"] == LABELS[mean.argmax()]


def test_long_recordings_are_judged_window_by_window(run, tmp_path, capsys):
    tone(tmp_path / "long.wav", seconds=3.25)
    said = answers(capsys, run, [tmp_path], window=1, hop=0.5)
    assert [one[1:3] for one in said] == [
        *((0, 1), (0.5, 1.5), (1, 2), (1.5, 2.5)),
        *((2, 3), (2.5, 3.25)),
    ]
    tone(tmp_path / "long.wav", seconds=1)  # is what the first window is
    (alone,) = answers(capsys, run, [tmp_path])
    np.testing.assert_allclose(said[0][4], alone[4], atol=1e-6)


def test_the_end_is_judged_where_windows_are_asked_for(run, tmp_path, capsys):
    path, rate = tmp_path / "a.wav", 16_000
    tone(path, seconds=5.9)
    whole, _ = soundfile.read(path)
    soundfile.write(path, whole * np.linspace(0.01, 1, len(whole)), rate)  # no part like another
    first, last = answers(capsys, run, [path], window=3)
    assert (first[1:3], last[1:3]) == ((0, 3), (3, 5.9))
    predict.run(run, [path], "json", window=3)
    (told,) = json.loads(capsys.readouterr().out)["recordings"]
    assert told["seconds"] == 5.9
    assert [(one["start"], one["end"]) for one in told["windows"]] == [(0, 3), (3, 5.9)]
    expected = (3 * first[4] + 2.9 * last[4]) / 5.9
    np.testing.assert_allclose(list(told["probabilities"].values()), expected, atol=1e-9)
    assert np.abs(expected - (first[4] + last[4]) / 2).max() > 1e-7
    samples, _ = soundfile.read(path)
    soundfile.write(path, samples[3 * rate :], rate)  # is what the last window is
    (alone,) = answers(capsys, run, [path])
    np.testing.assert_allclose(last[4], alone[4], atol=1e-5)
    soundfile.write(path, samples[: 3 * rate], rate)
    assert [one[1:3] for one in answers(capsys, run, [path], window=3)] == [(0, 3)]


def test_seconds_are_those_of_the_recording_whatever_its_windows(
    run, tmp_path, capsys, monkeypatch
):
    tone(tmp_path / "a.wav", seconds=1.9)
    load = systems.load_config

    def of_windows(checkpoints):
        config = load(checkpoints)
        config.picture.window = 0.5
        return config

    monkeypatch.setattr(systems, "load_config", of_windows)
    predict.run(run, [tmp_path], "json")
    (told,) = json.loads(capsys.readouterr().out)["recordings"]
    assert told["seconds"] == 1.9
    assert told["windows"][-1]["end"] == 1.5  # as the models were trained


def test_a_model_of_windows_judges_its_own(run, tmp_path, capsys, monkeypatch):
    tone(tmp_path / "a.wav", seconds=1.5)
    load = systems.load_config

    def of_windows(checkpoints):
        config = load(checkpoints)
        config.picture.window, config.picture.window_hop = 0.5, 0.25
        return config

    monkeypatch.setattr(systems, "load_config", of_windows)
    times = [one[1:3] for one in answers(capsys, run, [tmp_path])]
    assert times == [(k / 4, min(k / 4 + 0.5, 1.5)) for k in range(6)]
    times = [one[1:3] for one in answers(capsys, run, [tmp_path], window=1)]
    assert times == [(0, 1), (1, 1.5)]  # what is asked for counts, and one hop is one window
    times = [one[1:3] for one in answers(capsys, run, [tmp_path], hop=0.5)]
    assert times == [(0, 0.5), (0.5, 1), (1, 1.5)]


def test_a_long_recording_judged_as_a_whole_is_remarked_on(run, tmp_path, capsys, monkeypatch):
    tone(tmp_path / "a.wav", seconds=2)
    monkeypatch.setattr(predict, "LONG", 1.5)
    predict.run(run, [tmp_path])
    assert "a.wav: --window=3 judges" in capsys.readouterr().err
    predict.run(run, [tmp_path], window=2)
    assert "--window" not in capsys.readouterr().err


def test_standard_input_is_a_recording(run, folder, capsys, monkeypatch):
    content = (folder / "stereo.wav").read_bytes()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    piped, named = answers(capsys, run, ["-", folder / "stereo.wav"])
    assert piped[0] == "-"
    np.testing.assert_allclose(piped[4], named[4], atol=1e-6)
    for garbage in (b"", b"\0\1\2" * 999):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(garbage)))
        with pytest.raises(ValueError, match=r"^- (is empty|cannot be decoded)"):
            predict.run(run, ["-"])


def hostile(folder):
    """Writes files that are no usable recordings; a word of each one's reason by its name."""
    wave = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    soundfile.write(folder / "whole.wav", wave, 16_000)
    whole = (folder / "whole.wav").read_bytes()
    (folder / "text.wav").write_text("no audio")
    (folder / "empty.wav").touch()
    (folder / "cut.wav").write_bytes(whole[: len(whole) // 2])
    (folder / "odd.raw").write_bytes(b"123")
    wave[7] = np.nan
    soundfile.write(folder / "nan.wav", wave, 16_000, subtype="FLOAT")
    soundfile.write(folder / "silent name.wav", np.zeros(16_000), 16_000)
    (folder / "gone.wav").symlink_to("nowhere.wav")
    reasons = {"text.wav": "decoded", "empty.wav": "empty", "cut.wav": "cut short"}
    reasons |= {"nan.wav": "finite", "silent name.wav": "silent", "odd.raw": "damaged"}
    return reasons | {"gone.wav": "leads nowhere"}


@pytest.mark.parametrize("window", [0, 0.2])
def test_unusable_recordings_are_named_and_the_others_are_answered(run, tmp_path, capsys, window):
    reasons = hostile(tmp_path)
    (tmp_path / "circle").symlink_to(tmp_path)
    with pytest.raises(ValueError, match=f"{len(reasons) + 1} could not") as refusal:
        predict.run(run, [tmp_path, tmp_path / "*.mp3"], "csv", window)
    assert {one[0] for one in rows(capsys.readouterr().out)} == {f"{tmp_path}/whole.wav"}
    lines = str(refusal.value).splitlines()[1:]
    assert any("no file or folder matches" in line for line in lines)
    for name, reason in reasons.items():
        assert [reason in line for line in lines if f"/{name}" in line] == [True]


def test_only_answers_go_to_standard_output(run, folder, capsys, monkeypatch):
    real = network.load_ensemble

    def talkative(checkpoints):
        print("this is no answer")
        return real(checkpoints)

    monkeypatch.setattr(network, "load_ensemble", talkative)
    predict.run(run, [folder], "csv")
    captured = capsys.readouterr()
    assert len(rows(captured.out)) == 3
    assert captured.err == "this is no answer\n"  # and no progress where there is no terminal


def test_models_of_synthetic_speech_say_so(run, folder, capsys, monkeypatch):
    predict.run(run, [folder / "mono.wav"])
    assert "SYNTHETIC" not in capsys.readouterr().err
    load = systems.load_config

    def generated(checkpoints):
        return ml_collections.ConfigDict(load(checkpoints).to_dict() | {"synthetic": True})

    monkeypatch.setattr(systems, "load_config", generated)
    for form in predict.FORMATS:
        predict.run(run, [folder / "mono.wav"], form)
        captured = capsys.readouterr()
        assert captured.err == f"{predict.SYNTHETIC}\n"
        assert "SYNTHETIC" not in captured.out
    assert json.loads(captured.out)["synthetic"] is True


def test_an_explanation_is_drawn_for_each_answer(run, folder, tmp_path, capsys, monkeypatch):
    drawn = tmp_path / "drawn"
    inputs = [folder / "mono.wav", folder / "sub"]
    plain = answers(capsys, run, inputs)
    explained = answers(capsys, run, inputs, explain=drawn)
    assert [one[:4] for one in explained] == [one[:4] for one in plain]
    names = sorted(path.relative_to(drawn).as_posix() for path in drawn.rglob("*.png"))
    assert names == ["mono.wav.png", "sub/niño, el 2º.flac.png"]
    with Image.open(drawn / "mono.wav.png") as image:
        assert image.width > 3 * 96  # the picture, and two gates
        assert image.height > 96
    answers(capsys, run, [folder / "mono.wav"], explain=drawn / "parts", window=0.5)
    names = sorted(path.name for path in (drawn / "parts").iterdir())
    assert names == ["mono.wav_0.00-0.50.png", "mono.wav_0.50-1.00.png"]


def test_without_recordings_or_checkpoint_it_says_what_to_do(run, folder, tmp_path):
    with pytest.raises(ValueError, match="give recordings"):
        predict.run(run, [])
    with pytest.raises(FileNotFoundError, match="--checkpoint"):
        predict.run(tmp_path, [folder / "mono.wav"])
    with pytest.raises(ValueError, match="looked for files ending in"):
        predict.run(run, [run / "fold_00" / "checkpoints"])
    with pytest.raises(ValueError, match=r"--hop=0.5 needs --window"):
        predict.run(run, [folder], hop=0.5)
    for value in (-1, np.inf, np.nan):
        with pytest.raises(ValueError, match="--window="):
            predict.run(run, [folder], window=value)


@pytest.mark.parametrize("system", ["mlr", "svc", "xgboost", "lstm", "ds_svc", "ds_fc"])
def test_every_system_answers(system, folder, tmp_path, capsys, monkeypatch, request):
    monkeypatch.setattr(
        pretrained, "load", lambda backbone, path, full: print("weights") or tiny.pretrained()
    )
    config, corpus = tiny.make(system)
    workdir = tmp_path / "run"
    assert train.run(config, corpus, workdir)
    capsys.readouterr()
    said = answers(capsys, workdir, [folder])
    assert len(said) == 3
    for _, _, _, label, shares in said:
        assert shares.sum() == pytest.approx(1, abs=1e-6)
        assert label == LABELS[shares.argmax()]
    assert len(answers(capsys, workdir, [folder / "mono.wav"], window=0.25)) == 4
    with pytest.raises(ValueError, match="--explain shows attention gates"):
        predict.run(workdir, [folder], explain=tmp_path / "drawn")


def test_a_reader_that_has_enough_is_no_error(run, folder):
    """As in `| head -1`: the other end of the pipe is closed before all is written."""
    program = (
        "import pathlib, sys, tiny; from ds_jax.runtime import processes;"
        "from ds_jax.commands import predict; from ds_jax.models.create import BACKBONES;"
        "processes.start(); BACKBONES['vgg16'] = tiny.NARROW;"
        "predict.run(pathlib.Path(sys.argv[1]), [sys.argv[2]] * 200, 'csv')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, run, folder / "mono.wav"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PYTHONPATH": ".:tests", "JAX_PLATFORMS": "cpu"},
    )
    assert process.stdout.readline().startswith(b"recording,")
    process.stdout.close()
    assert (process.wait(timeout=300), process.stderr.read()) == (0, b"")
    process.stderr.close()
