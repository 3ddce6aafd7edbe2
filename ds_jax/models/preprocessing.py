"""From stored pictures to what a backbone reads, on the device."""

import jax
import jax.numpy as jnp

from ds_jax.features.colours import colour_table

# The mean of ImageNet's blue, green and red (keras.applications.imagenet_utils, mode "caffe").
IMAGENET_MEAN_BGR = (103.939, 116.779, 123.68)
# Of the other kinds of input (the same file): what is subtracted from red, green and blue of 0 to
# 255, and what they are then divided by.
SCALES = {
    "rgb": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "tf": ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
    "torch": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
}


def network_input(
    pictures: jax.Array, colour_map: str, size: int | None, preprocessing: str
) -> jax.Array:
    """Colours, resizes and scales stored pictures.

    Args:
        pictures: uint8 [batch, height, width], indices into the colour map.
        colour_map: A matplotlib name; DeepSpectrum and the paper use viridis.
        size: The side of the network's input in pixels; None leaves pictures as they are.
        preprocessing: "bgr" (0 to 255, as DeepSpectrum 0.6.9 feeds VGG16) or "caffe" (that less
            ImageNet's mean, as Keras trained VGG16), blue green red; or "rgb" (0 to 255), "tf" (-1
            to 1) or "torch" (less ImageNet's mean, and divided by its deviation), red green blue.

    Returns:
        float32 [batch, size, size, 3].
    """
    colours = jnp.asarray(colour_table(colour_map))[pictures]
    if size is not None:
        # Anti-aliased when it shrinks, as Pillow's bilinear filter.
        colours = jax.image.resize(colours, (pictures.shape[0], size, size, 3), "linear")
    if preprocessing == "caffe":
        colours = colours - jnp.asarray(IMAGENET_MEAN_BGR)[None, None, None]
    elif preprocessing != "bgr":
        mean, deviation = (jnp.asarray(x)[None, None, None] for x in SCALES[preprocessing])
        colours = (colours[..., ::-1] - mean) / deviation
    return colours
