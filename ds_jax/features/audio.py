"""Reads a recording as mono samples, whole or in windows."""

import contextlib
import dataclasses
import functools
import math
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

from ds_jax.features import ffmpeg, wav
from ds_jax.features import source as sources
from ds_jax.features.remarks import Heard
from ds_jax.features.silence import find_speech
from ds_jax.features.source import CHANNELS, Decoded, Source, check_rate

LENIENCE = 0.05  # seconds by which the end of a part may be after that of its file: it was rounded
# Three steps of a 16-bit recorder: a signal that stays within them comes from a dead channel.
SILENCE = 1e-4
LOUDEST = 1e10  # beyond, spectra overflow; 32-bit integers read as floats reach 2.1e9
UNKNOWN = 1 << 62  # frames; libsndfile reports more where a header gives no length
LONGEST = 3600.0  # seconds of the longest recording that is read whole


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


def read(
    source: Source | str | os.PathLike,
    sample_rate: int,
    heard: Heard | None = None,
    longest: float = math.inf,
) -> tuple[np.ndarray, int]:
    """Decodes a recording, takes the mean of its channels or one of them, and resamples it.

    libsndfile decodes most formats, and the program ffmpeg others. Files whose names end as in
    `source.HEADERLESS` hold 16-bit little-endian mono samples alone.

    Args:
        source: The recording.
        sample_rate: The wanted rate in Hz; 0 keeps the rate of the file.
        heard: An empty object, which then knows what is odd about the recording.
        longest: Seconds of the longest recording that is read, if that is below `LONGEST`.

    Returns:
        Samples, float32 [n], full scale at 1; and their rate in Hz.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file cannot be read or decoded, or is cut short, empty, not finite,
            silent, or too long; or it ends before its part.
    """
    source = _source(source)
    file_rate, blocks = _decode(source, min(longest, LONGEST), heard)
    return _join(source, blocks, file_rate, sample_rate or file_rate)


def from_samples(samples: np.ndarray, rate: int, sample_rate: int) -> tuple[np.ndarray, int]:
    """Checks and resamples a waveform, whose samples then equal those of `read`.

    Args:
        samples: float [n], mono, full scale at 1.
        rate: Their rate in Hz.
        sample_rate: The wanted rate in Hz; 0 keeps the rate.

    Returns:
        As `read`.

    Raises:
        ValueError: The samples are of another form, empty, not finite or silent, or the rate is
            impossible.
    """
    samples = np.asarray(samples)
    if not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(
            f"samples of type {samples.dtype} must be floats with full scale at 1: divide integers "
            "of 16 bits by 32768"
        )
    if samples.ndim != 1:
        raise ValueError(
            f"samples of shape {samples.shape} must be one channel [n]: average the channels, or "
            "take one"
        )
    low, high = sources.RATES
    if not low <= rate <= high:
        raise ValueError(f"rate={rate} must be that of the samples, {low} to {high} Hz")
    blocks = [samples.astype(np.float32)] if len(samples) else []
    return _join("the waveform", blocks, rate, sample_rate or rate)


def windows(
    source: Source | str | os.PathLike,
    sample_rate: int,
    windowing: Windowing,
    trim: float = 0.0,
    heard: Heard | None = None,
    longest: float = math.inf,
) -> Iterator[tuple[float, float, int, np.ndarray]]:
    """Reads a recording of any length window by window, with a few windows in memory.

    The samples equal those of `read`, and the windows those of `Windowing.split`. The recording is
    decoded twice, so that an unusable one raises an error before its first window.

    Args:
        source: The recording.
        sample_rate: The wanted rate in Hz; 0 keeps the rate of the file.
        windowing: How the recording is cut; its window is above 0.
        trim: As in `find_speech`; the first window starts where the speech does.
        heard: As in `read`.
        longest: Seconds of the longest recording that is read.

    Yields:
        The recording's length and the window's start in seconds, the rate in Hz, and the window's
        samples, float32 [n].

    Raises:
        FileNotFoundError, ValueError: As in `read`.
    """
    source, lengths = _source(source), []
    file_rate, blocks = _decode(source, longest, heard)
    rate = sample_rate or file_rate
    blocks = _count(_check(source, blocks), lengths)
    if trim:
        blocks = _resample(blocks, file_rate, rate)
    offset, stop = find_speech(blocks, rate, trim)
    seconds = sum(lengths) / file_rate
    blocks = _resample(_decode(source)[1], file_rate, rate)
    if trim:
        blocks = _between(blocks, offset, stop)
    length, step = windowing.samples(rate)
    kept, start, done = np.zeros(0, np.float32), 0, 0  # samples from `start` on; windows yielded
    for block in blocks:
        kept = np.concatenate([kept, block])
        # A window is yielded once it and the hop after it are full, see `count_windows`.
        while start + len(kept) >= done * step + max(length, step):
            first = done * step - start
            yield seconds, (offset + done * step) / rate, rate, kept[first : first + length]
            done += 1
        passed = min(done * step - start, len(kept))
        kept, start = kept[passed:], start + passed
    total = start + len(kept)
    if not total:
        raise ValueError(f"{source} is too short: at {rate} Hz it has no sample")
    for index in range(done, windowing.count(total, rate)):
        first = index * step - start
        yield seconds, (offset + index * step) / rate, rate, kept[first : first + length]


