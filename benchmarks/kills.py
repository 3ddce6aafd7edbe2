"""Kills a small run again and again, and sees whether it ends as one that was left in peace.

    python -m benchmarks.kills

A corpus of chirps is prepared, DS-AM is trained on it in three folds, and tested and reported.
SIGKILL and SIGTERM come in turns at moments that a seed draws: half of them at any time of the
run's duration, the others right after one of its files has appeared. Each time the same command
is started again; when it ends, its folds, its predictions and its reports must have the bytes of
the undisturbed run (but for the section that says how they were made), nothing half-written may be
left, and a new run begins from nothing. After SIGTERM the program must leave by itself, say how to
go on, and end with status 143.

Prints a table and writes JSON; the status is 1 if anything was lost. The chirps, and a VGG16 of a
few channels with random weights, show that nothing is lost, and nothing else.
"""

import collections
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks import chirps, measuring
from ds_jax.runtime import files, shutdown
from ds_jax.runtime.progress import many

EXPERIMENT = (
    "--config=configs/ds_am_emomatch.py",
    "--config.picture.canvas=48",
    "--config.picture.size=32",
    "--config.model.freeze=block4",
    "--config.train.batch_size=8",
    "--config.train.epochs=3",
)
PROGRAM = """
from benchmarks import chirps
chirps.use_narrow_network()
import launch
launch.app.run(
    launch.main,
    flags_parser=lambda arguments: launch.cli.parse(arguments, launch.QUICKSTART),
)
"""
MADE = re.compile(rb'<section aria-labelledby="made">.*?</section>', re.DOTALL)
SIGNALS = (signal.SIGKILL, signal.SIGTERM)
PATIENCE = 30.0  # seconds in which SIGTERM must have ended a run
POLL = 0.01  # seconds between two looks at the files


def start(folder: Path, run: Path) -> subprocess.Popen:
    """Starts the experiment, or goes on with it; its files, prepared ones too, go below `run`."""
    command = [sys.executable, "-c", PROGRAM, *EXPERIMENT, "--config.corpus=chirps"]
    command += ["--config.folds.count=3", f"--corpora_dir={folder / 'corpora'}"]
    command += [f"--data_dir={run / 'data'}", f"--workdir={run / 'run'}"]
    command.append(f"--config.weights={folder / 'vgg16.h5'}")
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "PYTHONUNBUFFERED": "1"}
    with (run / "output.txt").open("ab") as output:
        return subprocess.Popen(
            command, cwd=measuring.ROOT, env=environment, stdout=output, stderr=output
        )


def listing(run: Path) -> set[str]:
    """Lists all files and folders of a run, those that are being written too."""
    found = set()
    for directory, folders, names in os.walk(run):
        found.update(os.path.join(directory, name) for name in folders + names)
    return found


def outcome(run: Path) -> dict[str, bytes]:
    """Reads what must be the same: folds, predictions, and reports but for how they were made."""
    names = ("folds.json", "report.json", "report.html", "fold_*/predictions*.csv")
    paths = [path for name in names for path in sorted((run / "run").glob(name))]
    return {str(path.relative_to(run)): lasting(path) for path in paths}


def lasting(path: Path) -> bytes:
    """Reads a file without what differs between equal runs: dates, times and their checksum."""
    content = path.read_bytes()
    if path.name == "report.json":
        report = json.loads(content)
        for name in ("made", files.CHECKSUM):
            del report[name]
        return json.dumps(report).encode()
    return MADE.sub(b"", content)


def phase(run: Path) -> str:
    """Tells what the run is doing, going by its files."""
    run, data = run / "run", run / "data"
    if not list(data.rglob("checksums.json")):
        return "preparing" if list(data.rglob("incomplete.*")) else "starting"
    if not (run / "folds.json").exists():
        return "dealing the folds"
    if (run / "report.json").exists() or len(list(run.glob("fold_*/predictions.csv"))) == 3:
        return "reporting"
    if list(run.glob("fold_*/checkpoints/*orbax-checkpoint-tmp*")):
        return "saving a checkpoint"
    if list(run.glob("fold_*/checkpoints/model.*.tmp")):
        return "finishing a model"
    tested = {path.parent for path in run.glob("fold_*/predictions*")}
    if any(not (fold / "predictions.csv").exists() for fold in tested):
        return "writing predictions"
    return "training and predicting"


def wait_for_moment(process: subprocess.Popen, run: Path, rng, duration: float, total: int) -> str:
    """Waits for a moment that is drawn; returns which kind it is, empty if the run ended before."""
    began = time.monotonic()
    if rng.random() < 0.5:
        kind, at, count = "any time", began + rng.uniform(0, duration), None
    else:
        kind, at, count = "a new file", None, int(rng.integers(1, total + 1))
    seen = listing(run)
    while process.poll() is None:
        if at is not None and time.monotonic() >= at:
            return kind
        if count is not None:
            now = listing(run)
            count -= len(now - seen)
            seen |= now
            if count <= 0:
                at, count = time.monotonic() + rng.uniform(0, 0.05), None
        time.sleep(POLL)
    return ""


