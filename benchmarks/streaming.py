"""A corpus that is too large for the devices: whether memory stays flat, and how fast it is read.

    python -m benchmarks.streaming
    python -m benchmarks.streaming --folder=runs/streaming    # keeps what was prepared

Noise is cut in windows, drawn and stored by `datasets.prepare`, and read through
`input_pipeline.Inputs`, epoch-wide, in random order, onto a device that adds up what comes.
Nothing is patched but the two limits that would find room for the corpus.
"""

import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import psutil
import soundfile
from absl import flags as absl_flags

from benchmarks import measuring, preparing
from configs import base
from datasets import prepare
from ds_jax.data import corpus
from ds_jax.data.corpus import Corpus
from ds_jax.data.labels import LABELS
from ds_jax.features.extract import settings
from ds_jax.models.create import create_network
from ds_jax.runtime import processes
from ds_jax.training import parallel
from ds_jax.training.input_pipeline import Inputs, create_inputs, split_batches
from ds_jax.training.parallel import ONE_MODEL

NAME, RATE, WINDOW = "generated", 4000, 0.1  # Hz, seconds
WINDOWS = 250  # in a recording
BOUND = 64e6  # bytes by which memory may grow between two quarters of an epoch
COMPARED = 2000  # pictures that are read from memory as well


@contextlib.contextmanager
def no_room() -> Iterator[None]:
    """Makes every corpus too large for the host's memory and a device's."""
    with (
        mock.patch.object(corpus, "HOST_SHARE", 0),
        mock.patch.object(parallel, "fits", return_value=False),
    ):
        yield


