"""Reads a recording as mono samples, whole or in windows."""

import contextlib
import dataclasses
import functools
import itertools
import math
import mmap
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import soundfile
import soxr

HEADERLESS = (".l16", ".raw")  # ELRA-S0329: 16-bit little-endian PCM, mono
HEADERLESS_RATE = 16_000  # Hz
# The suffixes of what libsndfile decodes, and of what ffmpeg decodes where it is installed.
LIBSNDFILE = (
    *(".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".aifc", ".au", ".snd"),
    *(".caf", ".w64", ".rf64", ".sph", ".nist", ".voc"),
)
FFMPEG = (
    *(".m4a", ".m4b", ".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".aac", ".adts", ".amr", ".awb"),
    *(".wma", ".wmv", ".asf", ".webm", ".weba", ".mka", ".mkv", ".ac3", ".eac3", ".ape", ".tta"),
    *(".wv", ".mp2", ".mpg", ".mpeg", ".avi", ".flv", ".ra", ".rm", ".spx"),
)
SUFFIXES = (*LIBSNDFILE, *HEADERLESS, *FFMPEG)
STALLED = 60.0  # seconds after which a silent ffmpeg is ended
FLOAT32 = 6  # the number of its encoding in the header of Sun's .au
TRIM_FRAME = 0.025  # seconds of sound whose energies are compared
TRIM_MARGIN = 0.1  # seconds that are kept before and after speech: quiet consonants
HEARD = 4  # blocks of a recording that are judged by their bands and channels
BAND = 0.56  # of the highest frequency, above which telephones transmit nothing
# The share of the power above the band of a telephone is 7e-4 and more in 240 recordings of EmoDB,
# EMOVO and RAVDESS, and 2e-5 and less in the same ones at 8 kHz.
NARROW = 1e-4
TELEPHONE = 8000  # Hz, the rate of its samples
ALIKE = 0.5  # the correlation of two channels below which they hear different things
PAUSE = 1.5  # seconds of silence around speech that are remarked on
PAUSE_TRIM = 40.0  # dB; how silence is found there
LENIENCE = 0.05  # seconds by which the end of a part may be after that of its file: it was rounded
# Three steps of a 16-bit recorder: a signal that stays within them comes from a dead channel.
SILENCE = 1e-4
LOUDEST = 1e10  # beyond, spectra overflow; 32-bit integers read as floats reach 2.1e9
RATES = (1000, 768_000)  # Hz; a header with another rate is damaged
UNKNOWN = 1 << 62  # frames; libsndfile reports more where a header gives no length
LONGEST = 3600.0  # seconds of the longest recording that is read whole
BLOCK = 1 << 17  # samples of all channels that are decoded at a time
# Recorders that write to a pipe or a stream put an impossible size into the header of a .wav, since
# they do not know the length (ffmpeg 2**32 - 1, arecord 2**31, SoX 2**31 - 4096, others
# 2,000,000,000), or leave 0.
OPEN_SIZE = 2_000_000_000
CHUNKS = 100  # of a .wav, among which its samples are looked for


class Source(NamedTuple):
    """A recording, or a part of one.

    Attributes:
        path: The file.
        start: The part's start in seconds.
        end: The part's end in seconds; infinity for that of the file.
        raw_rate: The rate in Hz of the samples, if the file is one of `HEADERLESS`.
    """

    path: Path
    start: float = 0.0
    end: float = math.inf
    raw_rate: int = HEADERLESS_RATE

    @property
    def is_part(self) -> bool:
        """Whether this is not the whole file."""
        return self.start > 0 or self.end < math.inf

    def __str__(self) -> str:
        return (
            f"{self.path} from {self.start:g} to {self.end:g} s" if self.is_part else f"{self.path}"
        )


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


def read(source: Source | str | os.PathLike, sample_rate: int) -> tuple[np.ndarray, int]:
    """Decodes a recording, averages its channels and resamples it.

    Files whose names end in .l16 or .raw hold headerless 16-bit little-endian mono samples. The
    program ffmpeg decodes the formats of `FFMPEG`, and libsndfile all others (wav, flac, ...).

    Args:
        source: The recording.
        sample_rate: The wanted rate in Hz; 0 keeps the rate of the file.

    Returns:
        Samples, float32 [n], full scale at 1; and their rate in Hz.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file cannot be read or decoded, or is cut short, empty, not finite,
            silent, or longer than `LONGEST`; or it ends before its part.
    """
    source = _source(source)
    file_rate, blocks = _decode(source, LONGEST)
    rate = sample_rate or file_rate
    blocks = _resample(_check(source, blocks), file_rate, rate)
    samples = np.concatenate([np.zeros(0, np.float32), *blocks])
    if not samples.size:
        raise ValueError(f"{source} is too short: at {rate} Hz it has no sample")
    return samples, rate


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
    if not RATES[0] <= rate <= RATES[1]:
        raise ValueError(f"rate={rate} must be that of the samples, {RATES[0]} to {RATES[1]} Hz")
    wanted = sample_rate or rate
    blocks = _check("the waveform", [samples.astype(np.float32)] if len(samples) else [])
    samples = np.concatenate([np.zeros(0, np.float32), *_resample(blocks, rate, wanted)])
    if not samples.size:
        raise ValueError(f"the waveform is too short: at {wanted} Hz it has no sample")
    return samples, wanted


def windows(
    source: Source | str | os.PathLike, sample_rate: int, windowing: Windowing, trim: float = 0.0
) -> Iterator[tuple[float, float, int, np.ndarray]]:
    """Reads a recording of any length window by window, with a few windows in memory.

    The samples equal those of `read`, and the windows those of `Windowing.split`. The recording is
    decoded twice, so that an unusable one raises an error before its first window, and once more
    if it is trimmed.

    Args:
        source: The recording.
        sample_rate: The wanted rate in Hz; 0 keeps the rate of the file.
        windowing: How the recording is cut; its window is above 0.
        trim: As in `find_speech`; the first window starts where the speech does.

    Yields:
        The recording's length and the window's start in seconds, the rate in Hz, and the window's
        samples, float32 [n].

    Raises:
        FileNotFoundError, ValueError: As in `read`.
    """
    source = _source(source)
    file_rate, blocks = _decode(source)
    seconds = sum(map(len, _check(source, blocks))) / file_rate
    rate = sample_rate or file_rate
    blocks, offset = _resample(_decode(source)[1], file_rate, rate), 0
    if trim:
        offset, stop = find_speech(blocks, rate, trim)
        blocks = _between(_resample(_decode(source)[1], file_rate, rate), offset, stop)
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


def remarks(source: Source | str | os.PathLike, sample_rate: int, trim: float = 0.0) -> list[str]:
    """Returns what is odd about a recording that was read, as phrases.

    Args:
        source: The recording.
        sample_rate: The rate in Hz at which it was read; 0: its own.
        trim: As in `find_speech`, if the recording was trimmed.
    """
    source = _source(source)
    if not source.path.is_file():
        return []
    found = []
    if _read_header(source.path).is_open:
        found.append("read to the end of the file, since its header gives no length")
    rate, blocks = _decode(source)
    with contextlib.closing(blocks):
        samples = np.concatenate(list(itertools.islice(blocks, HEARD)))
        is_whole = next(blocks, None) is None
    advice = (
        "models of other recordings may answer wrongly; for models of such ones there is "
        "--config.picture.sample_rate"
    )
    if rate < sample_rate:
        found.append(f"of {rate} Hz, and read at {sample_rate} Hz: {advice}={rate}")
    elif _is_narrow(samples, rate, sample_rate or rate):
        found.append(f"without sound above the band of a telephone: {advice}={TELEPHONE}")
    first, stop = find_speech([samples], rate, PAUSE_TRIM)
    silence = max(first, len(samples) - stop if is_whole else 0)
    if not trim and silence > PAUSE * rate:
        found.append(
            f"with more than {PAUSE:g} s of silence before or after the speech: models of other "
            f"recordings may answer wrongly; --config.trim={PAUSE_TRIM:g} trains models without it"
        )
    if _channels_differ(source):
        found.append(
            "of channels that differ, and are averaged: if they are of several speakers, save each "
            "channel as a file"
        )
    return found


def _is_narrow(samples: np.ndarray, rate: int, wanted: int) -> bool:
    """Tells whether samples have next to no power in the upper half of the wanted frequencies."""
    size = max(2, round(rate / 16))
    frames = samples[: len(samples) // size * size].reshape(-1, size)
    if not len(frames) or wanted < 2 * TELEPHONE:
        return False
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(size)))).sum(axis=0)
    frequencies = np.fft.rfftfreq(size, 1 / rate)
    high = (BAND * wanted / 2 < frequencies) & (frequencies < 0.95 * wanted / 2)
    return power[high].sum() < NARROW * power.sum()


