"""The pictures that people see: in colours, and faded where an attention gate is closed."""

import io

import cmap
import numpy as np
from PIL import Image

LEAST_OPACITY = 0.1  # of the picture where a gate is most closed, so that its outline stays visible


def colour(picture: np.ndarray, colour_map: str = "viridis") -> np.ndarray:
    """Maps indices, uint8 [height, width], to the colours of a map, uint8 [height, width, 3]."""
    colours = np.asarray(cmap.Colormap(colour_map).lut(256))[:, :3] * 255
    return _rounded(colours)[picture]


def fade_by_gate(pixels: np.ndarray, gate: np.ndarray) -> np.ndarray:
    """Fades a picture to white where a gate is least open.

    Args:
        pixels: uint8 [height, width, 3].
        gate: Float [rows, columns], stretched over the picture. Its range is scaled to 0..1, since
            a gate that is hardly open anywhere still selects; a constant gate hides nothing.

    Returns:
        uint8 [height, width, 3].
    """
    gate = np.asarray(gate, np.float32)
    spread = np.ptp(gate)
    gate = (gate - gate.min()) / spread if spread > 1e-6 else np.ones_like(gate)
    size = pixels.shape[1], pixels.shape[0]
    opening = np.asarray(Image.fromarray(gate).resize(size, Image.Resampling.BILINEAR))[..., None]
    opacity = LEAST_OPACITY + (1 - LEAST_OPACITY) * opening
    return _rounded(pixels * opacity + 255 * (1 - opacity))


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


def _rounded(pixels: np.ndarray) -> np.ndarray:
    return np.rint(pixels).clip(0, 255).astype(np.uint8)
