import re
import sys

import numpy as np
import pytest

from ds_jax.features import extract, mfcc, modulation, opensmile
from ds_jax.features.extract import FeatureSettings, compute

SHAPES = {
    "msf": (95,),
    "msf_wu": (118,),
    "mfcc": (60,),
    "mfcc_frames": (None, 12),
    "msf_mfcc": (155,),
    "egemaps": (88,),
    "compare": (6373,),
}
OPENSMILE = ("egemaps", "compare")


@pytest.fixture(params=SHAPES)
def settings(request):
    if request.param in OPENSMILE:
        pytest.importorskip("opensmile", reason="the optional package opensmile is missing")
    return FeatureSettings(request.param)


def syllables(seconds=1.0, seed=0):
    """Noise that comes and goes four times a second."""
    time = np.arange(int(16_000 * seconds)) / 16_000
    noise = np.random.default_rng(seed).normal(0, 0.1, time.size)
    return (noise * (1 + np.sin(8 * np.pi * time))).astype(np.float32)


def test_features_have_the_shape_that_the_settings_promise(settings):
    found = compute(syllables(), 16_000, settings)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert settings.shape == SHAPES[settings.set]
    assert found.shape == tuple(size or 98 for size in settings.shape)


def test_the_sets_are_the_known_ones():
    assert list(extract.SETS) == list(SHAPES)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("msf", modulation.energies),
        ("msf_wu", modulation.with_measures),
        ("mfcc", mfcc.statistics),
        ("mfcc_frames", mfcc.frames),
    ],
)
def test_each_name_means_its_own_numbers(name, function):
    samples = syllables()
    found = compute(samples, 16_000, FeatureSettings(name))
    np.testing.assert_array_equal(found, function(samples))


@pytest.mark.parametrize(
    ("name", "theirs"), [("egemaps", "eGeMAPSv02"), ("compare", "ComParE_2016")]
)
def test_each_name_means_its_own_numbers_of_opensmile(name, theirs):
    pytest.importorskip("opensmile", reason="the optional package opensmile is missing")
    samples = syllables()
    found = compute(samples, 16_000, FeatureSettings(name))
    np.testing.assert_array_equal(found, opensmile.functionals(samples, theirs))


def test_msf_mfcc_is_one_after_the_other():
    both, first, second = (
        compute(syllables(), 16_000, FeatureSettings(name)) for name in ("msf_mfcc", "msf", "mfcc")
    )
    np.testing.assert_array_equal(both, np.concatenate([first, second]))


def test_features_repeat_exactly_and_leave_the_samples_alone(settings):
    samples = syllables()
    before = samples.copy()
    first = compute(samples, 16_000, settings)
    compute(syllables(0.5, seed=1), 16_000, settings)
    np.testing.assert_array_equal(compute(samples, 16_000, settings), first)
    np.testing.assert_array_equal(samples, before)


def test_silence_and_short_clips_have_finite_features(settings):
    for samples in (np.zeros(8000), syllables(0.1), syllables(0.06)):
        assert np.isfinite(compute(samples, 16_000, settings)).all()


def test_keys_name_set_and_version_and_fit_folders(monkeypatch):
    keys = {name: FeatureSettings(name).key() for name in extract.SETS}
    assert keys["msf"] == "msf-1"
    for name, key in keys.items():
        assert re.fullmatch(rf"{name}-[1-9][0-9]*", key)
        newer = extract.SETS[name]._replace(version=extract.SETS[name].version + 1)
        monkeypatch.setitem(extract.SETS, name, newer)
        assert FeatureSettings(name).key() not in keys.values()


def test_settings_are_equal_when_their_sets_are():
    assert {FeatureSettings("msf"), FeatureSettings("msf"), FeatureSettings("mfcc")} == {
        FeatureSettings("mfcc"),
        FeatureSettings("msf"),
    }
    assert FeatureSettings("mfcc").sample_rate == 16_000


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("MSF", "msf"), ("mfc_frames", "mfcc_frames"), ("eGeMAPSv02", "egemaps"), ("wu", None)],
)
def test_an_unknown_set_is_named_with_those_there_are(name, nearest):
    with pytest.raises(ValueError, match=f"^features='{name}' is not one of ") as caught:
        FeatureSettings(name)
    assert ", ".join(SHAPES) in str(caught.value)
    assert nearest is None or str(caught.value).endswith(f"did you mean '{nearest}'?")


@pytest.mark.parametrize("value", ["", None, 5])
def test_what_is_no_name_is_refused(value):
    with pytest.raises(ValueError, match=f"^features={value!r} is not one of msf, .*compare$"):
        FeatureSettings(value)


@pytest.mark.parametrize("shape", [(0,), (), (16_000, 2)])
def test_samples_must_be_one_channel(shape):
    with pytest.raises(ValueError, match="one channel"):
        compute(np.zeros(shape, np.float32), 16_000, FeatureSettings("mfcc"))


def test_samples_must_be_at_16_khz():
    with pytest.raises(ValueError, match="rate=44100 Hz must be 16000 Hz"):
        compute(syllables(), 44_100, FeatureSettings("mfcc"))


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (np.full(60, np.nan), "finite"),
        (np.full(60, np.inf), "finite"),
        (np.zeros(59), r"\(59,\), not \(60,\)"),
        (np.zeros((60, 1)), r"\(60, 1\), not \(60,\)"),
    ],
)
def test_features_that_break_the_promise_are_refused(monkeypatch, result, reason):
    broken = extract.SETS["mfcc"]._replace(function=lambda samples: result)
    monkeypatch.setitem(extract.SETS, "mfcc", broken)
    with pytest.raises(ValueError, match=f"features 'mfcc' are .*{reason}"):
        compute(syllables(), 16_000, FeatureSettings("mfcc"))


@pytest.mark.parametrize("name", OPENSMILE)
def test_too_short_for_opensmile_is_said_so(name):
    pytest.importorskip("opensmile", reason="the optional package opensmile is missing")
    with pytest.raises(ValueError, match=r"^too short for openSMILE"):
        compute(syllables(0.05), 16_000, FeatureSettings(name))


def test_without_opensmile_its_sets_alone_are_missing(monkeypatch):
    opensmile._extractor.cache_clear()
    monkeypatch.setitem(sys.modules, "opensmile", None)
    for name in OPENSMILE:
        with pytest.raises(ValueError, match=f"'{name}'.*opensmile"):
            compute(syllables(), 16_000, FeatureSettings(name))
    assert compute(syllables(), 16_000, FeatureSettings("mfcc")).shape == (60,)
