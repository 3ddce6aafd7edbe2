"""Decodes by the program ffmpeg, where it is installed, what libsndfile does not."""

import contextlib
import math
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ds_jax.features import source as sources
from ds_jax.features.source import Decoded, Source, check_rate

STALLED = 60.0  # seconds after which a silent ffmpeg is ended
LONGEST = 600  # seconds of CPU after which it ends itself: AAC of a whole day takes fewer
# The demuxers that may read a recording, by their names in ffmpeg. Each reads one file: those of
# playlists (concat, hls, dash, image2 and others) would read whatever files a recording names.
DEMUXERS = (
    *("aac", "ac3", "aiff", "amr", "amrnb", "amrwb", "ape", "asf", "au", "avi", "caf", "dts"),
    *("dtshd", "eac3", "flac", "flv", "gsm", "loas", "matroska", "mov", "mp3", "mpc", "mpc8"),
    *("mpeg", "mpegts", "nistsphere", "ogg", "oma", "qcp", "rm", "shn", "tak", "tta", "voc", "w64"),
    *("wav", "wv", "xwma"),
)
FLOAT32 = 6  # the number of its encoding in the header of Sun's .au
# Seconds that are decoded before a part and thrown away: decoders of AAC and the like begin with
# wrong samples where they begin in the middle.
PREROLL = 1.0
ABSENT = "not on the PATH"
# What has no header: ffmpeg takes any bytes for samples at 44.1 kHz.
GUESSED = (".al", ".ul", ".sb", ".ub", ".sw", ".uw")
# Matroska and WebM, AMR, and Windows Media, whatever the file is called.
BEGINNINGS = (b"\x1aE\xdf\xa3", b"#!AMR", b"0&\xb2u\x8ef\xcf\x11")


class NotDecoded(ValueError):
    """A recording that is left to ffmpeg, and not decoded; its words may quote what it read."""


def is_needed(path: Path) -> bool:
    """Tells by the beginning of a file whether it is of a format that libsndfile does not know."""
    head = _head(path)
    # ADTS: the sync word of MPEG audio, and the layer that MPEG audio does not have.
    is_adts = head[:1] == b"\xff" and head[1:2] != b"" and head[1] & 0xF6 == 0xF0
    return is_adts or _is_mp4(head) or head.startswith(BEGINNINGS)


def decode(source: Source, tried: str = "") -> Decoded:
    """Opens a recording.

    The samples come through a pipe, so that only a block of them is in memory. A part of a file is
    sought where that is exact: in MP4, whose times are whole samples. Others are decoded from their
    start to the end of the part. `tried` is what libsndfile says, if it cannot decode it.

    Raises:
        NotDecoded: ffmpeg is missing, or cannot decode the recording.
        ValueError: The rate is impossible or unknown.
    """
    if source.path.suffix.lower() in GUESSED:
        raise ValueError(f"{source} has no header that gives its rate: convert it to .wav or .flac")
    program = shutil.which("ffmpeg")
    if program is None:
        reason = f"{source} needs ffmpeg to be decoded, which is"
        if tried:
            reason = f"{source} cannot be decoded by libsndfile ({tried}), and may need ffmpeg,"
        advice = "install it, or convert the recording to .wav or .flac"
        raise NotDecoded(f"{reason} {ABSENT}: {advice}")
    is_sought = source.is_part and _is_mp4(_head(source.path))
    process = _Process(_command(program, source, is_sought), source, tried)
    with contextlib.ExitStack() as ended_by_an_error:
        ended_by_an_error.callback(process.end)
        head = process.read(24)
        if len(head) < 24 or head[:4] != b".snd":
            raise NotDecoded(process.complaint() or f"{source} has no sound")
        offset, _, encoding, rate, channels = np.frombuffer(head[4:], ">u4").tolist()
        if encoding != FLOAT32 or not channels:
            raise NotDecoded(f"{source} cannot be decoded: ffmpeg answers in an unknown encoding")
        process.read(offset - 24)
        check_rate(source, rate)
        ended_by_an_error.pop_all()
    first, stop = (0, math.inf) if is_sought else (source.start * rate, source.end * rate)
    return Decoded(rate, _blocks(process, channels, round(first), stop))


