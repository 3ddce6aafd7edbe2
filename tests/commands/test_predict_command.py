"""--mode=predict gives recordings seven probabilities, in the form and windows asked for."""

import base64
import csv
import dataclasses
import io
import json
import shutil
from xml.etree import ElementTree

import numpy as np
import pytest
import soundfile
import tiny
from PIL import Image

from ds_jax.cli import FORMATS
from ds_jax.commands import predict, train
from ds_jax.data import recordings
from ds_jax.data.labels import LABELS
from ds_jax.evaluation.predictions import Predicted
from ds_jax.features import extract
from ds_jax.systems import base as systems
from ds_jax.systems import finding, model, network

pytestmark = pytest.mark.usefixtures("narrow")


def tone(path, rate=16_000, channels=1, seconds=1.0, pitch=220):
    time = np.arange(int(rate * seconds)) / rate
    wave = 0.3 * np.sin(2 * np.pi * pitch * time) + 0.1 * np.sin(2 * np.pi * 1760 * time)
    soundfile.write(path, np.stack([wave] * channels, axis=1), rate)
    return path


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A run of three folds of a classifier that tells the tones of these tests apart."""
    rng, workdir = np.random.default_rng(0), tmp_path_factory.mktemp("fitted")
    config, corpus = tiny.make("mlr")
    tones = tone(workdir / "a.wav"), tone(workdir / "b.wav", pitch=900)
    first, second = (extract.read(path, extract.settings(config))[1][0] for path in tones)
    mixture = rng.uniform(size=(len(corpus.inputs), 1)).astype(np.float32)
    corpus.inputs[:] = mixture * first + (1 - mixture) * second
    assert train.run(config, corpus, workdir)
    return workdir


def rows(text):
    """Recording, start, end, prediction and probabilities of each row of a CSV."""
    header, *lines = csv.reader(io.StringIO(text))
    assert header == ["recording", "start", "end", "prediction", *LABELS]
    return [
        (line[0], float(line[1]), float(line[2]), line[3], np.asarray(line[4:], float))
        for line in lines
    ]


def answers(capsys, *arguments, **options):
    predict.run(*arguments, form="csv", **options)
    return rows(capsys.readouterr().out)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    tone(tmp_path / "mono.wav", pitch=300)
    tone(tmp_path / "stereo.wav", 48_000, 2, 0.8)
    tone(tmp_path / "sub" / "niño, el 2º.flac", 8_000, 1, 0.3)
    return tmp_path


def check(found, folder):
    """Checks that each recording has a distribution."""
    names = ["mono.wav", "stereo.wav", "sub/niño, el 2º.flac"]
    assert [row[0] for row in found] == [f"{folder}/{name}" for name in names]
    assert [row[1:3] for row in found] == [(0, 1), (0, 0.8), (0, 0.3)]
    for _, _, _, label, probabilities in found:
        assert probabilities.sum() == pytest.approx(1, abs=1e-6)
        assert label == LABELS[probabilities.argmax()]


def test_a_run_gives_the_mean_of_its_networks_for_the_pictures(run, folder, capsys):
    found = answers(capsys, run, [folder])
    check(found, folder)
    settings = extract.settings(systems.load_config([run / "fold_00" / "checkpoints"]))
    paths = [recording.path for recording in recordings.find([folder])[0]]
    pictures = np.stack([extract.read(path, settings)[1][0] for path in paths])
    inputs = dict.fromkeys(finding.find_checkpoints(run), np.arange(3))
    drawn = dataclasses.replace(tiny.corpus(3), inputs=pictures)
    alone = [one.probabilities for _, one in network.predict(inputs, drawn)]
    assert len(alone) == 3
    assert np.std(alone, axis=0).max() > 1e-3  # the folds differ
    np.testing.assert_allclose([row[4] for row in found], np.mean(alone, axis=0), atol=1e-6)


def test_finished_folds_alone_predict(fitted, folder, tmp_path, capsys):
    shutil.copytree(fitted, tmp_path / "run")
    (tmp_path / "run" / "fold_02" / "predictions.csv").unlink()
    (tmp_path / "run" / "fold_03" / "checkpoints").mkdir(parents=True)
    one, other, both = (
        answers(capsys, trained, [folder / "mono.wav"])[0][4]
        for trained in (fitted / "fold_00", fitted / "fold_01/checkpoints", tmp_path / "run")
    )
    np.testing.assert_allclose(both, np.mean([one, other], axis=0), atol=1e-6)
    assert np.abs(one - other).max() > 1e-6


@pytest.mark.usefixtures("tiny_weights")
@pytest.mark.parametrize(
    "system",
    ["svc", "xgboost", "ds_svc"]
    + [pytest.param(name, marks=pytest.mark.slow) for name in ("ds_fc", "lstm")],
)
def test_every_system_predicts(finished_runs, system, folder, tmp_path, capsys):
    workdir = finished_runs(system)
    capsys.readouterr()
    check(answers(capsys, workdir, [folder / "*.wav", folder / "sub"]), folder)
    with pytest.raises(ValueError, match="gates"):
        predict.run(workdir, [folder], explain=tmp_path / "drawn")


def drawing(path):
    """Returns the pictures and the texts of an SVG file, in their order."""
    root = ElementTree.parse(path).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    uris = [image.get("href") for image in root.findall(".//{*}image")]
    decoded = [base64.b64decode(uri.removeprefix("data:image/png;base64,")) for uri in uris]
    pictures = [Image.open(io.BytesIO(content)) for content in decoded]
    return pictures, [text.text for text in root.findall(".//{*}text")]


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_weights")
@pytest.mark.parametrize("gate", [True, False])
def test_timelines_are_predicted_and_explained_as_wide_as_they_are(gate, folder, tmp_path, capsys):
    """A recording gets the same prediction alone as beside longer ones."""
    config, corpus = tiny.make("ds_am_statistics")
    config.train.epochs, config.model.gate = 1, gate
    workdir, drawn = tmp_path / "run", tmp_path / "drawn"
    train.run(config, corpus, workdir, [0])
    tone(folder / "long.wav", seconds=3.1)
    capsys.readouterr()
    together = {row[0]: row[4] for row in answers(capsys, workdir, [folder / "*.wav"])}
    assert len(together) == 3
    for name, shares in together.items():
        [alone] = answers(capsys, workdir, [name])
        np.testing.assert_allclose(alone[4], shares, atol=1e-5)
    if not gate:
        with pytest.raises(ValueError, match="gates"):
            predict.run(workdir, [folder], explain=drawn)
        return
    answers(capsys, workdir, [folder / "long.wav", folder / "mono.wav"], explain=drawn)
    for name, seconds in (("long", 3.1), ("mono", 1.0)):
        pictures, texts = drawing(drawn / f"{name}.wav.svg")
        frames = max(64, 1 + (int(16_000 * seconds) - 1024) // 256)
        assert pictures[0].size == (frames, 32)
        assert "time in s" in texts


@pytest.mark.parametrize("synthetic", [False, True])
def test_models_of_synthetic_speech_say_so(fitted, folder, capsys, monkeypatch, synthetic):
    config = systems.load_config(finding.find_checkpoints(fitted))
    config.synthetic = synthetic
    monkeypatch.setattr(systems, "load_config", lambda checkpoints: config)
    for form in FORMATS["predict"]:
        predict.run(fitted, [folder / "mono.wav"], form)
        captured = capsys.readouterr()
        assert (predict.SYNTHETIC in captured.err) == synthetic
        assert predict.SYNTHETIC not in captured.out
    assert json.loads(captured.out)["synthetic"] is synthetic


def test_the_table_is_for_people(fitted, folder, capsys):
    predict.run(fitted, [folder])
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["start", "end", "prediction", *LABELS]
    assert len(lines) == 3
    assert len({line.rindex(".") for line in (header, *lines) if "." in line}) == 1  # columns
    for line in lines:
        start, _, prediction, *shares = line.removeprefix(str(folder)).split()[-10:]
        assert (start, prediction) == ("0.00", LABELS[np.argmax(np.asarray(shares, float))])


def test_json_has_the_rows_of_csv_and_more(fitted, folder, capsys):
    expected = answers(capsys, fitted, [folder], window=0.25)
    (folder / "bad.wav").write_text("no audio")
    with pytest.raises(ValueError, match="bad"):
        predict.run(fitted, [folder, folder / "mono.wav", folder / "mono.wav"], "json", 0.25)
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"system", "models", "synthetic", "labels", "recordings", "unusable"}
    assert (found["system"], found["models"]) == ("MLR on MFCC", 3)
    assert found["labels"] == list(LABELS)
    (unusable,) = found["unusable"]
    assert unusable["recording"] == f"{folder}/bad.wav"
    assert unusable["reason"].startswith(f"{folder}/bad.wav ")
    counts = [len(one["windows"]) for one in found["recordings"]]
    assert counts == [4, 4, 2, 4, 4]  # one that is given twice is answered twice
    mono = found["recordings"][0]
    assert set(mono) == {"recording", "seconds", "prediction", "probabilities", "windows"}
    assert (mono["recording"], mono["seconds"]) == (f"{folder}/mono.wav", 1.0)
    for window, (_, start, end, prediction, shares) in zip(
        mono["windows"], expected[:4], strict=True
    ):
        assert (window["start"], window["end"], window["prediction"]) == (start, end, prediction)
        assert list(window["probabilities"]) == list(LABELS)
        np.testing.assert_allclose(list(window["probabilities"].values()), shares, atol=1e-9)
    mean = np.mean([shares for *_, shares in expected[:4]], axis=0)
    np.testing.assert_allclose(list(mono["probabilities"].values()), mean, atol=1e-9)
    assert mono["prediction"] == LABELS[mean.argmax()]


def test_only_predictions_go_to_standard_output(fitted, folder, capsys, monkeypatch):
    load = systems.load_config
    monkeypatch.setattr(
        systems, "load_config", lambda checkpoints: print("a message") or load(checkpoints)
    )
    predict.run(fitted, [folder], "csv")
    captured = capsys.readouterr()
    assert len(rows(captured.out)) == 3
    first, loading, *notes = captured.err.splitlines()
    assert first == "a message"
    assert "loading 3 models" in loading
    assert all(note.startswith("note: ") for note in notes)  # tones are no speech


def test_an_explanation_is_drawn_for_each_row(run, folder, tmp_path, capsys):
    drawn = tmp_path / "drawn"
    found = answers(capsys, run, [folder / "mono.wav", folder / "sub"], explain=drawn)
    assert [row[1:3] for row in found] == [(0, 1), (0, 0.3)]
    names = sorted(path.relative_to(drawn).as_posix() for path in drawn.rglob("*.svg"))
    assert names == ["mono.wav.svg", "sub/niño, el 2º.flac.svg"]
    pictures, texts = drawing(drawn / "mono.wav.svg")
    assert len(pictures) == 2 * 3  # the picture and two gates, each with a colour bar
    assert pictures[0].size == (48, 48)
    assert texts.count("time in s") == texts.count("frequency in Hz") == 3
    assert texts.count("0") >= 2  # the lower ends of the gates' bars
    assert f"{found[0][3]} {found[0][4].max():.2f}" in texts
    answers(capsys, run, [folder / "mono.wav"], explain=drawn / "parts", window=0.5)
    names = sorted(path.name for path in (drawn / "parts").iterdir())
    assert names == ["mono.wav_0.00-0.50.svg", "mono.wav_0.50-1.00.svg"]
    assert "0.6" in drawing(drawn / "parts" / names[1])[1]  # seconds of the recording


def test_windows_that_are_asked_for_reach_the_end_and_count_by_their_length(
    fitted, tmp_path, capsys
):
    path, rate = tmp_path / "a.wav", 16_000
    tone(path, seconds=5.9)
    whole, _ = soundfile.read(path)
    soundfile.write(path, whole * np.linspace(0.01, 1, len(whole)), rate)  # no part is like another
    first, last = answers(capsys, fitted, [path], window=3)
    assert (first[1:3], last[1:3]) == ((0, 3), (3, 5.9))
    predict.run(fitted, [path], "json", window=3)
    (found,) = json.loads(capsys.readouterr().out)["recordings"]
    assert found["seconds"] == 5.9
    expected = (3 * first[4] + 2.9 * last[4]) / 5.9
    np.testing.assert_allclose(list(found["probabilities"].values()), expected, atol=1e-9)
    assert np.abs(expected - (first[4] + last[4]) / 2).max() > 1e-7
    samples, _ = soundfile.read(path)
    soundfile.write(path, samples[3 * rate :], rate)  # equals the last window
    (alone,) = answers(capsys, fitted, [path])
    np.testing.assert_allclose(last[4], alone[4], atol=1e-5)
    soundfile.write(path, samples[: 3 * rate], rate)
    assert [row[1:3] for row in answers(capsys, fitted, [path], window=3)] == [(0, 3)]


def test_a_model_of_windows_takes_its_windows_as_in_training(run, tmp_path, capsys, monkeypatch):
    tone(tmp_path / "a.wav", seconds=1.6)
    load = systems.load_config

    def of_windows(checkpoints):
        config = load(checkpoints)
        config.picture.window, config.picture.window_hop = 0.5, 0.25
        return config

    def uniform(inputs, size):
        return lambda: Predicted(np.full((len(inputs), 7), 1 / 7), {}, {})

    monkeypatch.setattr(systems, "load_config", of_windows)
    monkeypatch.setattr(network, "load_ensemble", lambda checkpoints, enrolled: uniform)
    times = [row[1:3] for row in answers(capsys, run, [tmp_path])]
    assert times == [(k / 4, min(k / 4 + 0.5, 1.6)) for k in range(6)]
    times = [row[1:3] for row in answers(capsys, run, [tmp_path], window=1)]
    assert times == [(0, 1), (1, 1.6)]  # what is asked for counts, and a hop is a window
    times = [row[1:3] for row in answers(capsys, run, [tmp_path], hop=0.5)]
    assert times == [(0, 0.5), (0.5, 1), (1, 1.5)]
    predict.run(run, [tmp_path], "json", hop=0.5)
    (found,) = json.loads(capsys.readouterr().out)["recordings"]
    assert found["seconds"] == 1.6
    assert found["windows"][-1]["end"] == 1.5


def test_a_long_recording_that_is_taken_whole_is_remarked_on(fitted, tmp_path, capsys, monkeypatch):
    tone(tmp_path / "a.wav", seconds=2)
    monkeypatch.setattr(model, "LONG", 1.5)
    predict.run(fitted, [tmp_path])
    assert "a.wav: window=3" in capsys.readouterr().err
    predict.run(fitted, [tmp_path], window=2)
    assert "window=" not in capsys.readouterr().err


def test_standard_input_is_a_recording(fitted, folder, capsys, monkeypatch):
    content = (folder / "stereo.wav").read_bytes()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    piped, named = answers(capsys, fitted, ["-", folder / "stereo.wav"])
    assert piped[0] == "-"
    np.testing.assert_allclose(piped[4], named[4], atol=1e-6)
    for garbage in (b"", b"\0\1\2" * 999):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(garbage)))
        with pytest.raises(ValueError, match=r"^- "):
            predict.run(fitted, ["-"])


def test_a_channel_is_that_of_the_models_unless_another_is_given(
    fitted, tmp_path, capsys, monkeypatch
):
    first, second = tone(tmp_path / "a.wav"), tone(tmp_path / "b.wav", pitch=900)
    both = np.stack([soundfile.read(path)[0] for path in (first, second)], axis=1)
    soundfile.write(tmp_path / "c.wav", both, 16_000)
    left, right, mean = answers(capsys, fitted, [tmp_path])
    assert abs(left[4] - right[4]).max() > 0.1
    (found,) = answers(capsys, fitted, [tmp_path / "c.wav"], reading={"channel": "right"})
    np.testing.assert_allclose(found[4], right[4], atol=1e-6)
    load = systems.load_config

    def of_left_channels(checkpoints):
        config = load(checkpoints)
        config.channel = "left"
        return config

    monkeypatch.setattr(systems, "load_config", of_left_channels)
    for reading, expected in ((None, left), ({"channel": "mix"}, mean)):
        (found,) = answers(capsys, fitted, [tmp_path / "c.wav"], reading=reading)
        np.testing.assert_allclose(found[4], expected[4], atol=1e-6)


@pytest.mark.parametrize("name", ["a.m4a", "a.MP4", "a.3ga", "a.m4r", "a.qcp", "a.ts"])
def test_formats_of_ffmpeg_are_found_and_named_without_it(
    fitted, tmp_path, capsys, monkeypatch, name
):
    tone(tmp_path / "whole.wav")
    (tmp_path / name).write_bytes(b"of a format that only ffmpeg knows")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match=rf"{name} .*ffmpeg.*install it"):
        predict.run(fitted, [tmp_path], "csv")
    assert [row[0] for row in rows(capsys.readouterr().out)] == [f"{tmp_path}/whole.wav"]


def test_what_may_change_answers_is_said_once_with_advice_for_the_system(fitted, folder, capsys):
    tone(folder / "telephone.wav", 8000)
    for window in (0.0, 0.2):
        predict.run(fitted, [folder], window=window)
        printed = capsys.readouterr().err.splitlines()
        low, narrow = (line for line in printed if line.startswith("note: "))
        assert low.startswith("note: 2 recordings of a lower rate than 16000 Hz")
        assert "telephone.wav (8000 Hz)" in low
        assert narrow.startswith("note: 2 recordings without sound at high frequencies")
        assert "--config" not in low + narrow  # features have no field for it


@pytest.mark.parametrize("window", [0, 0.2])
def test_unusable_recordings_are_named_and_the_others_answered(fitted, tmp_path, capsys, window):
    tone(tmp_path / "whole.wav")
    (tmp_path / "empty.wav").touch()
    (tmp_path / "gone name.wav").symlink_to("nowhere.wav")
    with pytest.raises(ValueError, match=r"^3 ") as error:
        predict.run(fitted, [tmp_path, tmp_path / "*.mp3"], "csv", window)
    assert {row[0] for row in rows(capsys.readouterr().out)} == {f"{tmp_path}/whole.wav"}
    for name, line in zip(
        ("*.mp3", "empty.wav", "gone name.wav"), str(error.value).splitlines()[1:], strict=True
    ):
        assert line.startswith(f"  {tmp_path}/{name}")


def test_impossible_requests_are_refused(fitted, folder, tmp_path):
    with pytest.raises(ValueError, match="give recordings"):
        predict.run(fitted, [])
    with pytest.raises(FileNotFoundError, match="--checkpoint"):
        predict.run(tmp_path, [folder / "mono.wav"])
    with pytest.raises(ValueError, match="holds no audio"):
        predict.run(fitted, [fitted / "fold_00" / "checkpoints"])
    with pytest.raises(ValueError, match="needs window"):
        predict.run(fitted, [folder], hop=0.5)
    for value in (-1, np.inf, np.nan):
        with pytest.raises(ValueError, match=r"^window="):
            predict.run(fitted, [folder], window=value)
