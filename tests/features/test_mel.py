"""Mel bands are librosa's."""

import warnings

import librosa
import numpy as np
import pytest

from ds_jax.features import mel, spectrogram
from ds_jax.features.spectrogram import PictureSettings

SHAPES = [
    (16_000, 512, 128, 0.0, 8000.0),
    (16_000, 512, 64, 0.0, 8000.0),
    (16_000, 400, 40, 50.0, 3700.0),
    (44_100, 2048, 128, 1500.0, 22_050.0),
    (8000, 256, 300, 0.0, 900.0),  # more bands than bins: some are empty
]


@pytest.mark.parametrize("shape", SHAPES)
def test_bands_and_frequencies_are_those_of_librosa(shape):
    rate, n_fft, count, low, high = shape
    expected = librosa.mel_frequencies(count, fmin=low, fmax=high)
    np.testing.assert_array_equal(mel.frequencies(count, low, high), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # librosa warns of empty bands
        expected = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=count, fmin=low, fmax=high)
    found = mel.bands(*shape)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("n_fft", [2, 400, 512, 2048])
def test_frames_are_weighted_by_librosa_s_window(n_fft):
    settings = PictureSettings(n_fft=n_fft, mode="spectrogram")
    expected = librosa.filters.get_window("hann", n_fft, fftbins=True).astype(np.float32)
    np.testing.assert_array_equal(spectrogram.plan(settings, 16_000).hann, expected)
