"""What more devices change, counted on simulated ones.

    python -m benchmarks.scaling

For 1, 2, 4 and 8 simulated devices, each in a process of its own, and both ways of laying folds on
them ("folds": one a device; "batch": one on all), it compiles the train step and counts what it
exchanges, and trains one fold more than there are devices and counts dispatches and compilations.
All on the accelerators' path, many steps in a dispatch.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import measuring


def trial(count: int, small: bool, folder: Path) -> dict:
    """Runs scaling_trial.py on `count` simulated devices."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(count)}
    output = folder / f"{count}.json"
    command = [sys.executable, "-m", "benchmarks.scaling_trial", str(output)]
    command += ["small"] if small else []
    done = subprocess.run(
        command, env=environment, cwd=measuring.ROOT, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"the trial of {count} devices failed:\n{done.stderr}")
    return json.loads(output.read_text())


def gradient_sums(found: dict) -> list[dict]:
    """Returns the collectives that hold a number for each parameter."""
    return [one for one in found["collectives"] if one["numbers"] >= found["parameters"]]


def show_counts(trials: list[dict]) -> None:
    """Prints what was counted."""
    rows = []
    for found in trials:
        for parallel in ("folds", "batch"):
            counts = found[parallel]
            sums = gradient_sums(counts)
            first, last = (
                counts[f"compilations until the {one} fold is done"] for one in ("first", "last")
            )
            rows.append(
                (
                    found["devices"],
                    parallel,
                    len(counts["collectives"]),
                    len(sums),
                    sum(one["bytes"] for one in counts["collectives"]) / 1e6,
                    1e3 * counts["host seconds a dispatch"],
                    counts["dispatches an epoch"],
                    counts["folds"],
                    last - first,
                )
            )
    heads = (
        "devices",
        "layout",
        "collectives a step",
        "of gradients",
        "MB in all",
        "host ms a dispatch",
        "dispatches an epoch",
        "folds",
        "compiled after the first",
    )
    measuring.table("counted on simulated devices", heads, rows)


def main(arguments: Sequence[str] | None = None) -> dict:
    """Counts, prints, and writes."""
    parser = measuring.parser("scaling", __doc__)
    counts = [1, 2, 4, 8]
    parser.add_argument(
        "--devices", type=measuring.positive, nargs="+", default=counts, help="simulated, how many"
    )
    parser.add_argument("--small", action="store_true", help="five narrow layers for VGG16")
    flags = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        trials = [trial(count, flags.small, Path(folder)) for count in flags.devices]
    show_counts(trials)
    found = {"small": flags.small, "machine": measuring.machine(), "trials": trials}
    measuring.save(flags.output, found)
    return found


if __name__ == "__main__":
    try:
        main()
    except (ValueError, RuntimeError) as error:
        sys.exit(f"error: {error}")
