"""Cross-validates again and again in one process, and sees whether its memory stays what it is.

    python -m benchmarks.soak
    python -m benchmarks.soak --minutes=5

Each round loads a small corpus, trains DS-AM on it in three folds, tests, reports, evaluates the
models, and deletes all that; the rounds differ by their seed. Memory is the resident set of
the process. It grows while programs are compiled and allocators fill up, so the first rounds do
not count; from then on the median of the last third may lie by no more than a bound above that of
the first.

Prints the memory from time to time and writes JSON; the status is 1 if it grew. The chirps, and a
VGG16 of a few channels with random weights, show that, and nothing else.
"""

import contextlib
import io
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import jax
import psutil
from absl import flags as absl_flags
from absl import logging

from benchmarks import chirps, measuring
from configs import ds_am_emomatch
from datasets import prepare
from ds_jax.commands import evaluate, train
from ds_jax.runtime import processes

BOUND = 64  # MiB by which memory may grow
WARM = 12  # rounds that do not count
LEAST = 18  # rounds, however long they take
SHOWN = 30.0  # seconds between two lines


def experiment(folder: Path):
    """Returns the config of DS-AM on small pictures, for few epochs."""
    config = ds_am_emomatch.get_config()
    config.corpus = "chirps"
    config.weights = str(folder / "vgg16.h5")
    config.folds.count = 3
    config.picture.canvas, config.picture.size = 48, 32
    config.model.freeze = "block4"
    config.train.batch_size, config.train.epochs = 8, 2
    return config


def take_round(folder: Path, seed: int) -> None:
    """Goes from the prepared corpus to both reports, of which nothing is left."""
    config = experiment(folder)
    config.seed = config.folds.seed = seed
    corpora = prepare.Corpora(folder / "corpora", folder / "data")
    corpus = corpora.load(config, config.corpus)
    train.run(config, corpus, folder / "run")
    evaluate.run(folder / "run", corpus)
    shutil.rmtree(folder / "run")


def measure() -> dict[str, float]:
    """Measures what the process holds."""
    process = psutil.Process()
    return {
        "MiB": process.memory_info().rss / 2**20,
        "open files": process.num_fds(),
        "threads": threading.active_count(),
        "arrays on devices": len(jax.live_arrays()),
    }


def soak(folder: Path, longest: float) -> list[dict[str, float]]:
    """Takes rounds until `longest` minutes are over; returns what was held after each."""
    began, rounds, shown = time.monotonic(), [], -SHOWN
    while len(rounds) < WARM + LEAST or time.monotonic() - began < 60 * longest:
        with contextlib.redirect_stdout(io.StringIO()):
            take_round(folder, len(rounds))
        minutes = (time.monotonic() - began) / 60
        rounds.append({"minutes": minutes, **measure()})
        if 60 * minutes - shown >= SHOWN:
            shown = 60 * minutes
            held = ", ".join(f"{value:.0f} {name}" for name, value in list(rounds[-1].items())[1:])
            print(f"{minutes:6.1f} min, round {len(rounds)}: {held}", flush=True)
    return rounds


def growth(rounds: list[dict[str, float]], name: str) -> float:
    """Returns the median of the last third less that of the first, of the rounds that count."""
    values = [round[name] for round in rounds[WARM:]]
    third = len(values) // 3
    return statistics.median(values[-third:]) - statistics.median(values[:third])


def main() -> None:
    """Soaks, and fails where memory has grown."""
    parser = measuring.parser("soak", __doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long it goes on")
    flags = parser.parse_args()
    absl_flags.FLAGS.mark_as_parsed()  # grain reads them
    logging.set_verbosity(logging.ERROR)
    chirps.use_narrow_network()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        processes.start()
        chirps.write_corpus(folder / "corpora" / "chirps")
        chirps.write_weights(folder / "vgg16.h5")
        rounds = soak(folder, flags.minutes)
    grown = {key: growth(rounds, key) for key in rounds[0] if key != "minutes"}
    found = {
        "rounds": len(rounds),
        "minutes": rounds[-1]["minutes"],
        "MiB at the end": rounds[-1]["MiB"],
        "grown": grown,
        "bound, MiB": BOUND,
        "all": rounds,
    }
    print(
        f"{len(rounds)} cross-validations in {found['minutes']:.1f} minutes: "
        f"{found['MiB at the end']:.0f} MiB at the end, grown by "
        + ", ".join(f"{value:.1f} {key}" for key, value in grown.items())
    )
    measuring.save(flags.output, found)
    if grown["MiB"] > BOUND:
        sys.exit(f"memory has grown by more than {BOUND} MiB")


if __name__ == "__main__":
    main()
