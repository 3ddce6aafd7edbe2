"""The sets of features, and recordings as systems read them."""

import dataclasses
import re
import sys

import numpy as np
import pytest
import soundfile
from refusals import refused_field

from configs import base
from ds_jax.features import extract, mfcc, modulation, opensmile
from ds_jax.features.audio import Windowing
from ds_jax.features.extract import FeatureSettings, compute
from ds_jax.features.spectrogram import PictureSettings
from ds_jax.runtime.errors import ConfigError

SHAPES = {
    "msf": (95,),
    "msf_wu": (118,),
    "wu": (46,),
    "mfcc": (60,),
    "mfcc_frames": (None, 12),
    "msf_mfcc": (155,),
    "egemaps": (88,),
    "compare": (6373,),
}
OPENSMILE = {"egemaps": "eGeMAPSv02", "compare": "ComParE_2016"}


def syllables(seconds=1.0, seed=0):
    """Noise that comes and goes four times a second."""
    time = np.arange(int(16_000 * seconds)) / 16_000
    noise = np.random.default_rng(seed).normal(0, 0.1, time.size)
    return (noise * (1 + np.sin(8 * np.pi * time))).astype(np.float32)


def reference(name, samples):
    """The same features from the module that computes them."""
    if name in OPENSMILE:
        return opensmile.functionals(samples, OPENSMILE[name])
    if name == "msf_mfcc":
        return np.concatenate([reference(part, samples) for part in ("msf", "mfcc")])
    functions = {"msf": modulation.energies, "msf_wu": modulation.with_measures}
    functions["wu"] = modulation.statistics_of_measures
    return (functions | {"mfcc": mfcc.statistics, "mfcc_frames": mfcc.frames})[name](samples)


@pytest.fixture(params=SHAPES)
def settings(request):
    if request.param in OPENSMILE:
        pytest.importorskip("opensmile", reason="the optional package opensmile is missing")
    return FeatureSettings(request.param)


def test_a_set_is_of_its_module_and_shape_and_leaves_the_samples_alone(settings):
    samples = syllables()
    before = samples.copy()
    found = compute(samples, settings)
    assert settings.shape == SHAPES[settings.set]
    assert found.shape == tuple(size or 98 for size in settings.shape)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, reference(settings.set, samples))
    np.testing.assert_array_equal(samples, before)


def test_silence_and_short_clips_have_finite_features(settings):
    for samples in (np.zeros(8000), syllables(0.06)):
        assert np.isfinite(compute(samples, settings)).all()


def test_keys_fit_folders_and_change_with_the_version(monkeypatch):
    assert list(extract.SETS) == [*SHAPES, "embeddings"]  # whose key has its model's hash
    keys = {name: FeatureSettings(name).key() for name in SHAPES}
    # Prepared corpora are found by the keys: a change here prepares all of them again.
    assert keys == {name: f"{name}-1" for name in SHAPES}
    for name in SHAPES:
        newer = extract.SETS[name]._replace(version=2)
        monkeypatch.setitem(extract.SETS, name, newer)
        assert FeatureSettings(name).key() not in keys.values()


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("MSF", "msf"), ("mfc_frames", "mfcc_frames"), ("eGeMAPSv02", "egemaps"), ("", ""), (5, "")],
)
def test_an_unknown_set_is_an_error_with_the_nearest(name, nearest):
    with pytest.raises(ConfigError) as error:
        FeatureSettings(name)
    assert (error.value.field, error.value.value) == ("features", name)
    assert all(repr(known) in error.value.allowed for known in SHAPES)
    assert error.value.allowed.count(repr(nearest)) == (2 if nearest else 0)


@pytest.mark.parametrize(
    "result", [np.full(60, np.nan), np.full(60, np.inf), np.zeros(59), np.zeros((60, 1))]
)
def test_features_of_another_shape_or_not_finite_are_refused(monkeypatch, result):
    broken = extract.SETS["mfcc"]._replace(function=lambda samples: result)
    monkeypatch.setitem(extract.SETS, "mfcc", broken)
    with pytest.raises(ValueError, match="'mfcc'"):
        compute(syllables(), FeatureSettings("mfcc"))


def test_without_opensmile_its_sets_alone_are_missing(monkeypatch):
    opensmile._extractor.cache_clear()
    monkeypatch.setitem(sys.modules, "opensmile", None)
    for name in OPENSMILE:
        with pytest.raises(ValueError, match=r"requirements-opensmile\.txt.*non-commercial"):
            compute(syllables(), FeatureSettings(name))
        with pytest.raises(ValueError, match="opensmile"):
            FeatureSettings(name).check()
    assert compute(syllables(), FeatureSettings("mfcc")).shape == (60,)


@pytest.fixture
def recording(tmp_path):
    """A second of a rising tone at 16 kHz."""
    seconds = np.arange(16_000) / 16_000
    soundfile.write(tmp_path / "tone.wav", 0.3 * np.sin(900 * seconds * (1 + seconds)), 16_000)
    return tmp_path / "tone.wav"


