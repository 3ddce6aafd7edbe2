"""What backbones see, against Keras' preprocessing and Pillow's resizing."""

import sys

import cmap
import jax.numpy as jnp
import keras
import numpy as np
import PIL.Image
import pytest

from ds_jax.features.colours import colour_table
from ds_jax.models.keras_backbone import APPLICATIONS
from ds_jax.models.preprocessing import network_input


@pytest.fixture(scope="module")
def pictures():
    """Two different pictures, neither of them symmetrical."""
    return np.random.default_rng(0).integers(0, 256, (2, 40, 40), np.uint8)


def rgb(pictures, colour_map="viridis"):
    return np.round(np.asarray(cmap.Colormap(colour_map).lut(256))[pictures, :3] * 255)


def test_viridis_has_its_published_colours_in_order_blue_green_red():
    table = colour_table("viridis")
    assert table.shape == (256, 3)
    assert table.dtype == np.float32
    published = {0: 0x440154, 128: 0x21918C, 255: 0xFDE725}
    for index, colour in published.items():
        red, green, blue = colour.to_bytes(3, "big")
        assert table[index].tolist() == [blue, green, red]


def test_bgr_is_neither_resized_nor_centred_at_its_own_size(pictures):
    out = network_input(jnp.asarray(pictures), "viridis", 40, "bgr")
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out, rgb(pictures)[..., ::-1], atol=1e-3)


@pytest.mark.parametrize("colour_map", ["viridis", "plasma"])
@pytest.mark.parametrize("mode", ["caffe", "tf", "torch"])
def test_modes_equal_those_of_keras(pictures, colour_map, mode):
    wanted = keras.applications.imagenet_utils.preprocess_input(
        rgb(pictures, colour_map), data_format="channels_last", mode=mode
    )
    out = network_input(jnp.asarray(pictures), colour_map, 40, mode)
    np.testing.assert_allclose(out, wanted, atol=1e-3)


@pytest.mark.parametrize("name", APPLICATIONS)
def test_networks_of_keras_read_what_keras_feeds_them(pictures, name):
    function, _, preprocessing = APPLICATIONS[name]
    module = sys.modules[getattr(keras.applications, function).__module__]
    out = network_input(jnp.asarray(pictures), "viridis", 40, preprocessing)
    np.testing.assert_allclose(out, module.preprocess_input(rgb(pictures)), atol=1e-3)


@pytest.mark.parametrize("size", [32, 39, 64])
def test_resizing_equals_pillow(pictures, size):
    out = network_input(jnp.asarray(pictures), "viridis", size, "bgr")
    assert out.shape == (2, size, size, 3)
    for picture, resized in zip(rgb(pictures), np.asarray(out), strict=True):
        for channel in range(3):
            plane = PIL.Image.fromarray(picture[..., channel].astype(np.float32))
            wanted = plane.resize((size, size), PIL.Image.Resampling.BILINEAR)
            np.testing.assert_allclose(resized[..., 2 - channel], np.asarray(wanted), atol=0.01)