def check_end(
    process: subprocess.Popen, sent: float, run: Path, before: int, listening: bool
) -> list[str]:
    """Waits for the end after SIGTERM; returns what was wrong with it.

    Args:
        process: The process that was sent SIGTERM.
        sent: The moment, by the monotonic clock.
        run: The folder of its files.
        before: Bytes of output that earlier processes have printed.
        listening: Whether the process had begun to take SIGTERM.
    """
    try:
        status = process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return [f"SIGTERM did not end it within {PATIENCE:.0f} s"]
    output = printed(run, before).decode(errors="replace")
    advised = shutdown.ADVICE in output or shutdown.LATER in output
    if status == 0 or (status == shutdown.STATUS and advised):
        return []  # it was at its end already, or it left as it should
    if status == -signal.SIGTERM and (not listening or "\nreport: " in output):
        return []  # Python was still starting, or all was done and Python was ending
    seconds = time.monotonic() - sent
    return [f"SIGTERM ended it with status {status} after {seconds:.1f} s: {output[-2000:]}"]


def undisturbed(folder: Path) -> tuple[dict[str, bytes], float, int]:
    """Runs the experiment twice, so that all is compiled; outcome, seconds, and files written."""
    for name in ("warm", "undisturbed"):
        run = folder / name
        run.mkdir()
        began, seen = time.monotonic(), set()
        process = start(folder, run)
        while process.poll() is None:
            seen |= listing(run)
            time.sleep(POLL)
        if process.returncode:
            sys.exit((run / "output.txt").read_text())
        if name == "warm":
            shutil.rmtree(run)
    return outcome(run), time.monotonic() - began, len(seen)


def printed(run: Path, start: int = 0) -> bytes:
    """Returns what the run has printed from a byte on."""
    path = run / "output.txt"
    return path.read_bytes()[start:] if path.exists() else b""


def kill(
    process: subprocess.Popen, run: Path, number: signal.Signals, before: int, listening: bool
) -> tuple[dict, list[str]]:
    """Sends a signal and waits for the end; returns what it met, and what was wrong."""
    met = {"signal": number.name, "phase": phase(run)}
    sent, wrong = time.monotonic(), []
    process.send_signal(number)
    if number == signal.SIGTERM:
        wrong = check_end(process, sent, run, before, listening)
    process.wait()
    return met | {"seconds": time.monotonic() - sent}, wrong


def check_outcome(run: Path, wanted: dict[str, bytes]) -> list[str]:
    """Lists what differs from the undisturbed run, and what was left behind."""
    found = outcome(run)
    wrong = [f"{run.name}: {name} differs" for name in wanted if found.get(name) != wanted[name]]
    for pattern in ("*.tmp", "*orbax-checkpoint-tmp*", "incomplete.*"):
        wrong += [f"{path} was left behind" for path in run.rglob(pattern)]
    return wrong


def survive(
    folder: Path, times: int, seed: int, wanted: dict[str, bytes], duration: float, total: int
) -> dict:
    """Kills as many `times`; returns what happened."""
    rng, kills, wrong, runs = np.random.default_rng(seed), [], [], 0
    while len(kills) < times and not wrong:
        run = folder / f"run_{runs}"
        run.mkdir()
        disturbed, ended = 0, False
        while not ended and not wrong:
            began, before = time.monotonic(), len(printed(run))
            process, kind = start(folder, run), ""
            if len(kills) < times:  # the last run is then left in peace
                kind = wait_for_moment(process, run, rng, duration, total)
            if kind:
                # Not any line: helpers of a process that was killed before may still print.
                number, listening = SIGNALS[len(kills) % 2], b"chirps: " in printed(run, before)
                met, faults = kill(process, run, number, before, listening)
                kills.append(met | {"moment": kind})
                wrong += faults
                disturbed += 1
                print(f"{len(kills)}: {met['signal']} at {kind}, {met['phase']}", flush=True)
                continue
            ended = True
            if process.wait():
                wrong.append((run / "output.txt").read_text(errors="replace")[-2000:])
            elif not disturbed:  # other programs slow the machine down, or no longer
                duration = time.monotonic() - began
        runs += 1
        wrong += [] if wrong else check_outcome(run, wanted)
        print(
            f"run {runs} after {many(len(kills), 'kill')}: {many(len(wrong), 'fault')}", flush=True
        )
        if not wrong:
            shutil.rmtree(run)
    leaving = [kill["seconds"] for kill in kills if kill["signal"] == "SIGTERM"]
    return {
        "kills": len(kills),
        "runs": runs,
        "seconds of an undisturbed run": duration,
        "files of an undisturbed run": total,
        "slowest to leave after SIGTERM, seconds": max(leaving, default=0.0),
        "faults": wrong,
        "all": kills,
    }


def table(found: dict) -> str:
    """Formats the kills by phase and signal."""
    counts = collections.Counter((kill["phase"], kill["signal"]) for kill in found["all"])
    lines = [f"{'phase':28}{'SIGKILL':>8}{'SIGTERM':>8}"]
    for name in sorted({kill["phase"] for kill in found["all"]}):
        lines.append(f"{name:28}{counts[name, 'SIGKILL']:8}{counts[name, 'SIGTERM']:8}")
    kills, runs = many(found["kills"], "kill"), many(found["runs"], "run")
    lines.append(f"{kills} of {runs}: {many(len(found['faults']), 'fault')}")
    return "\n".join(lines + found["faults"])


def main(arguments: Sequence[str] | None = None) -> dict:
    """Kills, counts, compares, prints, and writes."""
    parser = measuring.parser("kills", __doc__)
    parser.add_argument("--kills", type=measuring.positive, default=50, help="how often")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    flags = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        chirps.write_corpus(folder / "corpora" / "chirps")
        chirps.write_weights(folder / "vgg16.h5")
        found = survive(folder, flags.kills, flags.seed, *undisturbed(folder))
    print(table(found))
    measuring.save(flags.output, found)
    return found


if __name__ == "__main__":
    sys.exit(bool(main()["faults"]))
