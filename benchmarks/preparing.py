"""Prepares a corpus of very many utterances, and checks that memory does not grow.

    python -m benchmarks.preparing
    python -m benchmarks.preparing --utterances=5000

The utterances are links to a few chirps, which `datasets.prepare` reads, draws and stores like any
others. Memory is the resident set of this process and of its largest worker, sampled while they
work. In the last quarter of the time it may exceed that of the third quarter by a bound.

Prints a table and writes JSON; the status is 1 if memory grew, or if an utterance is missing.
"""

import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from benchmarks import chirps, measuring
from configs import base
from datasets import prepare
from ds_jax.features import extract

NAME = "many"
POLL = 0.2  # seconds between two samples
BOUND = 32  # MiB by which memory may grow


class Watch(threading.Thread):
    """Samples the memory of this process and of its workers until `stop` is called.

    Attributes:
        seen: Seconds, MiB of this process, and MiB of its largest worker, 0 without any.
    """

    def __init__(self):
        """Starts to sample."""
        super().__init__(daemon=True)
        self.seen: list[tuple[float, float, float]] = []
        self._began, self._over = time.monotonic(), threading.Event()
        self.start()

    def run(self) -> None:
        """Samples the memory until `stop` is called."""
        process = psutil.Process()
        while not self._over.wait(POLL):
            workers = [_memory(child) for child in process.children(recursive=True)]
            seconds = time.monotonic() - self._began
            self.seen.append((seconds, _memory(process), max(workers, default=0.0)))

    def stop(self) -> None:
        """Ends the sampling."""
        self._over.set()
        self.join()


def _memory(process: psutil.Process) -> float:
    try:
        return process.memory_info().rss / 2**20
    except psutil.NoSuchProcess:
        return 0.0


def link(utterances: int, folder: Path) -> None:
    """Makes a corpus of links to chirps, with a manifest."""
    chirps.write_corpus(folder / "chirps")
    (folder / "chirps" / "manifest.csv").unlink()
    recordings = sorted((folder / "chirps").iterdir())
    lines = ["path,label,speaker"]
    for number in range(utterances):
        recording = recordings[number % len(recordings)]
        speaker, label = recording.stem.split("_", 1)
        path = folder / NAME / f"{number // 1000:03}" / f"{number:06}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(recording)
        lines.append(f"{path.relative_to(folder / NAME)},{label.upper()},{speaker}")
    (folder / NAME / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def grown(values: list[float]) -> float:
    """Returns the growth from the third quarter to the last; before, processes start."""
    third, last = (values[len(values) * k // 4 : len(values) * (k + 1) // 4] for k in (2, 3))
    return statistics.median(last) - statistics.median(third)


def main() -> None:
    """Prepares, prints and writes."""
    parser = measuring.parser("preparing", __doc__)
    parser.add_argument("--utterances", type=measuring.positive, default=50_000, help="how many")
    flags = parser.parse_args()
    config = base.get_config()
    config.picture.canvas = config.picture.size = 64
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        link(flags.utterances, folder)
        watch, began = Watch(), time.monotonic()
        wanted = extract.settings(config)
        builder = prepare.prepare(NAME, folder, folder / "prepared", wanted)
        watch.stop()
        seconds, stored = time.monotonic() - began, builder.info.splits["full"].num_examples
    own, worker = ([seen[place] for seen in watch.seen] for place in (1, 2))
    marks = [len(watch.seen) * tenth // 10 - 1 for tenth in range(1, 11)]
    rows = [(f"{10 * (k + 1)} %", own[mark], worker[mark]) for k, mark in enumerate(marks)]
    title = f"{stored} utterances in {seconds:.0f} s; MiB"
    measuring.table(title, ("of the time", "process", "largest worker"), rows)
    growth = {"process": grown(own), "largest worker": grown(worker)}
    print(", ".join(f"{name} grown by {by:.1f} MiB" for name, by in growth.items()))
    found = {"machine": measuring.machine(), "utterances": stored, "seconds": seconds}
    found |= {"MiB at each tenth": [row[1:] for row in rows], "MiB grown": growth}
    measuring.save(flags.output, found)
    if stored != flags.utterances:
        sys.exit(f"{flags.utterances - stored} utterances are missing")
    if max(growth.values()) > BOUND:
        sys.exit(f"memory has grown by more than {BOUND} MiB")


if __name__ == "__main__":
    main()
