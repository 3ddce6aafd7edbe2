"""The sound of recordings on pages."""

import io

import soundfile

from ds_jax.features import audio

CLIP_SECONDS, CLIP_RATE = 15, 16_000  # the most that is heard of a recording, and its rate in Hz


def clip(source: audio.Source) -> bytes:
    """Encodes the beginning of a recording as a small FLAC file."""
    samples, rate = audio.read(source, CLIP_RATE)
    file = io.BytesIO()
    soundfile.write(file, samples[: CLIP_SECONDS * rate], rate, format="FLAC", subtype="PCM_16")
    return file.getvalue()
