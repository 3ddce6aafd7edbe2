"""Reads one recording as mono samples."""

import functools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

from ds_jax.features.windows import count, count_to_end, in_samples

HEADERLESS = (".l16", ".raw")  # ELRA-S0329: 16-bit little-endian PCM, mono
HEADERLESS_RATE = 16_000  # Hz
# Three steps of a 16-bit recorder: what stays within that is a dead channel, not quiet speech.
SILENCE = 1e-4
LOUDEST = 1e10  # twice what 32-bit integers hold; beyond, spectra are not finite numbers
RATES = (1000, 768_000)  # Hz; a header that says anything else is damaged
UNKNOWN = 1 << 62  # frames; libsndfile says more than that where a header says nothing
LONGEST = 3600.0  # seconds that are taken into memory together
BLOCK = 1 << 17  # samples of all channels decoded at a time, at most
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
        ValueError: It is no file; or it cannot be read or decoded, or is cut short, empty, not
            finite, silent, or longer than `LONGEST`.
    """
    own_rate, blocks = _decode(path, LONGEST)
    rate = sample_rate or own_rate
    blocks = _resampled(_checked(path, blocks), own_rate, rate)
    samples = np.concatenate([np.zeros(0, np.float32), *blocks])
    if not samples.size:
        raise ValueError(f"{path} is too short: nothing of it is left at {rate} Hz")
    return samples, rate


def windows(
    path: str | os.PathLike, sample_rate: int, window: float, hop: float, to_end: bool = False
) -> Iterator[tuple[float, float, int, np.ndarray]]:
    """Reads a recording of any length window by window; the memory needed is that of a few.

    The samples are those of `read`, and the windows those that `picture.cut` cuts of them. A
    recording is decoded twice, so that one that cannot be used is refused before its first window
    is given.

    Args:
        path: The recording, as in `read`.
        sample_rate: Hz wanted; 0 keeps the recording's own.
        window: Seconds, above 0.
        hop: Seconds between the starts of windows; 0 is window.
        to_end: Whether the end of the recording is in a window, see `windows.count_to_end`.

    Yields:
        The length of the recording and the window's start in seconds, the rate in Hz, and samples,
        float32 [n].

    Raises:
        FileNotFoundError, ValueError: As `read`.
    """
    own_rate, blocks = _decode(path)
    seconds = sum(map(len, _checked(path, blocks))) / own_rate
    rate = sample_rate or own_rate
    length, step = in_samples(window, hop, rate)
    kept, start, given = np.zeros(0, np.float32), 0, 0  # samples from `start` on, windows given
    for block in _resampled(_decode(path)[1], own_rate, rate):
        kept = np.concatenate([kept, block])
        # A window is whole when it is full and the hop after it is, see `windows.count`.
        while start + len(kept) >= given * step + max(length, step):
            first = given * step - start
            yield seconds, given * step / rate, rate, kept[first : first + length]
            given += 1
        passed = min(given * step - start, len(kept))
        kept, start = kept[passed:], start + passed
    total = start + len(kept)
    if not total:
        raise ValueError(f"{path} is too short: nothing of it is left at {rate} Hz")
    for index in range(given, count_to_end(total, length, step) if to_end else count(total, step)):
        first = index * step - start
        yield seconds, index * step / rate, rate, kept[first : first + length]


def _resampled(blocks: Iterable[np.ndarray], own: int, wanted: int) -> Iterator[np.ndarray]:
    """Resamples block by block to what `soxr.resample` makes of the whole."""
    if own == wanted:
        yield from blocks
        return
    stream = soxr.ResampleStream(own, wanted, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def _checked(path: str | os.PathLike, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Passes blocks on; refuses a recording without samples, with impossible ones, or silent."""
    low, high = np.inf, -np.inf
    for samples in blocks:
        if not np.isfinite(samples).all():
            raise ValueError(f"{path} is damaged: some of its samples are not finite numbers")
        low, high = min(low, samples.min()), max(high, samples.max())
        if max(high, -low) > LOUDEST:
            raise ValueError(
                f"{path} is damaged: full scale is 1, and it has samples of {high:.1g}"
            )
        yield samples
    if low > high:
        raise ValueError(f"{path} is empty: it holds no samples")
    if high - low < SILENCE:
        raise ValueError(f"{path} is silent: its samples are all alike")


def _decode(path: str | os.PathLike, longest: float = np.inf) -> tuple[int, Iterator[np.ndarray]]:
    """Opens a recording; its rate in Hz, and its samples block by block, float32 [n]."""
    path, how = Path(path), {}
    size = _size(path)
    if not size:
        raise ValueError(f"{path} is empty: it has 0 bytes")
    if path.suffix.lower() in HEADERLESS:
        if size % 2:
            raise ValueError(f"{path} is damaged: 16-bit samples cannot fill {size} bytes")
        how = {"format": "RAW", "subtype": "PCM_16", "endian": "LITTLE", "channels": 1}
        how["samplerate"] = HEADERLESS_RATE
    else:
        _check_whole(path, size)
    try:
        file = soundfile.SoundFile(os.fsencode(path), **how)  # which need not be UTF-8
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path} cannot be decoded: {error.error_string}") from error
    if not RATES[0] <= file.samplerate <= RATES[1]:
        file.close()
        raise ValueError(f"{path} is damaged: it says to have {file.samplerate} samples a second")
    if longest * file.samplerate < file.frames < UNKNOWN:
        file.close()
        raise ValueError(
            f"{path} is longer than {longest / 60:.0f} min, too long to be taken as a whole: cut "
            "it into utterances, or judge it in windows"
        )

    def blocks() -> Iterator[np.ndarray]:
        # numpy takes a tenth of libsndfile's time to make the same floats of 16-bit samples, and
        # to add columns a tenth of its own to average rows.
        dtype, full_scale = ("int16", 32768) if file.subtype == "PCM_16" else ("float32", 1)
        try:
            with file:
                frames = max(1, BLOCK // file.channels)
                while len(channels := file.read(frames, dtype=dtype, always_2d=True)):
                    total = functools.reduce(np.add, channels.astype(np.float32, copy=False).T)
                    yield total / (full_scale * file.channels)
        except soundfile.LibsndfileError as error:
            raise ValueError(f"{path} cannot be decoded: {error.error_string}") from error

    return file.samplerate, blocks()


def _size(path: Path) -> int:
    """Bytes of a file that can be read.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is none, or may not be read. Pipes are not opened, which could wait for ever.
    """
    if not os.path.lexists(path):
        raise FileNotFoundError(f"{path}: there is no such file")
    try:
        if not path.exists():
            raise ValueError(f"{path} is a link that leads nowhere")
        if path.is_dir():
            raise ValueError(f"{path} is a folder")
        if not path.is_file():
            raise ValueError(f"{path} is no file but a pipe or device: give - to read a pipe")
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_size
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error


def _check_whole(path: Path, size: int) -> None:
    """Refuses a wav that is shorter than its header says; libsndfile reads what there is of it."""
    with path.open("rb") as file:
        header = file.read(28)
    if header[8:12] != b"WAVE":
        return
    if header[:4] == b"RIFF":
        declared, open_size = int.from_bytes(header[4:8], "little") + 8, OPEN_SIZE
    elif header[:4] in (b"RF64", b"BW64") and header[12:16] == b"ds64":
        declared, open_size = int.from_bytes(header[20:28], "little") + 8, 1 << 62
    else:
        return
    # Some recorders count padding that is not there.
    if declared - size > 8 and declared < open_size:
        raise ValueError(f"{path} is cut short: it has {size} of {declared} bytes")
