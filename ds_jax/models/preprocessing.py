"""From stored pictures to what a backbone reads, on the device."""

import jax
import jax.numpy as jnp

from ds_jax.models.colours import colour_table

# The mean of ImageNet's blue, green and red (keras.applications.imagenet_utils, mode "caffe").
IMAGENET_MEAN_BGR = (103.939, 116.779, 123.68)


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
