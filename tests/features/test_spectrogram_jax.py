"""Pictures drawn in JAX equal those of NumPy, whatever follows the audio."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ds_jax.features import audio, spectrogram, spectrogram_jax
from ds_jax.features.spectrogram import PictureSettings

RATE = 16_000
CORPORA = os.environ.get("DS_JAX_CORPORA", "")


def speech_like(count, seed=0):
    """Harmonics of a gliding tone in noise, some of it digital silence."""
    rng, time = np.random.default_rng(seed), np.arange(count) / RATE
    tone = sum(np.sin(2 * np.pi * k * (120 + 20 * time) * time) / k for k in range(1, 30))
    samples = 0.1 * tone + rng.normal(0, 0.003, count)
    samples[count // 3 : count // 2] = 0
    return samples.astype(np.float32)


def padded(samples, size):
    """Samples, followed by values that must be ignored."""
    return np.concatenate([samples, np.full(size - len(samples), 9.0, np.float32)])


def drawn(samples, settings, size):
    draw = jax.jit(spectrogram_jax.draw, static_argnums=(2, 3))
    return np.asarray(draw(padded(samples, size), np.int32(len(samples)), settings, RATE))


@pytest.mark.parametrize(
    "settings",
    [
        PictureSettings(),
        PictureSettings(layout="plain", floor_db=60.0, canvas=48),
        PictureSettings(mode="spectrogram"),
        PictureSettings(mode="spectrogram", fmin=300.0, fmax=4000.0, layout="plain"),
        PictureSettings(n_fft=400, hop=160, mel_bands=40, fmin=50.0, fmax=7600.0),
        PictureSettings(n_fft=256, hop=300, mel_bands=32),
    ],
    ids=lambda settings: f"{settings.mode}-{settings.layout}-{settings.n_fft}",
)
def test_pictures_are_the_same(settings):
    for count in (1, 511, 512, 767, 768, 9_011, 10_000):
        samples, size = speech_like(count), 10_000
        found = drawn(samples, settings, size)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, spectrogram.draw(samples, RATE, settings), str(count))


@pytest.mark.parametrize("floor_db", [0.0, 80.0])
@pytest.mark.parametrize("subtract", [False, True], ids=["levels", "deviations"])
def test_timelines_are_the_same_and_0_after_their_end(floor_db, subtract):
    settings = PictureSettings(
        layout="timeline", mel_bands=64, floor_db=floor_db, subtract_band_means=subtract
    )
    for count in (1, 768, 16_000, 40_000):
        samples = speech_like(count)
        found, expected = (
            drawn(samples, settings, 40_000),
            spectrogram.draw(samples, RATE, settings),
        )
        assert found.dtype == np.uint8
        assert found.shape[1] % 32 == 0
        # The mean of a band is added up in another order, and a level may lie between two colours.
        difference = spectrogram.unpadded(found).astype(int) - expected
        assert np.abs(difference).max() <= subtract, str(count)
        assert np.mean(difference != 0) < 0.02
        assert not found[:, expected.shape[1] :].any()


def test_less_than_a_frame_and_nothing_after_it_is_drawn():
    samples = speech_like(200)
    expected = spectrogram.draw(samples, RATE, PictureSettings())
    np.testing.assert_array_equal(drawn(samples, PictureSettings(), 200), expected)


def test_silence_has_one_colour():
    assert not drawn(np.zeros(4000, np.float32), PictureSettings(), 4000).any()


def test_in_float32_pixels_are_one_colour_away_at_most():
    """A TPU lacks float64."""
    settings = PictureSettings()
    plan = spectrogram.plan(settings, RATE)
    samples = speech_like(30_000)
    frames = np.lib.stride_tricks.sliding_window_view(samples, plan.n_fft)[:: plan.hop]
    spectra = np.fft.rfft(frames * plan.hann)
    parts = (jnp.asarray(x, jnp.float32) for x in (spectra.real, spectra.imag))
    with jax.enable_x64():  # as when it is traced
        found = spectrogram_jax._paint(plan, settings, jnp.float32, *parts, len(frames))
    difference = np.abs(np.asarray(found, int) - spectrogram.draw(samples, RATE, settings))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


@pytest.mark.parametrize(
    ("window", "window_hop"), [(0.0, 0.0), (0.05, 0.0), (0.05, 0.02), (0.025, 0.04), (0.3, 0.3)]
)
def test_windows_are_the_same(window, window_hop):
    settings = PictureSettings(window=window, window_hop=window_hop)
    split = jax.jit(spectrogram_jax.split_windows, static_argnums=(2, 3))
    for count in (10, 800, 1900, 3200):
        samples = speech_like(count)
        expected = settings.windowing.split(samples, RATE)
        windows, lengths, real = split(padded(samples, 3200), np.int32(count), settings, RATE)
        assert int(real.sum()) == len(expected)
        assert real[: len(expected)].all()  # windows after the audio come last
        for found, length, other in zip(windows, lengths, expected, strict=False):
            assert int(length) == len(other)
            np.testing.assert_array_equal(found[: len(other)], other)


@pytest.mark.skipif(not CORPORA, reason="needs real recordings: set DS_JAX_CORPORA")
def test_pictures_of_real_recordings_are_the_same():
    recordings = sorted(Path(CORPORA).glob("emo*/**/*.flac"))[::100]
    assert recordings
    for path in recordings:
        samples = audio.read(path, RATE)[0][:48_000]
        expected = spectrogram.draw(samples, RATE, PictureSettings())
        found = drawn(samples, PictureSettings(), 48_000)
        np.testing.assert_array_equal(found, expected, str(path))