def _command(program: str, source: Source, is_sought: bool) -> list[str]:
    """Returns the command that writes the samples as a .au of floats to standard output."""
    command = [program, "-nostdin", "-v", "error", "-max_alloc", "1000000000"]
    command += ["-timelimit", str(LONGEST)]
    # A file must not lead to other files or places.
    command += ["-format_whitelist", ",".join(DEMUXERS), "-protocol_whitelist", "file"]
    cut = []
    if is_sought:
        # The filter cuts by the times of the file, which seeking alone misses by up to a frame.
        command += ["-copyts", "-noaccurate_seek"]
        command += ["-ss", f"{source.start - PREROLL:.6f}"] if source.start > PREROLL else []
        end = f":end={source.end:.9f}" if source.end < math.inf else ""
        cut = ["-af", f"atrim=start={source.start:.9f}{end}"]
    command += ["-i", f"file:{source.path}", "-map", "0:a:0", *cut]
    return [*command, "-c:a", "pcm_f32be", "-threads", "1", "-f", "au", "-"]


def _blocks(process: "_Process", channels: int, first: int, stop: float) -> Iterator[np.ndarray]:
    """Yields the samples from the first one to the one before `stop`, float32 [n, channels]."""
    frame, done = 4 * channels, 0  # bytes; samples
    stop = round(stop) if stop < math.inf else stop
    try:
        while data := process.read(max(1, sources.BLOCK // channels) * frame):
            samples = np.frombuffer(data[: len(data) // frame * frame], ">f4").astype(np.float32)
            samples = samples.reshape(-1, channels)
            inside = samples[max(0, first - done) : max(0, min(stop - done, len(samples)))]
            done += len(samples)
            if len(inside):
                yield inside
            if done >= stop:
                return
        if complaint := process.complaint():
            raise NotDecoded(complaint)
    finally:
        process.end()


class _Process:
    """A running ffmpeg, which is ended if it gives nothing for too long.

    Args:
        command: Its command.
        source: What it decodes, for messages.
        tried: As in `decode`.
    """

    def __init__(self, command: Sequence[str], source: Source, tried: str):
        self._refusal = f"{source} cannot be decoded: "
        self._refusal += f"libsndfile says {tried!r}, and " if tried else ""
        self._stalled = False
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115 (it is closed with the process)
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._messages
        )

    def read(self, count: int) -> bytes:
        """Returns the next bytes; fewer at the end of them."""
        timer = threading.Timer(STALLED, self._stop)
        timer.start()
        try:
            return self._process.stdout.read(count)
        finally:
            timer.cancel()

    def _stop(self) -> None:
        self._stalled = True
        self._process.kill()

    def complaint(self) -> str:
        """Waits for its end; returns a sentence if it failed or found damage, else ""."""
        self._process.stdout.close()
        try:
            status = self._process.wait(STALLED)
        except subprocess.TimeoutExpired:
            self._stop()
            status = self._process.wait()
        if self._stalled:
            return f"{self._refusal}ffmpeg was ended after {STALLED:.0f} s without sound"
        if status == -signal.SIGXCPU:
            return f"{self._refusal}ffmpeg was ended after {LONGEST} s of CPU: cut the recording"
        if status < 0:
            return f"{self._refusal}ffmpeg was ended from outside by signal {-status}"
        self._messages.seek(max(0, self._messages.seek(0, os.SEEK_END) - 1000))
        lines = self._messages.read().decode("utf-8", "replace").split("\n")
        said = [re.sub(r"^\[.*?\] ", "", line.strip()) for line in lines if line.strip()]
        if not status and not said:
            return ""
        return f"{self._refusal}ffmpeg says {said[0] if said else f'exit status {status}'!r}"

    def end(self) -> None:
        self._process.kill()
        self._process.stdout.close()
        self._process.wait()
        self._messages.close()


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(12)


def _is_mp4(head: bytes) -> bool:
    return head[4:8] == b"ftyp"