def record(pictures: int, folder: Path) -> None:
    """Writes recordings of noise with a manifest; each is cut in `WINDOWS` pictures."""
    folder.mkdir(parents=True)
    rng, lines = np.random.default_rng(0), ["path,label,speaker"]
    for number in range(-(-pictures // WINDOWS)):
        windows = min(WINDOWS, pictures - number * WINDOWS)
        loud = rng.uniform(0.01, 0.2, 4 * windows).repeat(int(RATE * WINDOW) // 4)
        samples = (loud * rng.standard_normal(len(loud))).clip(-1, 1)
        soundfile.write(folder / f"{number:05}.wav", samples, RATE, subtype="PCM_16")
        lines.append(f"{number:05}.wav,{LABELS[number % len(LABELS)]},nobody")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")


def create_config(canvas: int):
    """Returns a config of pictures of 0.1 s."""
    config = base.get_config()
    config.picture.sample_rate, config.picture.window = RATE, WINDOW
    config.picture.mel_bands, config.picture.canvas = 16, canvas
    config.picture.size = 32
    return config


def load(config, pictures: int, folder: Path) -> tuple[Corpus, float]:
    """Prepares the corpus, unless that was done before, and opens it; returns seconds, too."""
    began = time.perf_counter()
    if not (folder / NAME / "manifest.csv").is_file():
        record(pictures, folder / NAME)
    builder = prepare.prepare(NAME, folder, folder / "prepared", settings(config))
    return corpus.load(builder, NAME), time.perf_counter() - began


def batches(rows: np.ndarray, size: int) -> list[np.ndarray]:
    """Cuts all rows, in random order, in batches."""
    return split_batches(np.random.default_rng(0).permutation(rows).astype(np.int32), size)


def epoch(inputs: Inputs, wanted: Sequence[np.ndarray]) -> dict:
    """Sends an epoch's batches to the devices, and measures memory after each tenth."""

    def add(total, stored, labels, rows, mask, count):
        del labels, mask

        def step(total, rows):
            return total + jnp.sum(stored[rows], dtype=jnp.uint32), ()

        total, _ = ONE_MODEL.scan(step, total, rows, count)
        return jax.lax.psum(total, parallel.AXIS)

    size = len(wanted[0])
    width = ONE_MODEL.width(size)
    length = inputs.length(len(wanted), width)
    step = inputs.parallel(ONE_MODEL, add, models=1)
    first = next(inputs.chunks(ONE_MODEL, [wanted[:length]], length, width))
    step(np.uint32(0), *first)  # compiles
    process, memory, taken = psutil.Process(), [], 0
    marks = np.linspace(0, len(wanted), 11)[1:]
    total, began = 0, time.perf_counter()
    for chunk in inputs.chunks(ONE_MODEL, [wanted], length, width):
        total += int(step(np.uint32(0), *chunk))
        taken += length
        while len(memory) < 10 and taken >= marks[len(memory)]:
            memory.append(process.memory_info().rss)
    seconds = time.perf_counter() - began
    return {
        "pictures a second": sum(map(len, wanted)) / seconds,
        "memory at each tenth": memory,
        "sum of all pixels": total,
    }


def same_batches(network, stored: Corpus, size: int) -> int:
    """Reads some batches streamed and from memory; returns how many of them differ."""
    rows = np.arange(min(COMPARED, len(stored.inputs)))
    wanted = batches(rows, size)
    in_memory = create_inputs(network, {}, stored.inputs[rows], stored.labels[rows])
    with no_room():
        streamed = create_inputs(network, {}, stored.inputs, stored.labels)
    width = ONE_MODEL.width(size)

    def read(inputs: Inputs) -> Iterator[tuple]:
        for pictures, labels, rows, mask, _ in inputs.chunks(ONE_MODEL, [wanted], 1, width):
            parts = [np.asarray(x) for x in (pictures, labels)]
            if not inputs.streamed:
                parts = [x[None] for x in parts]
            for device in range(len(rows)):
                place = device if inputs.streamed else 0
                real = rows[device][mask[device] > 0]
                yield parts[0][place][real], parts[1][place][real]

    both = zip(read(in_memory), read(streamed), strict=True)
    return sum(not all(map(np.array_equal, *pair)) for pair in both)


def measure(canvas: int, pictures: int, size: int, folder: Path) -> dict:
    """Prepares, streams one epoch, and compares with the corpus in memory."""
    config = create_config(canvas)
    with no_room():
        stored, seconds = load(config, pictures, folder / str(canvas))
        network = create_network(config)
        inputs = create_inputs(network, {}, stored.inputs, stored.labels)
    if len(stored.inputs) != pictures:
        raise ValueError(
            f"{folder / str(canvas)} holds {len(stored.inputs)} pictures, not {pictures}: delete "
            "it, or give another --folder"
        )
    found = {"canvas": canvas, "pictures": pictures, "seconds to prepare and open": seconds}
    found |= {"bytes in memory": pictures * canvas**2, "streamed": inputs.streamed}
    found |= epoch(inputs, batches(np.arange(pictures), size))
    return found | {"batches that differ": same_batches(network, stored, size)}


def show(found: dict) -> None:
    """Prints the tables."""
    measuring.table(
        f"streamed in batches of {found['settings']['batch']}",
        ("canvas", "pictures", "MB in memory", "pictures a second", "batches that differ"),
        [
            (
                each["canvas"],
                each["pictures"],
                each["bytes in memory"] / 1e6,
                each["pictures a second"],
                each["batches that differ"],
            )
            for each in found["corpora"]
        ],
    )
    heads = ("canvas", *(f"{tenth}/10" for tenth in range(1, 11)), "growth")
    rows = []
    for each in found["corpora"]:
        memory = [size / 1e6 for size in each["memory at each tenth"]]
        rows.append((each["canvas"], *(f"{size:.0f}" for size in memory), memory[-1] - memory[0]))
    measuring.table("memory of the process over the epoch, MB", heads, rows)


def main(arguments: Sequence[str] | None = None) -> dict:
    """Measures, prints, and writes."""
    parser = measuring.parser("streaming", __doc__)
    parser.add_argument(
        "--pictures", type=measuring.positive, default=200_000, help="of the small canvas"
    )
    parser.add_argument(
        "--canvas", type=measuring.positive, default=32, help="of the small pictures, pixels"
    )
    parser.add_argument(
        "--large_pictures", type=measuring.positive, default=4_000, help="of 227 pixels"
    )
    parser.add_argument("--batch", type=measuring.positive, default=32, help="pictures")
    parser.add_argument("--folder", type=Path, help="keeps the corpora; default: none is kept")
    flags = parser.parse_args(arguments)
    if not absl_flags.FLAGS.is_parsed():
        absl_flags.FLAGS.mark_as_parsed()  # grain reads them
    processes.start()
    large = base.get_config().picture.canvas
    with contextlib.ExitStack() as stack:
        folder = flags.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        kinds = (flags.canvas, flags.pictures), (large, flags.large_pictures)
        corpora = [measure(*kind, flags.batch, folder) for kind in kinds]
    found = {"settings": {"batch": flags.batch}, "machine": measuring.machine(), "corpora": corpora}
    show(found)
    measuring.save(flags.output, found)
    for each in corpora:
        if preparing.grown(each["memory at each tenth"]) > BOUND:
            sys.exit(f"memory has grown by more than {BOUND / 1e6:.0f} MB over an epoch")
    return found


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
