"""Colours are those of the colour map, and a closed gate hides."""

import io

import cmap
import numpy as np
import pytest
from PIL import Image

from ds_jax.report import images

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


def decoded(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


@pytest.mark.parametrize("name", ["viridis", "gray"])
def test_indices_become_the_colours_of_the_map(name):
    expected = np.asarray(cmap.Colormap(name)(RAMP))[..., :3] * 255
    np.testing.assert_allclose(images.colour(RAMP, name), expected, atol=1)


def test_a_gate_fades_to_white_where_it_is_least_open():
    pixels = images.colour(RAMP)
    gate = np.repeat([[0.2, 0.2, 0.4, 0.4]], 4, axis=0)
    faded = images.fade_by_gate(pixels, gate).astype(int)
    np.testing.assert_array_equal(faded[:, -4:], pixels[:, -4:])
    expected = 255 - (255 - pixels[:, :4].astype(int)) * images.LEAST_OPACITY
    np.testing.assert_allclose(faded[:, :4], expected, atol=1)
    assert (faded >= pixels).all()


def test_a_constant_gate_hides_nothing():
    pixels = images.colour(RAMP)
    np.testing.assert_array_equal(images.fade_by_gate(pixels, np.full((7, 7), 0.3)), pixels)


def test_a_png_holds_every_pixel_and_a_palette_makes_it_smaller():
    rng = np.random.default_rng(0)
    few = images.colour(rng.integers(0, 256, (32, 32), np.uint8))
    many = rng.integers(0, 256, (32, 32, 3), np.uint8)
    for pixels, mode in ((few, "P"), (many, "RGB")):
        content = images.png(pixels)
        image = Image.open(io.BytesIO(content))
        assert (image.format, image.mode) == ("PNG", mode)
        np.testing.assert_array_equal(decoded(content), pixels)
