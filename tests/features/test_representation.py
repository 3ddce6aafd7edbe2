"""What a system reads of a recording."""

import ml_collections
import numpy as np
import pytest
import soundfile

from configs import base
from ds_jax.features import extract, representation, spectrogram


@pytest.fixture
def recording(tmp_path):
    """A second of a rising tone at 16 kHz."""
    seconds = np.arange(16_000) / 16_000
    soundfile.write(tmp_path / "tone.wav", 0.3 * np.sin(900 * seconds * (1 + seconds)), 16_000)
    return tmp_path / "tone.wav"


def test_a_config_with_features_has_no_picture():
    config = base.get_config()
    assert representation.settings(config) == spectrogram.PictureSettings()
    base.use_mlr(config, "mfcc")
    assert representation.settings(config) == extract.FeatureSettings("mfcc")
    config.features = "mfc"
    with pytest.raises(ValueError, match="features='mfc'"):
        representation.settings(config)


def test_pictures_are_one_a_window_and_features_one_a_recording(recording):
    settings = spectrogram.PictureSettings(canvas=16, window=0.25)
    seconds, windows, _ = representation.read(recording, settings)
    assert seconds == 1
    assert [(w.shape, w.dtype) for w in windows] == [((16, 16), np.uint8)] * 4
    seconds, arrays, _ = representation.read(recording, extract.FeatureSettings("mfcc"))
    assert seconds == 1
    assert [(a.shape, a.dtype) for a in arrays] == [((60,), np.float32)]


@pytest.mark.parametrize("mode", ["mel", "spectrogram", "chroma"])
def test_windows_are_the_pictures_of_training_one_by_one(recording, mode):
    settings = spectrogram.PictureSettings(canvas=16, mode=mode, window=0.3, window_hop=0.1)
    _, expected, _ = representation.read(recording, settings)
    found = list(representation.windows(recording, settings, 0.3, 0.1))
    assert [start for _, start, _, _ in found] == pytest.approx([0.1 * k for k in range(10)])
    assert [end for _, _, end, _ in found] == pytest.approx(
        [min(0.1 * k + 0.3, 1) for k in range(10)]
    )
    np.testing.assert_array_equal([array for _, _, _, array in found], expected)


def test_without_a_window_a_recording_is_whole(recording):
    settings = spectrogram.PictureSettings(canvas=16, window=0.25)  # not asked for here
    ((seconds, start, end, array),) = representation.windows(recording, settings, 0, 0)
    assert (seconds, start, end) == (1, 0, 1)
    whole = spectrogram.PictureSettings(canvas=16)
    np.testing.assert_array_equal(array, representation.read(recording, whole)[1][0])


def test_a_window_without_features_says_why_and_the_others_have_some(recording, monkeypatch):
    def compute(samples, rate, settings):
        if len(samples) < 0.3 * rate:
            raise ValueError("too short")
        return np.ones(60, np.float32)

    monkeypatch.setattr(extract, "compute", compute)
    settings = extract.FeatureSettings("mfcc")
    found = list(representation.windows(recording, settings, 0.4, 0.2))
    assert [str(array) for _, _, _, array in found if isinstance(array, ValueError)] == [
        "too short"
    ]
    assert [isinstance(array, np.ndarray) for _, _, _, array in found] == [True] * 4 + [False]
    monkeypatch.setattr(extract, "compute", lambda *_: compute(np.zeros(1), 16_000, settings))
    with pytest.raises(ValueError, match="too short"):  # a whole recording has nothing besides
        list(representation.windows(recording, settings, 0, 0))


def test_sequences_are_padded_with_nan():
    rng = np.random.default_rng(0)
    short, long = rng.random((2, 3), np.float32), rng.random((5, 3), np.float32)
    stacked = representation.stack([short, long])
    assert stacked.shape == (2, 5, 3)
    assert stacked.dtype == np.float32
    np.testing.assert_array_equal(stacked[0, :2], short)
    assert np.isnan(stacked[0, 2:]).all()
    np.testing.assert_array_equal(stacked[1], long)


def test_vectors_and_pictures_are_stacked_as_they_are():
    pictures = [np.full((4, 4), value, np.uint8) for value in range(3)]
    assert representation.stack(pictures).dtype == np.uint8
    np.testing.assert_array_equal(representation.stack(pictures), pictures)


def test_a_plain_mapping_serves_as_config():
    assert representation.settings({"features": "msf"}).shape == (95,)
    config = ml_collections.ConfigDict({"picture": {"canvas": 32}})
    assert representation.settings(config).canvas == 32
