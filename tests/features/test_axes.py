"""Rows and columns of pictures and gates stand for the right frequencies and times."""

import numpy as np
import pytest

from ds_jax.features import axes, spectrogram
from ds_jax.features.spectrogram import PictureSettings

RATE = 16_000
TIMELINE = {"layout": "timeline", "mel_bands": 64}


def tone(hertz, start, stop, seconds=2.0):
    """A tone in the middle of silence."""
    time = np.arange(int(seconds * RATE)) / RATE
    return np.where((start <= time) & (time < stop), np.sin(2 * np.pi * hertz * time), 0)


@pytest.mark.parametrize("hertz", [300, 1500, 5000])
@pytest.mark.parametrize(
    "fields",
    [{}, {"layout": "plain"}, {"mode": "spectrogram"}, TIMELINE, {"fmin": 200.0, "fmax": 6000.0}],
)
def test_a_tone_is_found_where_it_sounds(hertz, fields):
    drawn = axes.spectrogram(tone(hertz, 0.6, 1.4), RATE, PictureSettings(**fields))
    assert drawn.values.shape == (len(drawn.hertz), len(drawn.seconds))
    assert (np.diff(drawn.seconds) > 0).all()
    assert (np.diff(drawn.hertz) <= 0).all()
    middle = drawn.values[:, np.abs(drawn.seconds - 1).argmin()]
    loudest = drawn.hertz[middle == middle.max()].mean()
    assert loudest == pytest.approx(hertz, rel=0.03, abs=RATE / 512)  # a Fourier bin
    columns = (drawn.values > 230).any(axis=0)
    assert drawn.seconds[columns].min() == pytest.approx(0.6, abs=0.025)
    assert drawn.seconds[columns].max() == pytest.approx(1.4, abs=0.025)


def test_the_values_are_the_picture_s_at_the_settings_rate():
    samples = tone(700, 0.2, 1.7)
    drawn = axes.spectrogram(samples, RATE)
    expected = spectrogram.draw(samples, RATE, PictureSettings())
    np.testing.assert_array_equal(drawn.values, expected)
    assert axes.spectrogram(samples, RATE, PictureSettings(sample_rate=8000)).hertz[0] < 4000


def test_pitch_classes_have_no_frequency():
    settings = PictureSettings(mode="chroma")
    drawn = axes.of_picture(np.zeros(settings.shape, np.uint8), 0.0, RATE, RATE, settings)
    assert np.isnan(drawn.hertz).all()
    assert not np.isnan(drawn.seconds).any()


@pytest.mark.parametrize("fields", [{"size": 96, "layout": "plain", "canvas": 192}, TIMELINE])
def test_a_cell_of_a_gate_is_in_the_middle_of_its_pixels(fields):
    settings = PictureSettings(**fields)
    picture = axes.spectrogram(tone(700, 0, 2), RATE, settings)
    scale = 1 if settings.is_timeline else 2  # pixels of the picture for one of the input
    for stride in (8, 16):
        cells = [size // scale // stride for size in picture.values.shape]
        gate = axes.of_gate(np.zeros(cells, np.float32), picture, settings)
        pixels = stride * scale
        for axis, found in ((picture.hertz, gate.hertz), (picture.seconds, gate.seconds)):
            means = axis[: len(axis) // pixels * pixels].reshape(-1, pixels)
            middles = means[:, pixels // 2 - 1 : pixels // 2 + 1].mean(axis=1)
            np.testing.assert_allclose(found, middles[: len(found)])


@pytest.mark.parametrize(
    ("size", "cells", "share"),
    [
        (227, 14, 224 / 227),  # VGG16's gates, on whole cells alone
        (96, 3, 1.0),
        (299, 10, 1.0),  # Xception
        (299, 8, 1.0),  # InceptionV3
        (331, 11, 1.0),  # NASNetLarge
        (240, 8, 1.0),  # EfficientNetV2B1
        (260, 9, 1.0),  # EfficientNetV2B2
        (300, 10, 1.0),  # EfficientNetV2B3
    ],
)
def test_the_cells_of_a_gate_cover_almost_all_of_a_picture(size, cells, share):
    assert axes.covered(cells, 227, PictureSettings(size=size)) == pytest.approx(share)


def test_a_window_begins_where_it_was_cut():
    settings = PictureSettings()
    picture = spectrogram.draw(tone(700, 0, 1, 1.0), RATE, settings)
    first, later = (axes.of_picture(picture, start, RATE, RATE, settings) for start in (0.0, 2.5))
    np.testing.assert_allclose(later.seconds - first.seconds, 2.5)
    assert 0 < first.seconds[0] < first.seconds[-1] < 1
