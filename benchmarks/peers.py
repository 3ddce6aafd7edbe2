"""Compares the speed of DS-AM here, in PyTorch and in Keras: ratios of runs in turn.

Each trains the same network (VGG16, entirely, under two attention heads) with the same batch,
precision, pictures and weights; parameters are counted and first losses compared before anything
is timed. "forward" is a prediction of the whole network, "features" its trunk, "training step" the
gradients of all layers and Adam's step. PyTorch and Keras receive the network's input; ds_jax
starts from stored pictures, as the program does. On a GPU all compute in bfloat16; on the CPU
PyTorch is also measured under autocast(bfloat16). With --threads=1 seconds are those of the CPU and
not of the clock, since other work on the machine disturbs them less.

    pip install -r benchmarks/requirements.txt
    python -m benchmarks.peers --size=224 --batch=16
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from benchmarks import measuring

TASKS = ("forward", "features", "training step")
OURS = "ds_jax"
PEERS = (OURS, "torch", "keras")
LEAST_SECONDS = 0.3  # that one measurement takes
# With these settings of glibc, freed memory stays with the process, in huge pages, which is fastest
# for PyTorch; by default glibc returns each large tensor to the system.
ALLOCATOR = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**34),
    "MALLOC_TOP_PAD_": str(2**28),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}


class Worker:
    """A process that one library runs in, which answers `variant, task` by a number."""

    def __init__(self, peer: str, settings: Mapping, folder: Path, tuned: bool = False):
        """Starts it and waits until it has warmed up."""
        environment = os.environ | (ALLOCATOR if tuned else {})
        if not settings["cuda"]:
            environment |= {"JAX_PLATFORMS": "cpu"}
        environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # all workers share a GPU
        self._peer, given = peer, [json.dumps(settings), str(folder)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.peers", f"--worker={peer}", *given],
            cwd=measuring.ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        self.variants = self._read()

    def ask(self, variant: str, task: str) -> float:
        """Returns the parameters, the loss, or the seconds of a task."""
        print(json.dumps([variant, task]), file=self._process.stdin, flush=True)
        return self._read()

    def stop(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()

    def _read(self):
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._peer} ended; its error is above")
        return json.loads(line)


def work(peer: str, settings: str, folder: str) -> None:
    """Serves a `Worker`'s questions."""
    settings = json.loads(settings)
    if hasattr(os, "sched_setaffinity"):  # XLA starts a thread for each CPU
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: settings["threads"]])
    answers, sys.stdout = sys.stdout, sys.stderr
    trials = importlib.import_module(f"benchmarks.peer_{peer}").create(Path(folder), **settings)
    repeats = {}
    alone = settings["threads"] == 1 and not settings["cuda"]
    clock = time.process_time if alone else time.perf_counter
    print(json.dumps(list(trials)), file=answers, flush=True)
    for line in sys.stdin:
        variant, task = json.loads(line)
        trial = trials[variant]
        if task == "parameters":
            answer = int(trial[task])
        elif task == "loss":
            answer = trial[task]()
        else:
            answer = seconds(trial[task], repeats.get((variant, task), 1), clock)
            repeats[variant, task] = max(1, round(LEAST_SECONDS / answer))
        print(json.dumps(answer), file=answers, flush=True)


def seconds(function, repeats: int, clock=time.perf_counter) -> float:
    """Times a call, as the mean of several."""
    began = clock()
    for _ in range(repeats):
        function()
    return (clock() - began) / repeats


def measure(settings: Mapping, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Returns seconds by task, by variant and by round.

    Raises:
        ValueError: The networks are not the same.
    """
    asked = {}  # variant's name to its worker and its name there
    workers = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            for peer in PEERS:
                if peer != OURS and not find_spec(peer):
                    print(f"{peer} is not installed: left out")
                    continue
                for tuned in (
                    (False, True) if peer == "torch" and not settings["cuda"] else (False,)
                ):
                    worker = Worker(peer, settings, Path(folder), tuned)
                    workers.append(worker)
                    for name in worker.variants:
                        shown = f"{name}, allocator tuned" if tuned else name
                        asked[shown] = worker, name
            check_same(asked, settings["cuda"])
            times = {task: {name: [] for name in asked} for task in TASKS}
            for task in TASKS:
                for number in range(-1, rounds):  # one to warm up
                    for shown, (worker, name) in asked.items():
                        taken = worker.ask(name, task)
                        if number >= 0:
                            times[task][shown].append(taken)
            return times
        finally:
            for worker in workers:
                worker.stop()


def check_same(asked: Mapping[str, tuple[Worker, str]], cuda: bool) -> None:
    """Compares the variants' parameters and first losses with those of ds_jax.

    Args:
        asked: By name, the worker and the variant's name there.
        cuda: Whether a GPU is used, where all compute in bfloat16.

    Raises:
        ValueError: One is another network.
    """
    for task in ("parameters", "loss"):
        answers = {shown: worker.ask(name, task) for shown, (worker, name) in asked.items()}
        print(f"{task}: " + ", ".join(f"{name} {answer:,}" for name, answer in answers.items()))
        wanted = answers[OURS]
        for name, answer in answers.items():
            rounded = 0.05 if cuda or "bfloat16" in name else 1e-3  # as a share of the loss
            tolerance = rounded if task == "loss" else 0
            if not abs(answer - wanted) <= tolerance * abs(wanted):
                raise ValueError(f"{name} is another network: its {task} is {answer}, not {wanted}")


def summarise(times: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, dict[str, dict]]:
    """Returns by task and variant the median seconds, and how many times as fast ds_jax is.

    A round's ratio is the variant's seconds by those of ds_jax in the same round.
    """
    summary = {}
    for task, by_variant in times.items():
        ours = np.asarray(by_variant[OURS])
        summary[task] = {}
        for name, taken in by_variant.items():
            ratios = np.asarray(taken) / ours
            summary[task][name] = {
                "seconds": float(np.median(taken)),
                "fastest_seconds": float(np.min(taken)),
                "ratio": float(np.median(ratios)),
                "ratio_min": float(np.min(ratios)),
                "ratio_max": float(np.max(ratios)),
            }
    return summary


def show(summary: Mapping[str, Mapping[str, Mapping[str, float]]], batch: int) -> None:
    """Prints a table."""
    print(f"\n{'task':<15}{'in':<48}{'pictures/s':>11}{'ds_jax is faster by (min to max)':>36}")
    for task, by_variant in summary.items():
        for name, row in by_variant.items():
            spread = f"({row['ratio_min']:.2f} to {row['ratio_max']:.2f})"
            rate = batch / row["seconds"]
            print(f"{task:<15}{name:<48}{rate:>11.2f}{row['ratio']:>18.2f} {spread:>17}")


def main() -> None:
    """Reads flags, measures, prints and writes."""
    parser = measuring.parser("peers", __doc__)
    parser.add_argument("--size", type=int, default=224, help="side of a picture in pixels")
    parser.add_argument("--batch", type=int, default=16, help="pictures in a batch")
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each, in turn")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPUs for each")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    flags = parser.parse_args()
    settings = {"size": flags.size, "batch": flags.batch, "threads": flags.threads}
    settings["cuda"] = flags.device == "gpu"
    times = measure(settings, flags.rounds)
    summary = summarise(times)
    show(summary, flags.batch)
    written = {"settings": settings, "machine": measuring.machine()}
    measuring.save(flags.output, written | {"summary": summary, "seconds": times})


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1].startswith("--worker="):
        work(sys.argv[1].partition("=")[2], *sys.argv[2:])
    else:
        main()