def _channels_differ(source: Source) -> bool:
    """Tells whether the first two channels of a file that libsndfile decodes hear other things."""
    if _needs_ffmpeg(source.path) or source.path.suffix.lower() in HEADERLESS:
        return False
    with soundfile.SoundFile(os.fsencode(source.path)) as file:
        if file.channels < 2:
            return False
        frames = HEARD * BLOCK // file.channels
        first, second = file.read(frames, dtype="float32", always_2d=True)[:, :2].T
    product = np.sqrt(np.vdot(first, first) * np.vdot(second, second))
    return np.vdot(first, second) < ALIKE * product


def _source(source: Source | str | os.PathLike) -> Source:
    return source if isinstance(source, Source) else Source(Path(source))


def find_speech(blocks: Iterable[np.ndarray], rate: int, trim: float) -> tuple[int, int]:
    """Finds where the speech of a recording starts and stops, with a margin on both sides.

    Args:
        blocks: The samples, float32 [n] in total.
        rate: Hz.
        trim: Frames of `TRIM_FRAME` are silent if they lie more than this many dB below the
            loudest; 0 takes the whole recording.

    Returns:
        The first sample of the speech, and the first one after it.
    """
    frame, margin, total = round(TRIM_FRAME * rate), round(TRIM_MARGIN * rate), 0
    energies, rest = [], np.zeros(0, np.float32)
    for block in blocks:
        total += len(block)
        if trim:
            rest = np.concatenate([rest, block])
            whole = len(rest) // frame * frame
            energies.append(np.square(rest[:whole].reshape(-1, frame), dtype=np.float64).sum(1))
            rest = rest[whole:]
    if not trim:
        return 0, total
    energies = np.concatenate([*energies, [np.square(rest, dtype=np.float64).sum()]])
    (loud,) = np.nonzero(energies >= energies.max() * 10 ** (-trim / 10))
    return max(0, loud[0] * frame - margin), min(total, (loud[-1] + 1) * frame + margin)


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
        raise ValueError(f"{source} is silent: its samples are all alike")


