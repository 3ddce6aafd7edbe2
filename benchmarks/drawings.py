"""Measures how many generated pictures models take for their class that recordings alone trained.

    python -m benchmarks.drawings --workdir=runs/emodb --generated=runs/emodb_generated

The first run is of recordings alone and the second of the same folds with generated pictures. The
model of a fold in the first was trained on the recordings that the fold's generator has learnt
from. Beside its share of the generated pictures stands that of the recordings that the fold tests.
"""

from pathlib import Path

import jax
import numpy as np

from benchmarks import measuring
from ds_jax.data import generated
from ds_jax.evaluation import predictions
from ds_jax.evaluation.metrics import confusion, per_class, uar
from ds_jax.runtime import processes
from ds_jax.runtime.workdir import CHECKPOINTS, GENERATED, PREDICTIONS, finished_folds
from ds_jax.systems import network

TOGETHER = 32  # pictures


def measure(workdir: Path, other: Path) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Returns the classes, and the confusion of generated pictures and of tested recordings.

    Args:
        workdir: The folder of the run on recordings alone, which has tested each.
        other: The folder of the run on generated pictures too, of which some folds may be missing.

    Raises:
        ValueError: The runs have other folds.
    """
    pooled = predictions.read_pooled(finished_folds(workdir))
    known = dict(zip(pooled.utterances.tolist(), pooled.labels.tolist(), strict=True))
    totals = {"generated": 0, "tested": 0}
    for folder in finished_folds(other):
        tested = predictions.read(workdir / folder.name / PREDICTIONS)
        if set(tested.utterances) != set(predictions.read(folder / PREDICTIONS).utterances):
            raise ValueError(f"{folder} tests others than {workdir / folder.name}")
        start = network.load_ensemble([workdir / folder.name / CHECKPOINTS])
        pictures, names = generated.show(folder / GENERATED)
        parts = range(0, len(pictures), TOGETHER)
        answers = [start(pictures[k : k + TOGETHER], TOGETHER)().probabilities for k in parts]
        answers = np.concatenate(answers).argmax(axis=1)
        labels = np.asarray([known[name] for name in names])
        totals["generated"] += confusion(labels, answers, len(tested.classes))
        totals["tested"] += tested.confusion
        jax.clear_caches()
    return pooled.classes, totals


def main(arguments: list[str] | None = None) -> dict:
    """Measures, prints and writes."""
    parser = measuring.parser("drawings", __doc__)
    parser.add_argument("--workdir", type=Path, required=True, help="run on recordings alone")
    parser.add_argument("--generated", type=Path, required=True, help="run on pictures too")
    flags = parser.parse_args(arguments)
    processes.start()
    classes, totals = measure(flags.workdir, flags.generated)
    shares = {name: per_class(matrix, classes) for name, matrix in totals.items()}
    rows = [(label, *(shares[name][label]["recall"] for name in totals)) for label in classes]
    rows.append(("their mean, UAR", *(float(uar(matrix)) for matrix in totals.values())))
    measuring.table("recognised", ("class", *totals), rows)
    found = {"classes": classes, **{name: matrix.tolist() for name, matrix in totals.items()}}
    measuring.save(flags.output, {"machine": measuring.machine(), **found})
    return found


if __name__ == "__main__":
    main()
