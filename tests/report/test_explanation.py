"""An explanation shows the picture, and the picture where gates are open."""

import io

import numpy as np
from PIL import Image

from ds_jax.report import explanation, overlay


def sheet(gates):
    picture = np.random.default_rng(0).integers(0, 256, (60, 60), np.uint8)
    content = explanation.draw(picture, "viridis", gates, "JOY 0.80")
    return picture, np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def panel(pixels, number):
    left = explanation.MARGIN + number * (120 + explanation.MARGIN)
    return pixels[explanation.CAPTION :][:120:2, left:][:, :120:2]


def test_the_first_panel_is_the_picture():
    picture, pixels = sheet({})
    np.testing.assert_array_equal(panel(pixels, 0), overlay.colour(picture))
    assert (pixels[: explanation.CAPTION] < 128).any()  # the title
    assert pixels.shape == (120 + 24 + 8, 120 + 16, 3)


def test_each_gate_has_a_panel_that_fades_where_it_is_closed():
    gates = {"block4_pool": np.zeros((4, 4)), "block5_pool": np.zeros((4, 4))}
    gates["block4_pool"][:, :2] = 0.5
    gates["block5_pool"][:, 2:] = 0.5
    _, pixels = sheet(gates)
    plain = panel(pixels, 0).astype(int)
    left, right = slice(0, 15), slice(45, 60)
    for number, open_side, closed_side in ((1, left, right), (2, right, left)):
        seen = panel(pixels, number).astype(int)
        np.testing.assert_allclose(seen[:, open_side], plain[:, open_side], atol=30)
        assert seen[:, closed_side].min() > 220


def test_the_colour_map_is_the_models():
    content = explanation.draw(np.zeros((60, 60), np.uint8), "gray", {}, "")
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    assert (panel(pixels, 0) == 0).all()  # viridis begins with purple