def _decode(source: Source, longest: float = math.inf) -> tuple[int, Iterator[np.ndarray]]:
    """Opens a recording; returns its rate in Hz and its samples in blocks, float32 [n]."""
    size = _size(source.path)
    if not size:
        raise ValueError(f"{source} is empty: it has 0 bytes")
    if _needs_ffmpeg(source.path):
        rate, blocks = _run_ffmpeg(source)
    else:
        rate, blocks = _open(source, size, longest)
    return rate, _limit(source, rate, longest, blocks)


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
    if LENIENCE < missing < math.inf:
        raise ValueError(f"{source} cannot be read: the file ends {missing:.2f} s earlier")


def _too_long(source: Source, longest: float) -> str:
    return (
        f"{source} is longer than {longest / 60:.0f} min, too long to be read whole: cut it into "
        "utterances, or give --window"
    )


def _open(source: Source, size: int, longest: float) -> tuple[int, Iterator[np.ndarray]]:
    """Opens a recording by libsndfile; as `_decode`."""
    path, options = source.path, {}
    content = os.fsencode(path)  # a name need not be UTF-8
    if path.suffix.lower() in HEADERLESS:
        if size % 2:
            raise ValueError(f"{source} is damaged: 16-bit samples cannot fill {size} bytes")
        options = {"format": "RAW", "subtype": "PCM_16", "endian": "LITTLE", "channels": 1}
        options["samplerate"] = source.raw_rate
    else:
        header = _read_header(path)
        _check_length(path, header, size)
        if header.is_open:
            content = _with_length(path, header, size)
    try:
        file = soundfile.SoundFile(content, **options)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{source} cannot be decoded: {error.error_string}") from error
    with contextlib.ExitStack() as closed_by_an_error:
        closed_by_an_error.callback(file.close)
        rate = file.samplerate
        _check_rate(source, rate)
        first, stop = round(source.start * rate), file.frames
        if source.end < math.inf:
            stop = min(stop, round(source.end * rate))
        if first >= file.frames > 0:
            raise ValueError(f"{source} cannot be read: the file has {file.frames / rate:.2f} s")
        if longest * rate < stop - first < UNKNOWN:
            raise ValueError(_too_long(source, longest))
        closed_by_an_error.pop_all()

    def blocks() -> Iterator[np.ndarray]:
        # NumPy takes a tenth of libsndfile's time to make the same floats of 16-bit samples, and a
        # tenth of the time of a mean over rows to add columns.
        dtype, full_scale = ("int16", 32768) if file.subtype == "PCM_16" else ("float32", 1)
        try:
            with file:
                if first:
                    file.seek(first)
                left, frames = stop - first, max(1, BLOCK // file.channels)
                while left > 0:
                    channels = file.read(min(frames, left), dtype=dtype, always_2d=True)
                    if not len(channels):
                        break
                    left -= len(channels)
                    total = functools.reduce(np.add, channels.astype(np.float32, copy=False).T)
                    yield total / (full_scale * file.channels)
        except soundfile.LibsndfileError as error:
            raise ValueError(f"{source} cannot be decoded: {error.error_string}") from error

    return rate, blocks()


def _check_rate(source: Source, rate: int) -> None:
    if not RATES[0] <= rate <= RATES[1]:
        raise ValueError(f"{source} is damaged: its header gives a rate of {rate} Hz")


def _needs_ffmpeg(path: Path) -> bool:
    """Tells by a file's name or beginning whether it is of a format of `FFMPEG`."""
    if path.suffix.lower() in HEADERLESS:
        return False
    with path.open("rb") as file:
        head = file.read(12)
    # MP4, Matroska and WebM, AMR, and Windows Media, whatever they are called.
    beginnings = (b"\x1aE\xdf\xa3", b"#!AMR", b"0&\xb2u\x8ef\xcf\x11")
    return path.suffix.lower() in FFMPEG or head[4:8] == b"ftyp" or head.startswith(beginnings)


def _run_ffmpeg(source: Source) -> tuple[int, Iterator[np.ndarray]]:
    """Opens a recording by ffmpeg; as `_decode`.

    The samples come through a pipe, so that only a block of them is in memory.
    """
    program = shutil.which("ffmpeg")
    if program is None:
        raise ValueError(
            f"{source} needs ffmpeg to be decoded, which is not on the PATH: install it, or "
            "convert the recording to .wav or .flac"
        )
    command = [
        *(program, "-nostdin", "-v", "error", "-max_alloc", "1000000000"),
        # A playlist that is called .mp4 must not lead to other places.
        *("-protocol_whitelist", "file,pipe", "-i", f"file:{source.path}"),
        *("-map", "0:a:0", "-c:a", "pcm_f32be", "-threads", "1", "-f", "au", "-"),
    ]
    messages = tempfile.TemporaryFile()  # noqa: SIM115 (it is closed with the process)
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=messages
    )
    with contextlib.ExitStack() as ended_by_an_error:
        ended_by_an_error.callback(_end, process, messages)
        head = _read_bytes(process, 24)
        if len(head) < 24 or head[:4] != b".snd":
            raise ValueError(_complaint(source, process, messages) or f"{source} has no sound")
        offset, _, encoding, rate, channels = np.frombuffer(head[4:], ">u4").tolist()
        if encoding != FLOAT32 or not channels:
            raise ValueError(f"{source} cannot be decoded: ffmpeg answers in an unknown encoding")
        _read_bytes(process, offset - 24)
        _check_rate(source, rate)
        ended_by_an_error.pop_all()

    def blocks() -> Iterator[np.ndarray]:
        frame, done = 4 * channels, 0  # bytes; samples
        first, stop = round(source.start * rate), source.end * rate
        stop = round(stop) if stop < math.inf else UNKNOWN
        try:
            while data := _read_bytes(process, max(1, BLOCK // channels) * frame):
                samples = np.frombuffer(data[: len(data) // frame * frame], ">f4")
                total = functools.reduce(np.add, samples.reshape(-1, channels).T)
                inside = total[max(0, first - done) : max(0, stop - done)]
                done += len(total)
                if len(inside):
                    yield (inside / channels).astype(np.float32)
                if done >= stop:
                    return
            if complaint := _complaint(source, process, messages):
                raise ValueError(complaint)
        finally:
            _end(process, messages)

    return rate, blocks()


def _read_bytes(process: subprocess.Popen, count: int) -> bytes:
    """Reads from a process, which is ended if it gives nothing for too long."""
    timer = threading.Timer(STALLED, process.kill)
    timer.start()
    try:
        return process.stdout.read(count)
    finally:
        timer.cancel()


def _complaint(source: Source, process: subprocess.Popen, messages: IO[bytes]) -> str:
    """Waits for ffmpeg's end; returns a sentence if it failed or found damage, else ""."""
    process.stdout.close()
    try:
        status = process.wait(STALLED)
    except subprocess.TimeoutExpired:
        process.kill()
        status = process.wait()
    if status < 0:
        return f"{source} cannot be decoded: ffmpeg was ended after {STALLED:.0f} s without sound"
    messages.seek(max(0, messages.seek(0, os.SEEK_END) - 1000))
    lines = messages.read().decode("utf-8", "replace").split("\n")
    said = [re.sub(r"^\[.*?\] ", "", line.strip()) for line in lines if line.strip()]
    if not status and not said:
        return ""
    return f"{source} cannot be decoded by ffmpeg: {said[0] if said else f'exit status {status}'}"


def _end(process: subprocess.Popen, messages: IO[bytes]) -> None:
    process.kill()
    process.stdout.close()
    process.wait()
    messages.close()


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


class _Header(NamedTuple):
    """What the header of a .wav says about sizes.

    Attributes:
        size: Bytes that the file must have.
        start: Bytes before the samples.
        is_open: Whether the header gives no length; the samples then reach the end of the file.
    """

    size: int = 0
    start: int = 0
    is_open: bool = False


def _read_header(path: Path) -> _Header:
    """Reads the header of a .wav; other files have an empty one."""
    with path.open("rb") as file:
        head = file.read(28)
        if head[8:12] != b"WAVE":
            return _Header()
        if head[:4] in (b"RF64", b"BW64") and head[12:16] == b"ds64":
            whole = int.from_bytes(head[20:28], "little") + 8
            return _Header(whole if whole < UNKNOWN else 0)
        if head[:4] != b"RIFF":
            return _Header()
        whole = int.from_bytes(head[4:8], "little") + 8
        file.seek(12)
        for _ in range(CHUNKS):
            name, samples = file.read(4), int.from_bytes(file.read(4), "little")
            if name == b"data":
                break
            file.seek(samples + samples % 2, os.SEEK_CUR)
        else:
            return _Header(whole if whole < OPEN_SIZE else 0)
        start, following = file.tell(), file.read(4)
        size = os.fstat(file.fileno()).st_size
    whole_is_known = start < whole < OPEN_SIZE
    if samples:
        is_open = samples >= OPEN_SIZE and start + samples - size > 8
    else:  # where a .wav is empty, the name of a chunk may follow
        is_open = size > start and not (whole_is_known and following.isalnum())
    if whole_is_known:
        return _Header(whole, start, is_open)
    return _Header(0 if is_open else start + samples, start, is_open)


def _check_length(path: Path, header: _Header, size: int) -> None:
    """Raises an error for a wav that is shorter than its header says; libsndfile accepts it."""
    # Some recorders count padding that they do not write.
    if header.size - size > 8:
        raise ValueError(f"{path} is cut short: it has {size} of {header.size} bytes")


def _with_length(path: Path, header: _Header, size: int) -> mmap.mmap:
    """Returns the content of a .wav with the length that its header lacks; the file stays as is."""
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    samples = min(size - header.start, (1 << 32) - 1)
    content[4:8] = min(size - 8, (1 << 32) - 1).to_bytes(4, "little")
    content[header.start - 4 : header.start] = samples.to_bytes(4, "little")
    return content
