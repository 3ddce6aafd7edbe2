"""The sizes in the header of a .wav, which recorders leave open or leave false."""

import mmap
import os
from pathlib import Path
from typing import NamedTuple

# Recorders that write to a pipe or a stream put an impossible size into the header of a .wav, since
# they do not know the length (ffmpeg 2**32 - 1, arecord 2**31, SoX 2**31 - 4096, others
# 2,000,000,000), or leave 0.
OPEN_SIZE = 2_000_000_000
LARGEST = (1 << 32) - 1  # bytes that a field of the header can name
UNKNOWN = 1 << 62  # bytes of an RF64 without a length
CHUNKS = 100  # among which the samples are looked for
LENIENCE = 8  # bytes of padding that some recorders count, and do not write


class Header(NamedTuple):
    """What the header of a .wav says about sizes; other files have an empty one.

    Attributes:
        size: Bytes that the file must have.
        start: Bytes before the samples.
        is_open: Whether the header gives no length; the samples then reach the end of the file.
    """

    size: int = 0
    start: int = 0
    is_open: bool = False


def read_header(path: Path) -> Header:
    """Reads the header of a .wav.

    Raises:
        ValueError: The file is shorter than its header says, which libsndfile would accept.
    """
    header, size = _read(path), path.stat().st_size
    if header.size - size > LENIENCE:
        raise ValueError(f"{path} is cut short: it has {size} of {header.size} bytes")
    return header


def _read(path: Path) -> Header:
    with path.open("rb") as file:
        head = file.read(28)
        if head[8:12] != b"WAVE":
            return Header()
        if head[:4] in (b"RF64", b"BW64") and head[12:16] == b"ds64":
            whole = int.from_bytes(head[20:28], "little") + 8
            return Header(whole if whole < UNKNOWN else 0)
        if head[:4] != b"RIFF":
            return Header()
        whole = int.from_bytes(head[4:8], "little") + 8
        file.seek(12)
        for _ in range(CHUNKS):
            name, samples = file.read(4), int.from_bytes(file.read(4), "little")
            if name == b"data":
                break
            file.seek(samples + samples % 2, os.SEEK_CUR)
        else:
            return Header(whole if whole < OPEN_SIZE else 0)
        start, following = file.tell(), file.read(4)
        size = os.fstat(file.fileno()).st_size
    whole_is_known = start < whole < OPEN_SIZE
    if samples:
        is_open = samples >= OPEN_SIZE and start + samples - size > LENIENCE
    else:  # where a .wav is empty, the name of a chunk may follow
        is_open = size > start and not (whole_is_known and following.isalnum())
    if whole_is_known:
        return Header(whole, start, is_open)
    return Header(0 if is_open else start + samples, start, is_open)


def with_length(path: Path, header: Header) -> mmap.mmap:
    """Returns the content of a .wav with the length that its header lacks; the file stays as is."""
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    content[4:8] = min(len(content) - 8, LARGEST).to_bytes(4, "little")
    samples = min(len(content) - header.start, LARGEST)
    samples -= samples % 2  # libsndfile would look for the byte that pads an odd number
    content[header.start - 4 : header.start] = samples.to_bytes(4, "little")
    return content
