"""What is stored of recordings, made on all cores.

Worker processes import this module and what it needs: neither TFDS nor JAX.
"""

import collections
import signal
import struct
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import loky
import numpy as np

from ds_jax.features import representation

BATCH = 4  # recordings that a worker takes at a time
AHEAD = 8  # batches for each worker that may be under way or wait for their turn
# The workers' libraries are to leave the cores to the workers.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
UP = 2  # PNG's filter that leaves of each row its difference from the row above

# Seconds of a recording; for each window, a grey PNG or a float32 array of features; and the digest
# of its samples. Or why it cannot be used.
Outcome = tuple[float, list[bytes] | list[np.ndarray], str] | str


def represent_all(paths: Sequence[Path], settings: representation.Settings) -> Iterator[Outcome]:
    """Yields what is stored of each recording, in order, while all cores work on the next ones.

    However many there are, only some `BATCH * AHEAD` a core are in memory.
    """
    batches = [paths[start : start + BATCH] for start in range(0, len(paths), BATCH)]
    cores = min(loky.cpu_count(), len(batches))
    if cores == 1:
        yield from (represent(path, settings) for path in paths)
        return
    executor = loky.get_reusable_executor(
        cores, timeout=60, env=ONE_THREAD, initializer=_leave_interrupts_to_the_caller
    )
    waiting = collections.deque()
    try:
        for batch in batches:
            waiting.append((batch, executor.submit(_represent_batch, batch, settings)))
            if len(waiting) == cores * AHEAD:
                yield from _outcomes(*waiting.popleft())
        while waiting:
            yield from _outcomes(*waiting.popleft())
    except BaseException:  # an interrupt: nobody waits for what is under way
        executor.shutdown(kill_workers=True)
        raise


def _outcomes(batch: Sequence[Path], future: Future) -> list[Outcome]:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise OSError(
            f"a process that read recordings was ended from outside, as when memory runs out, at "
            f"{batch[0]} or one of the next: take that out, or prepare with more memory"
        ) from error


def _leave_interrupts_to_the_caller() -> None:
    """Ctrl-C is sent to workers, too, which would each print where they were."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _represent_batch(paths: Sequence[Path], settings: representation.Settings) -> list[Outcome]:
    return [represent(path, settings) for path in paths]


def represent(path: Path, settings: representation.Settings) -> Outcome:
    """Decodes one recording and draws its windows or computes its features."""
    try:
        seconds, arrays, digest = representation.read(path, settings)
    except (OSError, ValueError) as error:
        return str(error).removeprefix(str(path)).lstrip(": ")
    stored = [png(array) if array.dtype == np.uint8 else array for array in arrays]
    return seconds, stored, digest


def png(pixels: np.ndarray) -> bytes:
    """Encodes a picture for array_record, which compresses all that it stores.

    The PNG is filtered but not compressed: deflating takes longer than all else that is done with
    a recording of 16 kHz, both here and where it is read, and saves nothing in the end.

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
