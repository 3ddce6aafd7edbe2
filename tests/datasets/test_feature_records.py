"""Features are packaged by the same builders as pictures."""

import sys

import numpy as np
import pytest
import soundfile

from datasets.prepare import prepare
from ds_jax.data.corpus import load
from ds_jax.features import audio, extract
from ds_jax.features.extract import FeatureSettings

NAMES = ("03a01Fa", "03a01Wa", "08b02Na")


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """An EmoDB of three utterances of different lengths."""
    folder = tmp_path_factory.mktemp("corpora")
    (folder / "emodb" / "wav").mkdir(parents=True)
    for number, name in enumerate(NAMES):
        noise = np.random.default_rng(number).normal(0, 0.1, 8000 + 3000 * number)
        soundfile.write(folder / "emodb" / "wav" / f"{name}.wav", noise, 16_000)
    return folder


@pytest.mark.parametrize("name", ["mfcc", "msf_mfcc", "mfcc_frames"])
def test_records_hold_what_is_computed_from_the_recordings(corpora, tmp_path, name):
    settings = FeatureSettings(name)
    corpus = load(prepare("emodb", corpora, tmp_path, settings), "emodb")
    assert tuple(utterance.name for utterance in corpus.utterances) == NAMES
    assert corpus.inputs.dtype == np.float32
    for row, utterance in zip(corpus.inputs, NAMES, strict=True):
        samples, rate = audio.read(corpora / "emodb" / "wav" / f"{utterance}.wav", 16_000)
        wanted = extract.compute(samples, rate, settings)
        np.testing.assert_array_equal(row[: len(wanted)], wanted)
        assert np.isnan(row[len(wanted) :]).all()


def test_sets_of_features_lie_side_by_side_and_are_computed_once(corpora, tmp_path, monkeypatch):
    one = prepare("emodb", corpora, tmp_path, FeatureSettings("mfcc"))
    other = prepare("emodb", corpora, tmp_path, FeatureSettings("msf"))
    assert one.data_path.parent.parent == other.data_path.parent.parent
    assert load(one, "emodb").inputs.shape == (3, 60)
    assert load(other, "emodb").inputs.shape == (3, 95)
    again = prepare("emodb", corpora / "gone", tmp_path, FeatureSettings("mfcc"))
    np.testing.assert_array_equal(load(again, "emodb").inputs, load(one, "emodb").inputs)


def test_a_missing_package_is_said_before_anything_is_decoded(corpora, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "opensmile", None)
    with pytest.raises(ValueError, match=r"pip install -r requirements-opensmile\.txt"):
        prepare("emodb", corpora, tmp_path, FeatureSettings("egemaps"))
    assert not list(tmp_path.iterdir())
