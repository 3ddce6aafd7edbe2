"""Features of openSMILE equal those that its package computes of files."""

import joblib
import numpy as np
import pytest
import soundfile

from ds_jax.features.opensmile import functionals


@pytest.fixture(params=["eGeMAPSv02", "ComParE_2016"])
def feature_set(request):
    return request.param


@pytest.fixture
def opensmile():
    return pytest.importorskip("opensmile", reason="the optional package opensmile is missing")


def voice(pitch=150.0, seconds=1.0, seed=0):
    """Harmonics of a pitch in Hz, and some noise; whole 16-bit steps."""
    time = np.arange(int(16_000 * seconds)) / 16_000
    tone = sum(np.sin(2 * np.pi * pitch * order * time) / order for order in range(1, 20))
    noise = np.random.default_rng(seed).normal(0, 0.01, time.size)
    return (np.round(8192 * (tone / 2 + noise)) / 32768).astype(np.float32)


@pytest.mark.parametrize("gain", [1, 6])
def test_features_are_those_of_a_16_bit_file_where_peaks_are_clipped(
    opensmile, feature_set, gain, tmp_path
):
    samples = gain * voice()
    assert (samples.max() > 1) == (gain > 1)
    steps = np.clip(np.round(samples * 32768), -32768, 32767).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", steps, 16_000)
    level = opensmile.FeatureLevel.Functionals
    extractor = opensmile.Smile(opensmile.FeatureSet[feature_set], level)
    expected = extractor.process_file(tmp_path / "a.wav").to_numpy()[0]
    np.testing.assert_array_equal(functionals(samples, feature_set), expected)


def test_features_are_the_same_again_and_in_other_processes(opensmile, feature_set):
    clips = [voice(pitch, 0.4) for pitch in (100, 180, 260)]
    first = [functionals(clip, feature_set) for clip in clips]
    again = [functionals(clip, feature_set) for clip in reversed(clips)]
    others = joblib.Parallel(n_jobs=2)(
        joblib.delayed(functionals)(clip, feature_set) for clip in clips
    )
    np.testing.assert_array_equal(again[::-1], first)
    np.testing.assert_array_equal(others, first)


def test_60_ms_are_enough_and_less_is_too_short(opensmile, feature_set):
    assert np.isfinite(functionals(voice()[:960], feature_set)).all()
    for count in (0, 1, 400, 959):
        with pytest.raises(ValueError, match="too short"):
            functionals(voice()[:count], feature_set)
