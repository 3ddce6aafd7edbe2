"""Reads one recording as mono samples."""

import functools
import os
from pathlib import Path

import numpy as np
import soundfile
import soxr

HEADERLESS = (".l16", ".raw")  # ELRA-S0329: 16-bit little-endian PCM, mono
HEADERLESS_RATE = 16_000  # Hz
# Three steps of a 16-bit recorder: what stays within that is a dead channel, not quiet speech.
SILENCE = 1e-4
BLOCK = 1 << 17  # frames decoded at a time, so that many channels need little memory


def read(path: str | os.PathLike, sample_rate: int) -> tuple[np.ndarray, int]:
    """Decodes a recording, averages its channels and resamples it.

    Files whose names end in .l16 or .raw hold headerless 16-bit little-endian mono samples at
    16 kHz; all others are whatever libsndfile decodes (wav, flac, ...).

    Args:
        path: The recording.
        sample_rate: Hz wanted; 0 keeps the recording's own.

    Returns:
        Samples, float32 [n], full scale at 1; and their rate in Hz.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file cannot be decoded, or is cut short, empty, not finite, or silent.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    samples, rate = _headerless(path) if path.suffix.lower() in HEADERLESS else _decoded(path)
    if not samples.size:
        raise ValueError(f"{path} is empty: it holds no samples")
    if not np.isfinite(samples).all():
        raise ValueError(f"{path} is damaged: some of its samples are not finite numbers")
    if np.ptp(samples) < SILENCE:
        raise ValueError(f"{path} is silent: its samples are all alike")
    if sample_rate in (0, rate):
        return samples, rate
    resampled = soxr.resample(samples, rate, sample_rate, quality="HQ")
    if not resampled.size:
        raise ValueError(f"{path} is too short: nothing of it is left at {sample_rate} Hz")
    return resampled, sample_rate


def _headerless(path: Path) -> tuple[np.ndarray, int]:
    data = path.read_bytes()
    if len(data) % 2:
        raise ValueError(f"{path} is damaged: 16-bit samples cannot fill {len(data)} bytes")
    return np.frombuffer(data, "<i2").astype(np.float32) / 32768, HEADERLESS_RATE


def _decoded(path: Path) -> tuple[np.ndarray, int]:
    if not path.stat().st_size:
        raise ValueError(f"{path} is empty: it has 0 bytes")
    _check_whole(path)
    try:
        with soundfile.SoundFile(path) as file:
            # numpy takes a tenth of libsndfile's time to make the same floats of 16-bit samples,
            # and to add columns a tenth of its own to average rows.
            dtype, full_scale = ("int16", 32768) if file.subtype == "PCM_16" else ("float32", 1)
            rate, blocks = file.samplerate, []
            while not blocks or len(blocks[-1]) == BLOCK:
                channels = file.read(BLOCK, dtype, always_2d=True).astype(np.float32, copy=False)
                total = functools.reduce(np.add, channels.T)
                blocks.append(total / (full_scale * file.channels))
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path} cannot be decoded: {error.error_string}") from error
    return np.concatenate(blocks), rate


def _check_whole(path: Path) -> None:
    """Refuses a wav that is shorter than its header says; libsndfile reads what there is of it."""
    with path.open("rb") as file:
        header = file.read(12)
    if header[:4] != b"RIFF" or header[8:] != b"WAVE":
        return
    declared, size = int.from_bytes(header[4:8], "little") + 8, path.stat().st_size
    # Recorders that write to a pipe leave the field full; some count padding that is not there.
    if declared - size > 8 and declared < 2**32:
        raise ValueError(f"{path} is cut short: it has {size} of {declared} bytes")
