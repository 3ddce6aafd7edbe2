"""Reads a recording as mono samples, whole or in windows."""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

HEADERLESS = (".l16", ".raw")  # ELRA-S0329: 16-bit little-endian PCM, mono
HEADERLESS_RATE = 16_000  # Hz
# Three steps of a 16-bit recorder: a signal that stays within them comes from a dead channel.
SILENCE = 1e-4
LOUDEST = 1e10  # beyond, spectra overflow; 32-bit integers read as floats reach 2.1e9
RATES = (1000, 768_000)  # Hz; a header with another rate is damaged
UNKNOWN = 1 << 62  # frames; libsndfile reports more where a header gives no length
LONGEST = 3600.0  # seconds of the longest recording that is read whole
BLOCK = 1 << 17  # samples of all channels that are decoded at a time
# Recorders that write to a pipe put the largest possible size into the header (ffmpeg 2**32 - 1,
# arecord 2**31, SoX 2**31 - 4096).
OPEN_SIZE = (1 << 31) - 4096


@dataclasses.dataclass(frozen=True)
class Windowing:
    """How a recording is cut into windows.

    Attributes:
        window: Seconds; 0 takes the recording whole.
        hop: Seconds between the starts of windows; 0 means window.
        to_end: Whether there is one window more if the recording's end would be in none.
    """

    window: float = 0.0
    hop: float = 0.0
    to_end: bool = False

    def samples(self, rate: int) -> tuple[int, int]:
        """Returns the samples of a window and between the starts of two, at a rate in Hz."""
        length = max(1, int(self.window * rate))
        return length, max(1, int(self.hop * rate)) if self.hop else length

    def count(self, total: int, rate: int) -> int:
        """Counts the windows of a recording of `total` samples at a rate in Hz."""
        length, step = self.samples(rate)
        count = count_windows(total, step)
        missed = min(total - count * step, total - (count - 1) * step - length)
        return count + (self.to_end and missed > 0)

    def split(self, samples: np.ndarray, rate: int) -> list[np.ndarray]:
        """Cuts audio, float [n] at a rate in Hz; returns views of it."""
        if not self.window:
            return [samples]
        length, step = self.samples(rate)
        starts = [index * step for index in range(self.count(len(samples), rate))]
        return [samples[start : start + length] for start in starts]


def count_windows(total: int, step: int, larger: Callable = max) -> int:
    """Counts windows as DeepSpectrum does: one for every whole hop, and at least one.

    The last windows may be shorter; samples after the last whole hop may be in no window.

    Args:
        total: Samples of the recording.
        step: Samples between the starts of windows.
        larger: `max`, or its equivalent where `total` is a value that only JAX knows.
    """
    return larger(total // step, 1)


def read(path: str | os.PathLike, sample_rate: int) -> tuple[np.ndarray, int]:
    """Decodes a recording, averages its channels and resamples it.

    Files whose names end in .l16 or .raw hold headerless 16-bit little-endian mono samples at
    16 kHz; libsndfile decodes all others (wav, flac, ...).

    Args:
        path: The recording.
        sample_rate: The wanted rate in Hz; 0 keeps the rate of the file.

    Returns:
        Samples, float32 [n], full scale at 1; and their rate in Hz.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file cannot be read or decoded, or is cut short, empty, not finite,
            silent, or longer than `LONGEST`.
    """
    file_rate, blocks = _decode(path, LONGEST)
    rate = sample_rate or file_rate
    blocks = _resample(_check(path, blocks), file_rate, rate)
    samples = np.concatenate([np.zeros(0, np.float32), *blocks])
    if not samples.size:
        raise ValueError(f"{path} is too short: at {rate} Hz it has no sample")
    return samples, rate


def windows(
    path: str | os.PathLike, sample_rate: int, windowing: Windowing
) -> Iterator[tuple[float, float, int, np.ndarray]]:
    """Reads a recording of any length window by window, with a few windows in memory.

    The samples equal those of `read`, and the windows those of `Windowing.split`. The
    recording is decoded twice, so that an unusable one raises an error before its first window.

    Args:
        path: The recording, as in `read`.
        sample_rate: The wanted rate in Hz; 0 keeps the rate of the file.
        windowing: How the recording is cut; its window is above 0.

    Yields:
        The recording's length and the window's start in seconds, the rate in Hz, and the window's
        samples, float32 [n].

    Raises:
        FileNotFoundError, ValueError: As in `read`.
    """
    file_rate, blocks = _decode(path)
    seconds = sum(map(len, _check(path, blocks))) / file_rate
    rate = sample_rate or file_rate
    length, step = windowing.samples(rate)
    kept, start, done = np.zeros(0, np.float32), 0, 0  # samples from `start` on; windows yielded
    for block in _resample(_decode(path)[1], file_rate, rate):
        kept = np.concatenate([kept, block])
        # A window is yielded once it and the hop after it are full, see `count_windows`.
        while start + len(kept) >= done * step + max(length, step):
            first = done * step - start
            yield seconds, done * step / rate, rate, kept[first : first + length]
            done += 1
        passed = min(done * step - start, len(kept))
        kept, start = kept[passed:], start + passed
    total = start + len(kept)
    if not total:
        raise ValueError(f"{path} is too short: at {rate} Hz it has no sample")
    for index in range(done, windowing.count(total, rate)):
        first = index * step - start
        yield seconds, index * step / rate, rate, kept[first : first + length]


def _resample(blocks: Iterable[np.ndarray], rate: int, wanted: int) -> Iterator[np.ndarray]:
    """Resamples block by block; the result equals `soxr.resample` of the whole."""
    if rate == wanted:
        yield from blocks
        return
    stream = soxr.ResampleStream(rate, wanted, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def _check(path: str | os.PathLike, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Passes blocks on; raises an error if the samples are impossible, silent or missing."""
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
    """Opens a recording; returns its rate in Hz and its samples in blocks, float32 [n]."""
    path, options = Path(path), {}
    size = _size(path)
    if not size:
        raise ValueError(f"{path} is empty: it has 0 bytes")
    if path.suffix.lower() in HEADERLESS:
        if size % 2:
            raise ValueError(f"{path} is damaged: 16-bit samples cannot fill {size} bytes")
        options = {"format": "RAW", "subtype": "PCM_16", "endian": "LITTLE", "channels": 1}
        options["samplerate"] = HEADERLESS_RATE
    else:
        _check_length(path, size)
    try:
        file = soundfile.SoundFile(os.fsencode(path), **options)  # a name need not be UTF-8
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path} cannot be decoded: {error.error_string}") from error
    if not RATES[0] <= file.samplerate <= RATES[1]:
        file.close()
        raise ValueError(f"{path} is damaged: its header gives a rate of {file.samplerate} Hz")
    if longest * file.samplerate < file.frames < UNKNOWN:
        file.close()
        raise ValueError(
            f"{path} is longer than {longest / 60:.0f} min, too long to be read whole: cut it into "
            "utterances, or give --window"
        )

    def blocks() -> Iterator[np.ndarray]:
        # NumPy takes a tenth of libsndfile's time to make the same floats of 16-bit samples, and a
        # tenth of the time of a mean over rows to add columns.
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
    """Returns the bytes of a readable file; pipes are not opened, which could wait for ever."""
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


def _check_length(path: Path, size: int) -> None:
    """Raises an error for a wav that is shorter than its header says; libsndfile accepts it."""
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
    # Some recorders count padding that they do not write.
    if declared - size > 8 and declared < open_size:
        raise ValueError(f"{path} is cut short: it has {size} of {declared} bytes")