def _source(source: Source | str | os.PathLike) -> Source:
    return source if isinstance(source, Source) else Source(Path(source))


def _join(
    source: Source | str, blocks: Iterable[np.ndarray], rate: int, wanted: int
) -> tuple[np.ndarray, int]:
    """Checks blocks, and returns them resampled and in one; and the wanted rate."""
    blocks = _resample(_check(source, blocks), rate, wanted)
    samples = np.concatenate([np.zeros(0, np.float32), *blocks])
    if not samples.size:
        raise ValueError(f"{source} is too short: at {wanted} Hz it has no sample")
    return samples, wanted


def _count(blocks: Iterable[np.ndarray], lengths: list[int]) -> Iterator[np.ndarray]:
    """Passes blocks on, and adds the length of each to a list."""
    for block in blocks:
        lengths.append(len(block))
        yield block


def _between(blocks: Iterable[np.ndarray], first: int, stop: int) -> Iterator[np.ndarray]:
    """Passes on the samples from the first to the one before `stop`."""
    done = 0
    for block in blocks:
        yield block[max(0, first - done) : max(0, stop - done)]
        done += len(block)


def _resample(blocks: Iterable[np.ndarray], rate: int, wanted: int) -> Iterator[np.ndarray]:
    """Resamples block by block; the result equals `soxr.resample` of the whole."""
    if rate == wanted:
        yield from blocks
        return
    stream = soxr.ResampleStream(rate, wanted, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def _check(source: Source | str, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Passes blocks on; raises an error if the samples are impossible, silent or missing."""
    low, high = np.inf, -np.inf
    for samples in blocks:
        if not np.isfinite(samples).all():
            raise ValueError(f"{source} is damaged: some of its samples are not finite numbers")
        low, high = min(low, samples.min()), max(high, samples.max())
        if max(high, -low) > LOUDEST:
            raise ValueError(
                f"{source} is damaged: full scale is 1, and it has samples of {high:.1g}"
            )
        yield samples
    if low > high:
        raise ValueError(f"{source} is empty: it holds no samples")
    if high - low < SILENCE:
        where = ""
        if isinstance(source, Source):
            where = (
                f" ({'the mean of all channels' if source.channel == 'mix' else source.channel})"
            )
        raise ValueError(f"{source} is silent: its samples{where} are all alike")


def _decode(
    source: Source, longest: float = math.inf, heard: Heard | None = None
) -> tuple[int, Iterator[np.ndarray]]:
    """Opens a recording; returns its rate in Hz and its samples in blocks, float32 [n]."""
    size = _size(source.path)
    if not size:
        raise ValueError(f"{source} is empty: it has 0 bytes")
    if not source.is_headerless and ffmpeg.is_needed(source.path):
        decoded = ffmpeg.decode(source)
    else:
        try:
            decoded = _open(source, size, longest)
        except soundfile.LibsndfileError as error:
            decoded = ffmpeg.decode(source, _reason(error))
    if heard:
        heard.begin(decoded, source.channel)
    return decoded.rate, _limit(source, decoded.rate, longest, _mix(decoded, source.channel, heard))


def _mix(decoded: Decoded, channel: str, heard: Heard | None) -> Iterator[np.ndarray]:
    """Takes the mean of the channels, or one of them; float32 [n]."""
    # Numbers of 16 bits come as such: NumPy takes a tenth of libsndfile's time to make the same
    # floats of them, and a tenth of the time of a mean over rows to add columns.
    with contextlib.closing(decoded.blocks):
        for block in decoded.blocks:
            columns = block.astype(np.float32, copy=False).T
            if channel == "mix":
                total = functools.reduce(np.add, columns)
                samples = total / (decoded.full_scale * len(columns))
            else:
                place = min(CHANNELS.index(channel), len(columns)) - 1
                samples = columns[place] / decoded.full_scale
            yield samples
            if heard:  # later, so that they were checked
                heard.add(columns, samples)


def _limit(
    source: Source, rate: int, longest: float, blocks: Iterator[np.ndarray]
) -> Iterator[np.ndarray]:
    """Passes blocks on; raises an error if they are too long, or end before the part does."""
    total = 0
    with contextlib.closing(blocks):
        for samples in blocks:
            total += len(samples)
            if total > longest * rate:
                raise ValueError(_too_long(source, longest))
            yield samples
    missing = source.end - source.start - total / rate
    if source.is_part and not total:
        raise ValueError(f"{source} cannot be read: the file ends before")
    if LENIENCE < missing < math.inf:
        raise ValueError(f"{source} cannot be read: the file ends {missing:.2f} s earlier")


def _too_long(source: Source, longest: float) -> str:
    limit = f"{longest / 60:.0f} min" if longest >= 120 else f"{longest:.0f} s"
    return (
        f"{source} is longer than {limit}, too long to be read whole: cut it into utterances, or "
        "give --window"
    )


def _reason(error: soundfile.LibsndfileError) -> str:
    """Returns what libsndfile says; of MPEG that is none it would say that there is no file."""
    said = error.error_string.rstrip(".")
    return "Format not recognised" if said.startswith("File does not exist") else said


def _open(source: Source, size: int, longest: float) -> Decoded:
    """Opens a recording by libsndfile."""
    path, options, header = source.path, {}, wav.Header()
    content = os.fsencode(path)  # a name need not be UTF-8
    if source.is_headerless:
        if size % 2:
            raise ValueError(f"{source} is damaged: 16-bit samples cannot fill {size} bytes")
        options = {"format": "RAW", "subtype": "PCM_16", "endian": "LITTLE", "channels": 1}
        options["samplerate"] = source.raw_rate
    else:
        header = wav.read_header(path)
        if header.is_open:
            content = wav.with_length(path, header)
    file = soundfile.SoundFile(content, **options)
    with contextlib.ExitStack() as closed_by_an_error:
        closed_by_an_error.callback(file.close)
        # libsndfile takes any bytes for samples where a name ends in .au, .gsm or .vox.
        if file.format == "RAW" and not source.is_headerless and not _is_gsm(path):
            raise soundfile.LibsndfileError(1)  # it has no format that libsndfile knows
        rate = file.samplerate
        check_rate(source, rate)
        first, stop = round(source.start * rate), file.frames
        if source.end < math.inf:
            stop = min(stop, round(source.end * rate))
        if first >= file.frames > 0:
            raise ValueError(f"{source} cannot be read: the file has {file.frames / rate:.2f} s")
        if longest * rate < stop - first < UNKNOWN:
            raise ValueError(_too_long(source, longest))
        closed_by_an_error.pop_all()
    dtype, full_scale = ("int16", 32768) if file.subtype == "PCM_16" else ("float32", 1)

    def blocks() -> Iterator[np.ndarray]:
        try:
            with file:
                if first:
                    file.seek(first)
                left, frames = stop - first, max(1, sources.BLOCK // file.channels)
                while left > 0:
                    channels = file.read(min(frames, left), dtype=dtype, always_2d=True)
                    if not len(channels):
                        break
                    left -= len(channels)
                    yield channels
        except soundfile.LibsndfileError as error:
            raise ValueError(f"{source} cannot be decoded: {error.error_string}") from error

    return Decoded(rate, blocks(), full_scale, header.is_open)


def _is_gsm(path: Path) -> bool:
    """Tells whether a file begins as a frame of GSM 06.10, which has no header."""
    with path.open("rb") as file:
        return path.suffix.lower() == ".gsm" and file.read(1)[0] >> 4 == 0xD


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
