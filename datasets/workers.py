"""Draws recordings or computes their features on all cores, for the records of a corpus.

Worker processes import this module and what it needs: neither TFDS nor JAX.
"""

import collections
import errno
import multiprocessing
import signal
import struct
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import loky
import numpy as np

from ds_jax.features import extract
from ds_jax.features.remarks import Heard, Remark
from ds_jax.features.source import Source
from ds_jax.runtime import progress

BATCH = 4  # recordings that a worker takes at a time
AHEAD = 8  # batches for each worker that are in progress or in the queue
# The libraries of the workers must leave the cores to the other workers.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
UP = 2  # the PNG filter that stores each row as its difference from the row above

# The seconds of a recording; a grey PNG for each window, or a float32 array of features; the digest
# of its samples; and what is odd about it. Or the reason why the recording cannot be used.
Outcome = tuple[float, list[bytes] | list[np.ndarray], str, list[Remark]] | str


def represent_all(sources: Sequence[Source], settings: extract.Settings) -> Iterator[Outcome]:
    """Yields the outcome of each recording in order, while all cores work on the next ones.

    At most `BATCH * AHEAD` recordings a core are in memory.

    Raises:
        OSError: A worker was killed.
    """
    batches = [sources[start : start + BATCH] for start in range(0, len(sources), BATCH)]
    cores = min(loky.cpu_count(), len(batches))
    if cores == 1:
        yield from (represent(source, settings) for source in sources)
        return
    # Ctrl-C is left to the caller; each worker would print a traceback of its own.
    ignore = {"initializer": signal.signal, "initargs": (signal.SIGINT, signal.SIG_IGN)}
    try:
        if settings.in_threads:
            executor = ThreadPoolExecutor(cores)
        else:
            executor = loky.get_reusable_executor(cores, timeout=60, env=ONE_THREAD, **ignore)
        # The first batch alone compiles what librosa leaves to Numba. Of workers that fill Numba's
        # cache together, each may load what another has half written, and crash.
        first = executor.submit(_represent_batch, batches[0], settings)
    except OSError as error:
        reason = "need /dev/shm" if _lacks_semaphores() else "cannot be started"
        progress.say(f"note: one process works alone: others {reason} ({error.strerror or error})")
        yield from (represent(path, settings) for path in sources)
        return
    queue = collections.deque()
    try:
        yield from _outcomes(batches[0], first)
        for batch in batches[1:]:
            queue.append((batch, executor.submit(_represent_batch, batch, settings)))
            if len(queue) == cores * AHEAD:
                yield from _outcomes(*queue.popleft())
        while queue:
            yield from _outcomes(*queue.popleft())
    except BaseException:  # an interrupt, for example: nobody waits for the other batches
        executor.shutdown(**{"cancel_futures" if settings.in_threads else "kill_workers": True})
        raise


def _lacks_semaphores() -> bool:
    """Tells whether processes cannot share semaphores, which lie in /dev/shm."""
    try:
        multiprocessing.get_context("spawn").Lock()
    except OSError as error:
        return error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
    return False


def _outcomes(batch: Sequence[Source], future: Future) -> list[Outcome]:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise OSError(
            f"a process that read recordings was ended from outside, as when memory runs out, at "
            f"{batch[0].path} or one of the next: take that out, or prepare with more memory"
        ) from error


def _represent_batch(sources: Sequence[Source], settings: extract.Settings) -> list[Outcome]:
    return [represent(source, settings) for source in sources]


def represent(source: Source, settings: extract.Settings) -> Outcome:
    """Decodes one recording, and draws its windows or computes its features."""
    heard = Heard()
    try:
        seconds, arrays, digest = extract.read(source, settings, heard)
    except (OSError, ValueError) as error:
        return str(error).removeprefix(str(source.path)).lstrip(": ")
    stored = [png(array) if array.dtype == np.uint8 else array for array in arrays]
    return seconds, stored, digest, heard.remarks(settings)


def png(pixels: np.ndarray) -> bytes:
    """Encodes a picture as a PNG that is filtered but not compressed.

    array_record compresses all that it stores. Pillow tries all five filters on each row, even with
    compress_level=0, which takes ten times as long to encode and twice as long to decode.

    Args:
        pixels: uint8 [height, width], grey.
    """
    height, width = pixels.shape
    rows = np.full((height, 1 + width), UP, np.uint8)
    rows[0, 1:] = pixels[0]
    np.subtract(pixels[1:], pixels[:-1], out=rows[1:, 1:])  # modulo 256
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0),
        b"IDAT": zlib.compress(rows, level=0),
        b"IEND": b"",
    }
    file = b"\x89PNG\r\n\x1a\n"
    for name, data in chunks.items():
        file += struct.pack(">I", len(data)) + name + data
        file += struct.pack(">I", zlib.crc32(name + data))
    return file
