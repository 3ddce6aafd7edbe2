"""The pictures that people see: in colours, and veiled where an attention gate is closed."""

import io

import numpy as np
from PIL import Image

from ds_jax.features.colours import colour_table

VEIL = np.array([0, 92, 158], np.float32)  # a blue that the colour-blind tell from greys, of 255


def colour(picture: np.ndarray, colour_map: str = "viridis") -> np.ndarray:
    """Maps indices, uint8 [height, width], to the colours of a map, uint8 [height, width, 3]."""
    return colour_table(colour_map)[picture, ::-1].astype(np.uint8)


def veil(picture: np.ndarray, gate: np.ndarray, covered: tuple[float, float]) -> np.ndarray:
    """Hangs a coloured veil before a picture where an attention gate is closed.

    The picture is grey, whose levels no veil can be taken for.

    Args:
        picture: uint8 [height, width], indices into a colour map.
        gate: Float [rows, columns], 0 (closed: the veil alone) to 1 (open: the picture alone).
        covered: The share of the height and of the width of the picture that the cells of the gate
            cover, from the upper left corner. Nothing is let through elsewhere.

    Returns:
        uint8 [height, width, 3].
    """
    height, width = picture.shape
    size = round(width * covered[1]), round(height * covered[0])
    cells = Image.fromarray(np.asarray(gate, np.float32)).resize(size, Image.Resampling.NEAREST)
    opening = np.zeros((height, width, 1), np.float32)
    opening[: size[1], : size[0], 0] = cells
    veiled = opening * picture[..., None] + (1 - opening) * VEIL
    return np.rint(veiled).clip(0, 255).astype(np.uint8)


def png(pixels: np.ndarray) -> bytes:
    """Encodes uint8 [height, width, 3] as PNG, with a palette where 256 colours are enough."""
    image = Image.fromarray(pixels)
    if image.getcolors(256):
        palette, indices = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True)
        image = Image.fromarray(indices.reshape(pixels.shape[:2]).astype(np.uint8), "P")
        image.putpalette(palette.tobytes())
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()
