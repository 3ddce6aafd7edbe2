"""Recordings of noise, for builders to find and prepare."""

from pathlib import Path

import numpy as np
import soundfile

from ds_jax.features.spectrogram import PictureSettings

SMALL = PictureSettings(canvas=16)
RATE = 16_000


def sound(path: Path, seed: int = 0, seconds: float = 0.2, rate: int = RATE, channels: int = 1):
    """Writes noise in the format that the path's suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (int(seconds * rate), channels)
    samples = np.random.default_rng(seed).normal(0, 3000, shape).astype("<i2")
    if path.suffix.lower() in (".l16", ".raw"):
        path.write_bytes(samples.tobytes())
    else:
        subtype = "VORBIS" if path.suffix == ".ogg" else "PCM_16"
        soundfile.write(path, samples, rate, subtype=subtype)
    return path


def sounds(folder: Path, *names: str):
    for seed, name in enumerate(names):
        sound(folder / name, seed)


def facts(of) -> tuple:
    return of.label, of.speaker, of.gender, of.sentence, of.style


def found(builder, folder: Path) -> dict[str, tuple]:
    """Label, speaker, gender, sentence and style of each utterance, by its name."""
    return {recording.name: facts(recording) for recording in builder.find(folder)}
