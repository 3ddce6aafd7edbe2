"""Finished models answer from Python as they do on the command line."""

import json

import numpy as np
import pytest
import soundfile
import tiny

import ds_jax
from ds_jax.data.labels import LABELS
from ds_jax.models.vgg16 import VGG16

pytestmark = pytest.mark.usefixtures("narrow")
RATE = 16_000


def wave(seconds, seed=0, rate=RATE):
    """Noise that grows louder."""
    count = int(seconds * rate)
    noise = np.random.default_rng(seed).normal(0, 0.1, count) * np.linspace(0.1, 1, count)
    return noise.astype(np.float32)


def shares(records):
    """The probabilities of records, float64 [n, classes]."""
    return np.asarray([[record[name] for name in LABELS] for record in records])


@pytest.fixture(scope="module")
def model(run):
    return ds_jax.load(run)


@pytest.fixture
def folder(tmp_path):
    """Two recordings of other lengths and rates."""
    for number, (seconds, rate) in enumerate([(1.3, RATE), (0.7, 44_100)]):
        soundfile.write(tmp_path / f"{number}.flac", wave(seconds, number, rate), rate)
    return tmp_path


def test_a_waveform_gets_the_probabilities_of_its_recording(model, folder):
    records = model.predict(folder)
    for record, alone in zip(records, shares(records), strict=True):
        samples, rate = soundfile.read(record["recording"])
        found = model(samples, rate)
        assert (found.shape, found.dtype) == ((7,), np.float32)
        np.testing.assert_allclose(found, alone, atol=1e-5)
    assert np.ptp(shares(records), axis=0).max() > 1e-4


def test_a_batch_gets_a_row_for_each_waveform(model):
    waves = [wave(1.0, 0), wave(0.4, 1), wave(1.0, 2)]
    found = model(waves, RATE)
    assert (found.shape, found.dtype) == ((3, 7), np.float32)
    np.testing.assert_allclose(found[1], model(waves[1], RATE), atol=1e-6)
    np.testing.assert_allclose(model(np.stack(waves[::2]), RATE), found[::2], atol=1e-6)


def test_a_model_of_windows_gives_their_mean(finished_runs, folder):
    model = ds_jax.load(finished_runs("svc"))
    assert VGG16.terms not in model.card["licences"]
    assert model.card["models"][0] == {"fold": "fold_00"}
    samples = wave(1.0)
    whole = model(samples, RATE)
    object.__setattr__(model.settings, "windowing", model.windowing(0.5, 0))
    halves = model([samples[:8000], samples[8000:]], RATE)
    np.testing.assert_allclose(model(samples, RATE), halves.mean(axis=0), atol=1e-6)
    assert np.abs(model(samples, RATE) - whole).max() > 1e-6


def test_records_are_rows_of_a_table(model, folder):
    records = model.predict([folder / "0.flac", folder / "1.flac"], window=0.5, hop=0.4)
    assert [(record["start"], record["end"]) for record in records] == [
        *[(0, 0.5), (0.4, 0.9), (0.8, 1.3)],
        *[(0, 0.5), (0.4, 0.7)],
    ]
    for record in records:
        assert [*record] == ["recording", "start", "end", "prediction", *LABELS]
        assert {type(value) for value in record.values()} == {str, float}
        assert record["prediction"] == max(LABELS, key=record.get)
    assert model.predict([]) == []


def test_what_cannot_be_used_is_an_error_or_listed(model, folder):
    (folder / "2.wav").write_text("no audio")
    with pytest.raises(ValueError, match=r"2\.wav .*unusable="):
        model.predict(folder)
    with pytest.raises(ValueError, match=r"nowhere\.wav: there is no such file"):
        model.predict([folder / "nowhere.wav", folder])
    unusable = []
    assert len(model.predict([folder, "nowhere.wav"], unusable=unusable)) == 2
    assert [each.title for each in unusable] == ["nowhere.wav", f"{folder}/2.wav"]


@pytest.mark.parametrize(
    ("samples", "rate", "reason"),
    [
        ([], RATE, "no samples"),
        (np.zeros((0, RATE)), RATE, "no samples"),
        ([[]], RATE, "empty"),
        (np.zeros(RATE), RATE, "silent"),
        (np.full(RATE, np.nan), RATE, "finite"),
        (np.ones(RATE, np.int16), RATE, "32768"),
        (np.ones((RATE, 2)), RATE, "channels"),
        ([np.ones((RATE, 2))], RATE, "one channel"),
        (wave(1.0), 16, "rate=16 "),
    ],
)
def test_impossible_samples_are_refused(model, samples, rate, reason):
    with pytest.raises(ValueError, match=reason):
        model(samples, rate)


def test_gates_have_axes_and_are_those_of_the_heads(model, folder):
    records = ds_jax.explain(model, folder, window=0.5)
    expected = model.predict(folder, window=0.5)
    assert len(records) == 5
    for record, plain in zip(records, expected, strict=True):
        picture, gates = record.pop("picture"), record.pop("gates")
        assert record == plain
        assert picture.values.dtype == np.uint8
        assert [*gates] == list(model.config.model.gates)
        for gate in gates.values():
            assert gate.values.shape == (len(gate.hertz), len(gate.seconds))
            assert ((gate.values >= 0) & (gate.values <= 1)).all()
            assert record["start"] < gate.seconds[0] <= gate.seconds[-1] < record["end"]
            assert 8000 > gate.hertz[0] >= gate.hertz[-1] > 0


def test_models_without_gates_cannot_be_explained(finished_runs, folder):
    with pytest.raises(ValueError, match="no attention gates"):
        ds_jax.explain(ds_jax.load(finished_runs("svc")), folder)


def test_the_card_says_what_is_known(model, run):
    card = model.card
    assert (card["system"], card["trained_on"], card["labels"]) == ("DS-AM", "tiny", list(LABELS))
    assert [each["fold"] for each in card["models"]] == ["fold_00", "fold_01", "fold_02"]
    assert card["scores"][0]["tested_on"] == "tiny"
    assert VGG16.terms in card["licences"]
    assert card["config"] == model.config.to_dict()
    assert card["weights"] == ""  # the tests' own have no file
    assert model.classes == LABELS
    assert ds_jax.load(run / "fold_01").count == 1


def test_the_card_names_files_without_this_machine_s_folders(run_copy, tmp_path):
    weights = tmp_path / "own.h5"
    for path in (run_copy / "config.json", *run_copy.glob("fold_*/checkpoints/card.json")):
        given = {"weights": str(weights), "weights_sha256": "abc"}
        tiny.tamper(path, lambda x, given=given: x.get("config", x).update(given))
    card = ds_jax.load(run_copy).card
    assert (card["config"]["weights"], card["weights"]) == ("own.h5", "sha256:abc")
    assert str(tmp_path) not in json.dumps(card)


def test_a_missing_run_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no finished fold"):
        ds_jax.load(tmp_path)
