"""Recordings of any rate and number of channels get seven probabilities."""

import re
import shutil

import numpy as np
import pytest
import soundfile

from ds_jax import predict

pytestmark = pytest.mark.usefixtures("narrow")


def tone(path, rate, channels, seconds=1.0):
    time = np.arange(int(rate * seconds)) / rate
    wave = 0.3 * np.sin(2 * np.pi * 220 * time) + 0.1 * np.sin(2 * np.pi * 1760 * time)
    soundfile.write(path, np.stack([wave] * channels, axis=1), rate)
    return path


def table(text):
    lines = [re.split(r"\s+", line.strip()) for line in text.splitlines()]
    return {line[0]: (line[1], np.asarray(line[2:], float)) for line in lines[1:]}


def test_every_recording_gets_a_distribution(run, tmp_path, capsys):
    recordings = [
        tone(tmp_path / "mono.wav", 16_000, 1),
        tone(tmp_path / "stereo.wav", 48_000, 2),
        tone(tmp_path / "eight.flac", 8_000, 1, 0.3),
    ]
    predict.run(run, recordings)
    rows = table(capsys.readouterr().out)
    assert list(rows) == [str(path) for path in recordings]
    for label, shares in rows.values():
        assert shares.sum() == pytest.approx(1, abs=0.005)
        assert label == predict.LABELS[shares.argmax()]


def test_a_run_is_the_mean_of_its_folds(run, tmp_path, capsys):
    recording = tone(tmp_path / "a.wav", 16_000, 1)
    shares = []
    for number in range(3):
        predict.run(run / f"fold_{number:02}", [recording])
        shares.append(table(capsys.readouterr().out)[str(recording)][1])
    predict.run(run, [recording])
    together = table(capsys.readouterr().out)[str(recording)][1]
    np.testing.assert_allclose(together, np.mean(shares, axis=0), atol=0.0011)


def test_an_unfinished_fold_has_no_say(run, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "fold_02" / "predictions.csv").unlink()
    (tmp_path / "run" / "fold_03" / "checkpoints").mkdir(parents=True)
    recording, shares = tone(tmp_path / "a.wav", 16_000, 1), []
    for folder in (run / "fold_00", run / "fold_01", tmp_path / "run"):
        predict.run(folder, [recording])
        shares.append(table(capsys.readouterr().out)[str(recording)][1])
    np.testing.assert_allclose(shares[2], np.mean(shares[:2], axis=0), atol=0.0011)


def test_unusable_recordings_are_named_after_the_others(run, tmp_path, capsys):
    (tmp_path / "text.wav").write_text("no audio")
    good = tone(tmp_path / "good.wav", 16_000, 1)
    with pytest.raises(ValueError, match=r"text\.wav cannot be decoded"):
        predict.run(run, [tmp_path / "text.wav", good])
    assert list(table(capsys.readouterr().out)) == [str(good)]


def test_without_recordings_or_checkpoint_it_says_what_to_do(run, tmp_path):
    with pytest.raises(ValueError, match="give recordings"):
        predict.run(run, [])
    with pytest.raises(FileNotFoundError, match="--checkpoint"):
        predict.run(tmp_path, [tone(tmp_path / "a.wav", 16_000, 1)])