@pytest.mark.parametrize("trim", [0.0, 40.0])
@pytest.mark.parametrize("form", [PictureSettings(canvas=32), FeatureSettings("mfcc")])
def test_recordings_are_trimmed_alike_in_preparing_and_predicting(tmp_path, trim, form):
    settings = dataclasses.replace(form, trim=trim)
    rng = np.random.default_rng(0)
    speech = rng.normal(0, 0.1, 16_000)
    silence = rng.normal(0, 1e-4, 32_000)
    whole = np.concatenate([silence, speech, silence])
    for name, samples in (("whole", whole), ("speech", whole[32_000 - 1600 : 48_000 + 1600])):
        soundfile.write(tmp_path / f"{name}.wav", samples, 16_000, subtype="FLOAT")
    seconds, (prepared,), digest = extract.read(tmp_path / "whole.wav", settings)
    assert seconds == 5.0
    assert digest == extract.read(tmp_path / "whole.wav", form)[2]
    ((seconds, start, end, rate, predicted),) = extract.windows(
        tmp_path / "whole.wav", settings, Windowing()
    )
    assert (seconds, start, end) == ((5.0, 1.9, 3.1) if trim else (5.0, 0.0, 5.0))
    assert rate == 16_000
    np.testing.assert_array_equal(predicted, prepared)
    expected = extract.read(tmp_path / ("speech.wav" if trim else "whole.wav"), form)[1][0]
    np.testing.assert_array_equal(prepared, expected)
    parts = list(extract.windows(tmp_path / "whole.wav", settings, Windowing(0.3)))
    assert len(parts) == (4 if trim else 16)
    assert parts[0][1] == (1.9 if trim else 0.0)
    assert (settings.key() == form.key()) == (not trim)


def test_how_recordings_are_read_is_a_field_of_both_kinds_of_configs():
    config = base.get_config()
    config.trim, config.channel, config.raw_rate = 35, "left", 8000
    assert extract.settings(config).trim == 35.0
    base.use_mlr(config, "mfcc")
    assert extract.settings(config) == FeatureSettings(
        "mfcc", trim=35.0, channel="left", raw_rate=8000
    )
    for field, value in (("trim", -1.0), ("channel", "both"), ("raw_rate", 999)):
        config = base.get_config()
        config[field] = value
        assert refused_field(extract.settings, config) == field


def test_a_config_with_features_has_no_picture():
    config = base.get_config()
    assert extract.settings(config) == PictureSettings()
    config.picture.size = 10
    assert refused_field(extract.settings, config) == "picture.size"
    base.use_mlr(config, "mfcc")
    assert extract.settings(config) == FeatureSettings("mfcc")
    assert extract.settings({"features": "msf"}).shape == (95,)  # any mapping is a config


@pytest.mark.parametrize("mode", ["mel", "spectrogram"])
def test_windows_are_the_pictures_of_training_one_by_one(recording, mode):
    settings = PictureSettings(canvas=16, mode=mode, window=0.3, window_hop=0.1)
    found = list(extract.windows(recording, settings, settings.windowing))
    starts = [0.1 * k for k in range(10)]
    assert [start for _, start, *_ in found] == pytest.approx(starts)
    assert [end for _, _, end, *_ in found] == pytest.approx([min(s + 0.3, 1) for s in starts])
    expected = extract.read(recording, settings)[1]
    np.testing.assert_array_equal([array for *_, array in found], expected)


def test_without_a_window_a_recording_is_whole(recording):
    settings = PictureSettings(canvas=16, window=0.25)  # its windows are not asked for
    ((seconds, start, end, _, array),) = extract.windows(recording, settings, Windowing())
    assert (seconds, start, end) == (1, 0, 1)
    whole = extract.read(recording, PictureSettings(canvas=16))[1]
    np.testing.assert_array_equal(array, whole[0])


def test_a_window_without_features_has_an_error_and_the_others_have_features(
    recording, monkeypatch
):
    def fail_if_short(samples, settings):
        if len(samples) < 0.3 * 16_000:
            raise ValueError("too short")
        return np.ones(60, np.float32)

    monkeypatch.setattr(extract, "compute", fail_if_short)
    settings = FeatureSettings("mfcc")
    found = [array for *_, array in extract.windows(recording, settings, Windowing(0.4, 0.2))]
    assert [type(array) for array in found] == [np.ndarray] * 4 + [ValueError]
    assert re.fullmatch("too short", str(found[-1]))
    monkeypatch.setattr(extract, "compute", lambda *_: fail_if_short(np.zeros(1), None))
    with pytest.raises(ValueError, match="too short"):  # a whole recording has no other windows
        list(extract.windows(recording, settings, Windowing()))


def test_sequences_are_padded_with_nan_and_other_arrays_are_stacked():
    rng = np.random.default_rng(0)
    short, long = rng.random((2, 3), np.float32), rng.random((5, 3), np.float32)
    stacked = extract.stack([short, long])
    assert (stacked.shape, stacked.dtype) == ((2, 5, 3), np.float32)
    np.testing.assert_array_equal(stacked[0, :2], short)
    assert np.isnan(stacked[0, 2:]).all()
    np.testing.assert_array_equal(stacked[1], long)
    pictures = [np.full((4, 4), value, np.uint8) for value in range(3)]
    assert extract.stack(pictures).dtype == np.uint8
    np.testing.assert_array_equal(extract.stack(pictures), pictures)
