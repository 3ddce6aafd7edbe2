"""Timelines: pictures of a fixed time scale, as wide as their recordings are long."""

from dataclasses import replace

import numpy as np
import pytest
from refusals import refused_field
from signals import sound

from ds_jax.features import spectrogram
from ds_jax.features.spectrogram import PictureSettings, draw, matrix

TIMELINE = PictureSettings(layout="timeline", mel_bands=64, floor_db=80.0, colour_map="gray")


@pytest.mark.parametrize("seconds", [0.01, 1.0, 3.3])
def test_a_timeline_has_a_pixel_a_frame_and_a_row_a_band(seconds):
    samples = sound(seconds)
    picture, cells = draw(samples, 16000, TIMELINE), matrix(samples, 16000, TIMELINE)
    assert picture.dtype == np.uint8
    assert picture.shape == (64, max(64, len(cells)))
    decibels = 10 * np.log10(np.maximum(cells.T[::-1], 1e-10))
    low = max(decibels.min(), decibels.max() - 80)
    wanted = 255 * (decibels - low) / (decibels.max() - low)
    np.testing.assert_allclose(picture[:, : len(cells)], np.clip(wanted, 1, 255), atol=1)
    assert picture.min() == 1  # 0 stands for what is no picture
    assert (picture[:, len(cells) :] == 1).all()


def test_the_range_of_a_timeline_is_that_of_a_quiet_recording():
    """Where the range is less than the floor, the colours go from the least to the most."""
    noise = np.random.default_rng(0).normal(size=16000)
    picture = draw(noise, 16000, TIMELINE)
    assert (picture.min(), picture.max()) == (1, 255)
    np.testing.assert_array_equal(picture, draw(noise, 16000, replace(TIMELINE, floor_db=0.0)))


def test_band_means_are_subtracted_from_decibels():
    settings, samples = replace(TIMELINE, subtract_band_means=True), sound(1.7)
    decibels = 10 * np.log10(np.maximum(matrix(samples, 16000, settings), 1e-10)).T[::-1]
    decibels = np.maximum(decibels, decibels.max() - 80)
    wanted = 256 * (decibels - decibels.mean(axis=1, keepdims=True) + 30) / 60
    picture = draw(samples, 16000, settings)
    assert picture.shape == (64, len(matrix(samples, 16000, settings)))
    np.testing.assert_allclose(picture, np.clip(wanted, 1, 255), atol=1)


def test_padding_is_told_from_a_timeline():
    pictures = [draw(sound(seconds), 16000, TIMELINE) for seconds in (0.5, 1.4, 2.0)]
    padded = np.zeros((3, 64, 200), np.uint8)
    for row, picture in zip(padded, pictures, strict=True):
        row[:, : picture.shape[1]] = picture
    widths = [picture.shape[1] for picture in pictures]
    assert spectrogram.widths(padded).tolist() == widths == [64, 86, 124]
    for row, picture in zip(padded, pictures, strict=True):
        np.testing.assert_array_equal(spectrogram.unpadded(row), picture)


def test_timelines_are_padded_to_few_widths():
    widths = range(64, 3000)
    padded = [spectrogram.padded_width(width) for width in widths]
    assert all(width <= more <= 1.5 * width for width, more in zip(widths, padded, strict=True))
    assert len(set(padded)) == 12


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("canvas", 128),
        ("size", 128),
        ("mode", "chroma"),
        ("mode", "spectrogram"),
        ("mel_bands", 31),
    ],
)
def test_what_does_not_apply_to_a_timeline_is_refused(field, value):
    assert refused_field(replace, TIMELINE, **{field: value}) == f"picture.{field}"
