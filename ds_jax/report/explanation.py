"""What a network looked at in a recording: its picture, plain and under each attention gate."""

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ds_jax.report import overlay

ENLARGED = 2  # pixels of a side for each pixel of the picture
MARGIN, CAPTION = 8, 24  # pixels around a panel, and above it for a line of text


def draw(
    picture: np.ndarray, colour_map: str, gates: Mapping[str, np.ndarray], title: str
) -> bytes:
    """Draws panels side by side: the picture, then the picture faded where a gate is closed.

    Args:
        picture: uint8 [canvas, canvas], indices into the colour map.
        colour_map: Its name.
        gates: By the name of the layer, float [height, width], 0 (closed) to 1 (open).
        title: Stands above the plain picture.

    Returns:
        A PNG file.
    """
    plain = overlay.colour(picture, colour_map)
    panels = [(title, plain)]
    for name, gate in gates.items():
        caption = f"gate on {name}, {gate.min():.2f} (white) to {gate.max():.2f}"
        panels.append((caption, overlay.fade_by_gate(plain, gate)))
    side = ENLARGED * len(picture)
    sheet = Image.new("RGB", ((side + MARGIN) * len(panels) + MARGIN, side + CAPTION + MARGIN))
    sheet.paste("white", (0, 0, *sheet.size))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(CAPTION // 2)
    for number, (caption, pixels) in enumerate(panels):
        left = MARGIN + number * (side + MARGIN)
        pen.text((left, MARGIN // 2), caption, "black", font)
        enlarged = Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST)
        sheet.paste(enlarged, (left, CAPTION))
    return overlay.png(np.asarray(sheet))
