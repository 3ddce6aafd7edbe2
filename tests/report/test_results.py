"""What was judged becomes files, and the report shows the answers that were surest."""

import dataclasses
import io

import made_up
import numpy as np
import pytest
import soundfile
import tiny

from ds_jax.evaluation import predictions
from ds_jax.evaluation.predictions import Predicted
from ds_jax.report import results
from ds_jax.report import run as report
from ds_jax.runtime.files import read_json

CONTENT = {
    "system": "DS-AM",
    "protocol": "speakers",
    "selected_on": "dev",
    "shared": {"speakers": 0, "sentences": 0},
    "folds": [],
}


def judgement(corpus, wrong=(), sure=None, gates=True):
    """Right but of the utterances numbered in `wrong`; the others' probabilities differ a little.

    The gate of an utterance is its number everywhere.
    """
    count = len(corpus.utterances)
    labels = np.arange(count) % 7
    sure = np.linspace(0.5, 0.6, count) if sure is None else sure
    probabilities = np.repeat((1 - sure[:, None]) / 6, 7, axis=1)
    answers = np.where(np.isin(np.arange(count), wrong), (labels + 1) % 7, labels)
    probabilities[np.arange(count), answers] = sure
    gate = np.arange(count, dtype=np.float32)[:, None, None] * np.ones((count, 3, 2), np.float32)
    return Predicted(
        probabilities, {"block4_pool": probabilities}, {"block4_pool": gate} if gates else {}
    )


@pytest.fixture
def shown(tmp_path, monkeypatch):
    """A function that reports a corpus from some judgements, and returns errors and hits."""
    seen = []
    monkeypatch.setattr(report, "write", lambda *arguments: seen.append(arguments))

    def write(corpus, *judgements):
        sources = [tmp_path / f"fold_{number}" for number in range(len(judgements))]
        for source, judged in zip(sources, judgements, strict=True):
            results.write(source, corpus.utterances, judged)
        results.write_report(tmp_path, sources, corpus, CONTENT)
        return seen[-1][3:]

    return write


def test_the_surest_errors_and_hits_are_shown_with_their_pictures_and_gates(shown):
    corpus = tiny.corpus(30)
    errors, hits = shown(corpus, judgement(corpus, wrong=range(5, 20)))
    assert [error.utterance for error in errors] == [f"u{i:02}" for i in range(19, 13, -1)]
    assert [hit.utterance for hit in hits] == ["u29", "u28"]
    for example in (*errors, *hits):
        number = int(example.utterance[1:])
        np.testing.assert_array_equal(example.pictures, [corpus.inputs[number]])
        np.testing.assert_array_equal(example.gates["block4_pool"], np.full((3, 2), number))
        assert (example.label, example.speaker, example.seconds) == (
            corpus.utterances[number].label,
            corpus.utterances[number].speaker,
            1.0,
        )
        assert (example.label == example.prediction) == (example in hits)
        assert example.probability > example.label_probability or example in hits
        assert example.audio == b""
    assert errors[0].probability == pytest.approx(0.5 + 0.1 * 19 / 29)
    assert errors[0].label_probability == pytest.approx((1 - errors[0].probability) / 6)


def test_an_utterance_that_several_splits_tested_is_shown_once_with_its_surest_answer(shown):
    corpus = tiny.corpus(4)
    one = judgement(corpus, wrong=[1, 2], sure=np.array([0.6, 0.7, 0.6, 0.5]))
    other = judgement(corpus, wrong=[1, 2], sure=np.array([0.6, 0.5, 0.9, 0.5]))
    errors, _ = shown(corpus, one, other)
    assert [(error.utterance, error.probability) for error in errors] == [
        ("u02", pytest.approx(0.9)),
        ("u01", pytest.approx(0.7)),
    ]


def test_of_a_recording_in_windows_the_first_are_shown_without_gates(shown):
    corpus = tiny.corpus(3, windows=5)
    errors, _ = shown(corpus, judgement(corpus, wrong=[1]))
    np.testing.assert_array_equal(errors[0].pictures, corpus.inputs[5 : 5 + results.WINDOWS])
    assert errors[0].gates == {}


def test_a_system_on_features_has_errors_without_pictures(shown):
    corpus = dataclasses.replace(tiny.corpus(3), inputs=np.zeros((3, 5), np.float32))
    errors, hits = shown(corpus, judgement(corpus, wrong=[1], gates=False))
    assert [(error.utterance, error.pictures, error.gates) for error in errors] == [("u01", [], {})]
    assert len(hits) == 2


def test_only_errors_are_heard_and_only_their_beginnings(shown, tmp_path):
    seconds = report.CLIP_SECONDS + 5
    sound = np.sin(np.arange(seconds * 44_100) / 20) * np.linspace(0, 1, seconds * 44_100)
    soundfile.write(tmp_path / "long.wav", np.stack([sound, sound], axis=1), 44_100)
    corpus = tiny.corpus(3)
    heard = {utterance.name: tmp_path / "long.wav" for utterance in corpus.utterances}
    corpus = dataclasses.replace(corpus, recordings=heard, audio_terms="free")
    errors, hits = shown(corpus, judgement(corpus, wrong=[1]))
    assert [hit.audio for hit in hits] == [b"", b""]
    samples, rate = soundfile.read(io.BytesIO(errors[0].audio))
    assert (rate, samples.shape) == (16_000, (report.CLIP_SECONDS * 16_000,))
    expected = np.sin(np.arange(len(samples)) / 16_000 * 44_100 / 20)
    expected *= np.arange(len(samples)) / 16_000 / seconds
    np.testing.assert_allclose(samples[100:-100], expected[100:-100], atol=1e-3)


def test_sound_changes_no_number(tmp_path):
    (tmp_path / "sound.flac").write_bytes(made_up.sound())
    silent = tiny.corpus(8)
    heard = {utterance.name: tmp_path / "sound.flac" for utterance in silent.utterances}
    loud = dataclasses.replace(silent, recordings=heard, audio_terms="terms of the corpus")
    results.write(tmp_path, silent.utterances, judgement(silent, wrong=[1, 2]))
    found = [
        results.write_report(tmp_path, [tmp_path], corpus, CONTENT) for corpus in (silent, loud)
    ]
    assert found[0] == found[1] == read_json(tmp_path / "report.json")
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:audio/flac") == 2
    assert "terms of the corpus" in page


def test_each_head_alone_is_reported(tmp_path):
    corpus = tiny.corpus(8)
    results.write(tmp_path, corpus.utterances, judgement(corpus, wrong=[1, 2]))
    found = results.write_report(tmp_path, [tmp_path], corpus, CONTENT)
    alone = predictions.read(tmp_path / "predictions_block4_pool.csv")
    assert found["heads"]["block4_pool"]["accuracy"] == 6 / 8
    assert (alone.labels == alone.predictions).sum() == 6
