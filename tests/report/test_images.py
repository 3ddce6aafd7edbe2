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


def test_wide_pictures_lie_below_each_other():
    wide = np.tile(RAMP, (1, 5))
    gates = {"first": np.full((2, 10), 0.5), "second": np.full((4, 20), 0.5)}
    sheet = decoded(images.explain(wide, "gray", gates, "title"))
    height = images.ENLARGED * 16 + images.CAPTION
    assert sheet.shape[:2] == (3 * height + images.MARGIN, images.ENLARGED * 80 + 2 * images.MARGIN)
    first = sheet[images.CAPTION :, images.MARGIN :][: 2 * 16, : 2 * 80]
    second = sheet[height + images.CAPTION :, images.MARGIN :][: 2 * 16, : 2 * 80]
    np.testing.assert_array_equal(first, second)  # a constant gate hides nothing
    np.testing.assert_array_equal(first[::2, ::2], images.colour(wide, "gray"))
    row = decoded(images.explain(RAMP, "gray", gates, "title"))
    assert row.shape[1] > row.shape[0]


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


def panel(pixels, number):
    """A panel of the explanation of a picture with a side of 60, at its original size."""
    left = images.MARGIN + number * (120 + images.MARGIN)
    return pixels[images.CAPTION :][:120:2, left:][:, :120:2]


@pytest.mark.parametrize("colour_map", ["viridis", "gray"])
def test_an_explanation_has_the_picture_and_a_panel_for_each_gate(colour_map):
    picture = np.random.default_rng(0).integers(0, 256, (60, 60), np.uint8)
    gates = {"block4_pool": np.zeros((4, 4)), "block5_pool": np.zeros((4, 4))}
    gates["block4_pool"][:, :2] = 0.5
    gates["block5_pool"][:, 2:] = 0.5
    pixels = decoded(images.explain(picture, colour_map, gates, "JOY 0.80"))
    assert pixels.shape == (120 + images.CAPTION + 8, 3 * (120 + 8) + 8, 3)
    assert (pixels[: images.CAPTION] < 128).any()  # the title
    plain = panel(pixels, 0).astype(int)
    np.testing.assert_array_equal(plain, images.colour(picture, colour_map))
    left, right = slice(0, 15), slice(45, 60)
    for number, opened, closed in ((1, left, right), (2, right, left)):
        faded = panel(pixels, number).astype(int)
        np.testing.assert_allclose(faded[:, opened], plain[:, opened], atol=30)
        assert faded[:, closed].min() > 220
