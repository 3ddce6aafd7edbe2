"""From stored pictures to what a backbone reads, on the device."""

import functools

import cmap
import jax
import jax.numpy as jnp
import numpy as np

from ds_jax.runtime.errors import ConfigError

# The mean of ImageNet's blue, green and red (keras.applications.imagenet_utils, mode "caffe").
IMAGENET_MEAN_BGR = (103.939, 116.779, 123.68)


@functools.cache
def colour_table(colour_map: str) -> np.ndarray:
    """Returns a colour map as float32 [256, 3], blue green red, whole numbers from 0 to 255.

    Raises:
        ConfigError: No colour map has this name.
    """
    try:
        table = cmap.Colormap(colour_map).lut(256)
    except (ValueError, TypeError) as error:
        allowed = f"the name of a colour map, as matplotlib has them ({error})"
        raise ConfigError("picture.colour_map", colour_map, allowed) from error
    return np.round(table[:, 2::-1] * 255).astype(np.float32)


def network_input(
    pictures: jax.Array, colour_map: str, size: int | None, preprocessing: str
) -> jax.Array:
    """Colours, resizes and, for `caffe`, centres stored pictures.

    Args:
        pictures: uint8 [batch, height, width], indices into the colour map.
        colour_map: A matplotlib name; DeepSpectrum and the paper use viridis.
        size: The side of the network's input in pixels; None leaves pictures as they are.
        preprocessing: "deepspectrum" (BGR, as DeepSpectrum 0.6.9 feeds VGG16) or "caffe" (BGR less
            ImageNet's mean, as Keras trained VGG16).

    Returns:
        float32 [batch, size, size, 3], blue green red.
    """
    colours = jnp.asarray(colour_table(colour_map))[pictures]
    if size is not None:
        # Anti-aliased when it shrinks, as Pillow's bilinear filter.
        colours = jax.image.resize(colours, (pictures.shape[0], size, size, 3), "linear")
    if preprocessing == "caffe":
        colours = colours - jnp.asarray(IMAGENET_MEAN_BGR)[None, None, None]
    return colours
