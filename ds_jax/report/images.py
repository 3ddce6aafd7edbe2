"""The pictures that people see: in colours, and faded where an attention gate is closed."""

import io
from collections.abc import Mapping

import cmap
import numpy as np
from PIL import Image, ImageDraw, ImageFont

LEAST_OPACITY = 0.1  # of the picture where a gate is most closed, so that its outline stays visible
ENLARGED = 2  # pixels of an explanation for each pixel of the picture, in both directions
MARGIN, CAPTION = 8, 24  # pixels around a panel, and above it for a line of text


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


def explain(
    picture: np.ndarray, colour_map: str, gates: Mapping[str, np.ndarray], title: str
) -> bytes:
    """Draws what a network attends to: the picture, and the picture faded by each attention gate.

    Args:
        picture: uint8 [height, width], indices into the colour map.
        colour_map: The name of the colour map.
        gates: By the name of the layer, float [height, width], 0 (closed) to 1 (open).
        title: The text above the plain picture.

    Returns:
        A PNG file with the panels in a row, or below each other where they are wider than high.
    """
    plain = colour(picture, colour_map)
    panels = [(title, plain)]
    for name, gate in gates.items():
        caption = f"gate on {name}, {gate.min():.2f} (white) to {gate.max():.2f}"
        panels.append((caption, fade_by_gate(plain, gate)))
    height, width = ENLARGED * picture.shape[0], ENLARGED * picture.shape[1]
    down = width > height
    across, below = (0, height + CAPTION) if down else (width + MARGIN, 0)
    last = len(panels) - 1
    size = width + last * across + 2 * MARGIN, height + last * below + CAPTION + MARGIN
    sheet = Image.new("RGB", size)
    sheet.paste("white", (0, 0, *sheet.size))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(CAPTION // 2)
    for number, (caption, panel) in enumerate(panels):
        left, top = MARGIN + number * across, number * below
        pen.text((left, top + MARGIN // 2), caption, "black", font)
        enlarged = Image.fromarray(panel).resize((width, height), Image.Resampling.NEAREST)
        sheet.paste(enlarged, (left, top + CAPTION))
    return png(np.asarray(sheet))


def _rounded(pixels: np.ndarray) -> np.ndarray:
    return np.rint(pixels).clip(0, 255).astype(np.uint8)
