"""What more devices change, counted on simulated ones, and a model of what that means on real ones.

    python -m benchmarks.scaling

For 1, 2, 4 and 8 simulated devices, each in a process of its own, and both ways of laying folds on
them ("folds": one a device; "batch": one on all), it compiles the train step and counts what it
exchanges, and trains one fold more than there are devices and counts dispatches and compilations.
All on the accelerators' path, many steps in a dispatch.

What follows is a MODEL, no measurement: the time of ten folds of forty epochs on accelerators that
this machine does not have, from these counts and the chips' published limits.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import measuring, roofline
from benchmarks.roofline import Chip
from ds_jax.training import parallel as devices

UTILISATIONS = (0.2, 0.3, 0.5)
# The experiment of the paper's table 1: DS-AM on ELRA-S0329.
FOLDS, EPOCHS, CORPUS, SIZE, BATCH = 10, 40, 6041, 224, 32
LATENCY = 20e-6  # seconds that a collective takes at least
TO_HOST = 10e9  # bytes/s at which a fold's state is copied to the host after each epoch


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Accelerators that train together.

    Attributes:
        chip: The kind of accelerator.
        count: How many there are.
        link: Bytes/s at which one sends to the others while it receives as much.
    """

    chip: Chip
    count: int
    link: float

    @property
    def name(self) -> str:
        """Returns the name in tables, such as "8 x H100"."""
        return f"{self.count} x {self.chip.name}"


CLUSTERS = (
    Cluster(roofline.H100, 1, 0.0),
    Cluster(roofline.H100, 8, 450e9),  # NVLink 4, half of its 900 GB/s each way
    Cluster(roofline.V5E, 1, 0.0),
    Cluster(roofline.V5E, 32, 186e9),  # ICI, 1,600 Gbit/s less what packing costs
)
ASSUMPTIONS = f"""\
Assumed: {FOLDS} stratified folds of {CORPUS:,} pictures of {SIZE} pixels, a tenth of each training
split selects the epoch, batches of {BATCH}, {EPOCHS} epochs, nothing frozen, nobody stops early. A
device computes at the given share of its dense bfloat16 peak, whatever its share of a batch is; of
one or two pictures it will be less. An all-reduce is a ring, in which each device sends
2 (n - 1) / n of the gradients' bytes at {CLUSTERS[1].link / 1e9:.0f} GB/s by NVLink and
{CLUSTERS[-1].link / 1e9:.0f} GB/s by ICI, and each collective takes {LATENCY * 1e6:.0f} us besides;
nothing of it is hidden behind the computing. Nor is the host's time for a dispatch, which is the
one measured here. After each epoch a fold's state goes to the host at {TO_HOST / 1e9:.0f} GB/s.
Preparing, compiling and reports are left out."""


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


def minutes(cluster: Cluster, utilisation: float, parallel: str, counted: dict) -> float:
    """Models what the experiment takes, trained one fold a device or one on all devices.

    Args:
        cluster: The accelerators.
        utilisation: The share of their peak at which they compute.
        parallel: "auto", "folds" or "batch", as in configs/base.py.
        counted: The counts of "batch" on most devices.
    """
    test = CORPUS // FOLDS
    dev = (CORPUS - test) // FOLDS
    train = CORPUS - test - dev
    rate, count = utilisation * cluster.chip.peak, cluster.count
    step = roofline.step_flops(SIZE)
    predicting = (EPOCHS * dev + test) * roofline.forward_flops(SIZE)
    steps = EPOCHS * -(-train // BATCH)
    exchanged = sum(one["bytes"] for one in counted["collectives"])
    # Training and prediction have as many dispatches.
    host = EPOCHS * 2 * devices.DISPATCHES * counted["host seconds a dispatch"]
    host += EPOCHS * 3 * 4 * counted["parameters"] / TO_HOST  # parameters and both moments

    apart = {"auto": FOLDS // count * count, "folds": FOLDS, "batch": 0}[parallel]
    if count == 1:
        apart = 0
    alone = (EPOCHS * train * step + predicting) / rate + host
    together = steps * -(-BATCH // count) * step / rate + predicting / count / rate + host
    if count > 1:
        ring = 2 * (count - 1) / count * exchanged / cluster.link
        together += steps * (ring + LATENCY * len(counted["collectives"]))
    return (-(-apart // count) * alone + (FOLDS - apart) * together) / 60


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


def show_roofline() -> dict:
    """Prints the roofline of a training step on paper; returns it."""
    chips, rows, found = (roofline.H100, roofline.V5E), [], {}
    for block, operations in roofline.step_costs(SIZE, BATCH).items():
        flops, size = (sum(column) for column in zip(*operations, strict=True))
        times = [1e3 * roofline.seconds(operations, chip) for chip in chips]
        rows.append((block, flops / 1e9, size / 1e6, flops / size, *times))
        found[block] = {"flops": flops, "bytes": size}
    heads = ("", "GFLOP", "MB", "FLOP/byte", *(f"ms on one {chip.name} at least" for chip in chips))
    measuring.table(f"roofline of a training step, {BATCH} pictures of {SIZE}", heads, rows)
    for chip in chips:
        found[chip.name] = roofline.ceiling(SIZE, BATCH, chip)
        print(
            f"{chip.name}: {chip.peak / 1e12:.0f} TFLOP/s, {chip.bandwidth / 1e12:.2f} TB/s, ridge "
            f"at {chip.peak / chip.bandwidth:.0f} FLOP/byte; its memory lets the step reach "
            f"{found[chip.name]:.0%} of the peak"
        )
    return found


def show_model(counted: dict) -> list[dict]:
    """Prints the model of the time on accelerators; returns it."""
    found = [
        {
            "cluster": cluster.name,
            "utilisation": utilisation,
            **{
                parallel: minutes(cluster, utilisation, parallel, counted)
                for parallel in ("auto", "folds", "batch")
            },
        }
        for cluster in CLUSTERS
        for utilisation in UTILISATIONS
    ]
    title = f"MODEL, not measured: minutes of {FOLDS} folds of {EPOCHS} epochs"
    measuring.table(title, tuple(found[0]), [tuple(row.values()) for row in found])
    print(ASSUMPTIONS)
    return found


def main(arguments: Sequence[str] | None = None) -> dict:
    """Measures, models, prints, and writes."""
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
    found |= {"roofline": show_roofline(), "model": show_model(trials[-1]["batch"])}
    measuring.save(flags.output, found | {"assumptions": ASSUMPTIONS})
    return found


if __name__ == "__main__":
    try:
        main()
    except (ValueError, RuntimeError) as error:
        sys.exit(f"error: {error}")
