"""A corpus of chirps and a narrow VGG16, for runs that are short and prove nothing about speech."""

from pathlib import Path

import h5py
import numpy as np
import soundfile

from ds_jax.data.labels import LABELS
from ds_jax.models import vgg16
from ds_jax.models.backbones import BACKBONES

# As deep as VGG16, and narrow: a run is short, and its checkpoints have some megabytes.
CHANNELS = (4, 8, 16, 64, 128)
SPEAKERS, SECONDS, RATE = 6, 0.5, 16_000


def use_narrow_network() -> None:
    """Puts the narrow network in VGG16's place."""
    blocks = zip(CHANNELS, vgg16.BLOCKS, strict=True)
    narrow = tuple((channels, count) for channels, (_, count) in blocks)
    BACKBONES["vgg16"] = vgg16.create(narrow, vgg16.UNITS)


def write_corpus(folder: Path) -> None:
    """Writes seven chirps of each speaker, and a manifest."""
    folder.mkdir(parents=True)
    rows, times = ["path,label,speaker,sentence"], np.arange(int(SECONDS * RATE)) / RATE
    for speaker in range(SPEAKERS):
        for number, label in enumerate(LABELS):
            name = f"s{speaker}_{label.lower()}.wav"
            phase = 2 * np.pi * (200 + 30 * speaker + 250 * number * times) * times
            soundfile.write(folder / name, 0.4 * np.sin(phase), RATE)
            rows.append(f"{name},{label},s{speaker},chirp{number}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def write_weights(path: Path) -> None:
    """Writes random numbers as VGG16's convolutions, in the layout of Keras' file."""
    rng, channels = np.random.default_rng(0), 3
    with h5py.File(path, "w") as file:
        for block, (width, (_, count)) in enumerate(zip(CHANNELS, vgg16.BLOCKS, strict=True), 1):
            for index in range(1, count + 1):
                group = file.create_group(f"block{block}_conv{index}")
                kernel = rng.standard_normal((3, 3, channels, width), np.float32)
                group["kernel:0"] = kernel * np.sqrt(2 / (9 * channels))
                group["bias:0"] = np.zeros(width, np.float32)
                channels = width
