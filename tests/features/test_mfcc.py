"""Cepstral coefficients and their statistics equal their definitions."""

import numpy as np
import pytest
from scipy import signal

from ds_jax.features import mel, mfcc


def glide(seconds=1.0, seed=0):
    """A tone that rises from 200 Hz to 3 kHz, with some noise."""
    time = np.arange(int(16_000 * seconds)) / 16_000
    noise = np.random.default_rng(seed).normal(0, 0.01, time.size)
    return (0.5 * signal.chirp(time, 200, 1.0, 3000) + noise).astype(np.float32)


def from_scratch(samples):
    """The first 12 coefficients by their definition, float64 [frames, 12]."""
    cut = np.lib.stride_tricks.sliding_window_view(samples.astype(np.float64), 400)[::160]
    power = np.abs(np.fft.rfft(cut * signal.get_window("hann", 400), axis=1)) ** 2
    bands = power @ mel.bands(16_000, 400, 26, 0.0, 8000.0).T
    decibels = 10 * np.log10(np.maximum(bands, 1e-10))
    decibels = np.maximum(decibels, decibels.max() - 80)
    order, band = np.arange(12)[:, None], np.arange(26)
    cosines = np.sqrt(2 / 26) * np.cos(np.pi * order * (2 * band + 1) / 52)
    cosines[0] /= np.sqrt(2)
    return decibels @ cosines.T


@pytest.mark.parametrize("gain", [1.0, 1e-6], ids=["loud", "with a pause"])
def test_coefficients_are_those_of_the_definition(gain):
    samples = glide()
    samples[4000:9000] *= gain  # the bands end 80 dB below the loudest
    found = mfcc.frames(samples)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, from_scratch(samples), atol=2e-3)


@pytest.mark.parametrize(("samples", "count"), [(400, 1), (559, 1), (560, 2), (16_000, 98)])
def test_only_whole_frames_of_25_ms_every_10_ms_count(samples, count):
    assert mfcc.frames(glide()[:samples]).shape == (count, 12)


@pytest.mark.parametrize("count", [1, 399])
def test_less_than_a_frame_is_padded_with_zeros(count):
    samples = glide()[:count]
    padded = np.concatenate([samples, np.zeros(400 - count, np.float32)])
    np.testing.assert_array_equal(mfcc.frames(samples), mfcc.frames(padded))
    np.testing.assert_array_equal(mfcc.statistics(samples), mfcc.statistics(padded))


def test_statistics_are_moments_over_frames():
    samples = glide()
    coefficients = mfcc.frames(samples).astype(np.float64)
    mean = coefficients.mean(axis=0)
    second, third, fourth = (((coefficients - mean) ** power).mean(axis=0) for power in (2, 3, 4))
    expected = [mean, second, second**0.5, fourth / second**2 - 3, third / second**1.5]
    found = mfcc.statistics(samples)
    assert found.dtype == np.float32
    assert found.shape == (60,)
    np.testing.assert_allclose(found, np.concatenate(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "samples",
    [np.zeros(8000), np.full(8000, 0.5), np.tile([0.5, -0.5], 4000), np.eye(1, 400)[0]],
    ids=["silence", "constant", "alternating", "one frame"],
)
def test_coefficients_that_do_not_change_have_no_spread_and_no_shape(samples):
    found = mfcc.statistics(samples.astype(np.float32)).reshape(5, 12)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[1:3], 0, atol=1e-3)
    if not samples.any():
        assert (found[1:] == 0).all()


def test_a_click_in_silence_has_finite_statistics_and_the_samples_stay_as_they_are():
    samples = np.eye(1, 8000, 4000, dtype=np.float32)[0]
    before = samples.copy()
    assert np.isfinite(mfcc.statistics(samples)).all()
    np.testing.assert_array_equal(samples, before)
