"""Colours are those of the colour map, and a closed gate hides."""

import io

import cmap
import numpy as np
import pytest
from PIL import Image

from ds_jax.report import overlay

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.mark.parametrize("name", ["viridis", "gray"])
def test_indices_become_the_colours_of_the_map(name):
    expected = np.asarray(cmap.Colormap(name)(RAMP))[..., :3] * 255
    np.testing.assert_allclose(overlay.colour(RAMP, name), expected, atol=1)


def test_a_gate_fades_to_white_where_it_is_least_open():
    pixels = overlay.colour(RAMP)
    gate = np.repeat([[0.2, 0.2, 0.4, 0.4]], 4, axis=0)
    veiled = overlay.fade_by_gate(pixels, gate).astype(int)
    np.testing.assert_array_equal(veiled[:, -4:], pixels[:, -4:])
    faded = 255 - (255 - pixels[:, :4].astype(int)) * overlay.LEAST_OPACITY
    np.testing.assert_allclose(veiled[:, :4], faded, atol=1)
    assert (veiled >= pixels).all()


def test_a_flat_gate_hides_nothing():
    pixels = overlay.colour(RAMP)
    np.testing.assert_array_equal(overlay.fade_by_gate(pixels, np.full((7, 7), 0.3)), pixels)


def test_a_png_holds_every_pixel_and_a_palette_makes_it_smaller():
    noise = np.random.default_rng(0).integers(0, 256, (32, 32), np.uint8)
    few = overlay.colour(noise)
    many = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    for pixels, mode in ((few, "P"), (many, "RGB")):
        image = Image.open(io.BytesIO(overlay.png(pixels)))
        assert (image.format, image.mode) == ("PNG", mode)
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), pixels)
