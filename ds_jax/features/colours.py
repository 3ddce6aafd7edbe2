"""The colours of pictures."""

import functools

import cmap
import numpy as np

from ds_jax.runtime.errors import ConfigError


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
