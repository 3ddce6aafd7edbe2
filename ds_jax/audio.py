"""Reads one recording as mono samples."""

import functools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

HEADERLESS = (".l16", ".raw")  # ELRA-S0329: 16-bit little-endian PCM, mono
HEADERLESS_RATE = 16_000  # Hz
# Three steps of a 16-bit recorder: what stays within that is a dead channel, not quiet speech.
SILENCE = 1e-4
BLOCK = 1 << 17  # frames decoded at a time, so that many channels need little memory
# Recorders that write to a pipe put the largest size there is into the header, counted with a sign
# or without (ffmpeg 2**32 - 1, arecord 2**31, SoX 2**31 - 4096).
OPEN_SIZE = (1 << 31) - 4096


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
    rate, blocks = _decode(path)
    samples = np.concatenate([np.zeros(0, np.float32), *blocks])
    _check(path, [samples])
    if sample_rate in (0, rate):
        return samples, rate
    resampled = soxr.resample(samples, rate, sample_rate, quality="HQ")
    if not resampled.size:
        raise ValueError(f"{path} is too short: nothing of it is left at {sample_rate} Hz")
    return resampled, sample_rate


def windows(
    path: str | os.PathLike, sample_rate: int, window: float, hop: float
) -> Iterator[tuple[float, int, np.ndarray]]:
    """Reads a recording of any length window by window; the memory needed is that of a few.

    The samples are those of `read`, and the windows those that `picture.cut` cuts of them: one for
    every whole hop and at least one, the last ones possibly shorter. A recording is decoded twice,
    so that one that cannot be used is refused before its first window is given.

    Args:
        path: The recording, as in `read`.
        sample_rate: Hz wanted; 0 keeps the recording's own.
        window: Seconds, above 0.
        hop: Seconds between the starts of windows; 0 is window.

    Yields:
        The start in seconds, the rate in Hz, and samples, float32 [n].

    Raises:
        FileNotFoundError, ValueError: As `read`.
    """
    own_rate, blocks = _decode(path)
    _check(path, blocks)
    rate = sample_rate or own_rate
    length = max(1, int(window * rate))
    step = max(1, int(hop * rate)) if hop else length
    kept, start, count = np.zeros(0, np.float32), 0, 0  # samples from `start` on, windows given
    for block in _resampled(_decode(path)[1], own_rate, rate):
        kept = np.concatenate([kept, block])
        # A window is whole when it is full and the hop after it is, see `picture.cut`.
        while start + len(kept) >= count * step + max(length, step):
            first = count * step - start
            yield count * step / rate, rate, kept[first : first + length]
            count += 1
        passed = min(count * step - start, len(kept))
        kept, start = kept[passed:], start + passed
    total = start + len(kept)
    if not total:
        raise ValueError(f"{path} is too short: nothing of it is left at {rate} Hz")
    for index in range(count, max(1, total // step)):
        first = index * step - start
        yield index * step / rate, rate, kept[first : first + length]


def _resampled(blocks: Iterable[np.ndarray], own: int, wanted: int) -> Iterator[np.ndarray]:
    """Resamples block by block to what `soxr.resample` makes of the whole."""
    if own == wanted:
        yield from blocks
        return
    stream = soxr.ResampleStream(own, wanted, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def _check(path: str | os.PathLike, blocks: Iterable[np.ndarray]) -> None:
    """Refuses a recording without samples, with impossible ones, or without sound."""
    low, high = np.inf, -np.inf
    for samples in blocks:
        if not np.isfinite(samples).all():
            raise ValueError(f"{path} is damaged: some of its samples are not finite numbers")
        if samples.size:
            low, high = min(low, samples.min()), max(high, samples.max())
    if low > high:
        raise ValueError(f"{path} is empty: it holds no samples")
    if high - low < SILENCE:
        raise ValueError(f"{path} is silent: its samples are all alike")


def _decode(path: str | os.PathLike) -> tuple[int, Iterator[np.ndarray]]:
    """Opens a recording; its rate in Hz, and its samples block by block, float32 [n]."""
    path, how = Path(path), {}
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    size = path.stat().st_size
    if not size:
        raise ValueError(f"{path} is empty: it has 0 bytes")
    if path.suffix.lower() in HEADERLESS:
        if size % 2:
            raise ValueError(f"{path} is damaged: 16-bit samples cannot fill {size} bytes")
        how = {"format": "RAW", "subtype": "PCM_16", "endian": "LITTLE", "channels": 1}
        how["samplerate"] = HEADERLESS_RATE
    else:
        _check_whole(path)
    try:
        file = soundfile.SoundFile(path, **how)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path} cannot be decoded: {error.error_string}") from error

    def blocks() -> Iterator[np.ndarray]:
        # numpy takes a tenth of libsndfile's time to make the same floats of 16-bit samples, and
        # to add columns a tenth of its own to average rows.
        dtype, full_scale = ("int16", 32768) if file.subtype == "PCM_16" else ("float32", 1)
        try:
            with file:
                while len(channels := file.read(BLOCK, dtype=dtype, always_2d=True)):
                    total = functools.reduce(np.add, channels.astype(np.float32, copy=False).T)
                    yield total / (full_scale * file.channels)
        except soundfile.LibsndfileError as error:
            raise ValueError(f"{path} cannot be decoded: {error.error_string}") from error

    return file.samplerate, blocks()


def _check_whole(path: Path) -> None:
    """Refuses a wav that is shorter than its header says; libsndfile reads what there is of it."""
    with path.open("rb") as file:
        header = file.read(12)
    if header[:4] != b"RIFF" or header[8:] != b"WAVE":
        return
    declared, size = int.from_bytes(header[4:8], "little") + 8, path.stat().st_size
    # Some recorders count padding that is not there.
    if declared - size > 8 and declared < OPEN_SIZE:
        raise ValueError(f"{path} is cut short: it has {size} of {declared} bytes")
