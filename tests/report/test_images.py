"""Colours are those of the colour map, and a closed gate veils."""

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


def test_a_gate_veils_a_picture_as_far_as_it_is_closed():
    gate = np.repeat([[0.0, 0.25, 1.0, 1.0]], 4, axis=0)
    veiled = images.veil(RAMP, gate, (1.0, 1.0)).astype(int)
    assert veiled.shape == (16, 16, 3)
    grey = np.repeat(RAMP[..., None], 3, axis=2)
    np.testing.assert_array_equal(veiled[:, 8:], grey[:, 8:])
    np.testing.assert_array_equal(veiled[:, :4], np.broadcast_to(images.VEIL, (16, 4, 3)))
    np.testing.assert_allclose(veiled[:, 4:8], 0.25 * grey[:, 4:8] + 0.75 * images.VEIL, atol=0.51)


def test_nothing_is_let_through_where_a_gate_has_no_cells():
    veiled = images.veil(RAMP, np.ones((3, 2)), (0.75, 0.5))
    np.testing.assert_array_equal(veiled[:12, :8, 1], RAMP[:12, :8])
    assert (veiled[12:] == images.VEIL).all()
    assert (veiled[:, 8:] == images.VEIL).all()


def test_all_gates_have_one_scale():
    """A gate that is alike open everywhere is not stretched to its own range."""
    veiled = images.veil(np.full((4, 4), 100, np.uint8), np.full((2, 2), 0.5), (1.0, 1.0))
    assert (veiled == np.rint((100 + images.VEIL) / 2)).all()


def test_a_png_holds_every_pixel_and_a_palette_makes_it_smaller():
    rng = np.random.default_rng(0)
    few = images.colour(rng.integers(0, 256, (32, 32), np.uint8))
    many = rng.integers(0, 256, (32, 32, 3), np.uint8)
    for pixels, mode in ((few, "P"), (many, "RGB")):
        content = images.png(pixels)
        image = Image.open(io.BytesIO(content))
        assert (image.format, image.mode) == ("PNG", mode)
        np.testing.assert_array_equal(decoded(content), pixels)
