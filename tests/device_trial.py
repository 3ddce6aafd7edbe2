"""Trains on the devices of this process, or of several, and saves what came out.

Called by test_devices.py: python device_trial.py FOLDER, with the devices in the environment.
"""

import json
import os
import sys
from pathlib import Path

import jax
import numpy as np
import optax
import tiny

from ds_jax import devices, inference, train, vgg

COMPILE = "/jax/core/compile/backend_compile_duration"
TRAIN = range(11)  # with batches of 8 the second one has three rows: less than one a device


compiled = []  # names of what was compiled since the start


def note(event: str, seconds: float, fun_name: str = "", **rest) -> None:
    """Hears of a compilation."""
    if event == COMPILE:
        compiled.append(fun_name)


def run(folder: Path) -> dict[str, np.ndarray]:
    """Trains by gradient descent, then on two folds as a run does."""
    jax.monitoring.register_event_duration_secs_listener(note)
    config = tiny.config()
    config.model.freeze = "block4"
    experiment = tiny.experiment(config)
    return descend(experiment) | train_two_folds(experiment, folder)


def descend(experiment: train.Experiment) -> dict[str, np.ndarray]:
    """Plain gradient descent: parameters move by the gradient itself, not by its sign."""
    network, optimiser = experiment.network, optax.sgd(1e-3)
    step = train.create_train_step(network, optimiser)
    rng = jax.random.key(0)
    state = train.create_state(network, optimiser, experiment.pretrained, rng, {})
    scale = np.float32(1)
    state, rng, scale = devices.replicate((state, rng, scale))
    before = [leaf.sharding for leaf in jax.tree.leaves(state)]
    losses, width, counts = [], devices.batch_width(8), []
    for rows in (np.arange(8), np.arange(8, 11), np.arange(3, 11)):
        state, loss = step(
            state, experiment.inputs, experiment.labels, scale, rng, *devices.spread(rows, width)
        )
        losses.append(float(loss))
        counts.append(len(compiled))
    after = [leaf.sharding for leaf in jax.tree.leaves(state)]
    same = all(a.is_equivalent_to(b, 0) for a, b in zip(before, after, strict=True))
    arrays = {"losses": losses, "same_sharding": same, "counts": counts}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.variables):
        arrays["variables" + jax.tree_util.keystr(path)] = leaf
    return {name: np.asarray(array) for name, array in arrays.items()}


def train_two_folds(experiment: train.Experiment, folder: Path) -> dict[str, np.ndarray]:
    """Two folds of two epochs, with checkpoints, and the test side's probabilities."""
    arrays = {}
    folds = (
        tiny.fold(TRAIN, range(11, 14), range(14, 16)),
        tiny.fold(range(5, 16), range(2), range(2, 5)),
    )
    for number, fold in enumerate(folds):
        judgement = train.train_fold(experiment, number, fold, folder / f"fold_{number}")
        arrays[f"probabilities_{number}"] = judgement.probabilities
        arrays[f"compiled_{number}"] = len(compiled)
    devices.wait_for_others("metrics")
    for number in range(len(folds)):
        lines = (folder / f"fold_{number}" / "metrics.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        arrays[f"history_{number}"] = [[row["train_loss"], row["dev_loss"]] for row in rows]
    config, _, variables = inference.load(folder / "fold_0" / "checkpoints")
    arrays["seed_loaded"] = config.seed
    arrays["loaded"] = variables["params"]["head"]["block5_pool_logits"]["kernel"]
    arrays["devices"] = jax.device_count()
    return {name: np.asarray(array) for name, array in arrays.items()}


if __name__ == "__main__":
    devices.start(distributed="DS_JAX_PROCESSES" in os.environ)
    jax.config.update("jax_numpy_rank_promotion", "raise")
    vgg.BLOCKS = tiny.BLOCKS
    folder = Path(sys.argv[1])
    results = run(folder)
    np.savez(folder / f"process_{jax.process_index()}.npz", **results)
