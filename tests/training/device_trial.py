"""Trains on the devices of this process, or of several, and saves what came out.

Called by test_parallel.py: python device_trial.py FOLDER WAY LENGTH MEMORY, with the devices in the
environment. WAY is config.parallel, LENGTH the batches of a dispatch, and MEMORY "small" makes the
corpus stream.
"""

import json
import os
import re
import sys
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import optax
import tiny

from ds_jax.models.backbones import BACKBONES
from ds_jax.models.create import create_network
from ds_jax.runtime import processes
from ds_jax.systems import network as inference
from ds_jax.training import epochs, loop, parallel
from ds_jax.training import step as step_module
from ds_jax.training.loop import TrainingSetup

COMPILE = "/jax/core/compile/backend_compile_duration"
COLLECTIVE = re.compile(
    r"= (.*) (all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)(?:-start)?\("
)
SHAPE = re.compile(r"\w\[([\d,]*)\]")
# The splits differ in length: fold 2 has one batch of eight, the others two of which the second has
# fewer rows than eight devices.
FOLDS = {
    0: tiny.fold(range(11), range(11, 14), range(14, 16)),
    1: tiny.fold(range(5, 16), range(2), range(2, 5)),
    2: tiny.fold(range(6), range(6, 9), range(9, 16)),
    3: tiny.fold(range(3, 14), range(14, 16), range(3)),
    4: tiny.fold(range(4, 16), range(2), range(2, 4)),
}

compiled = []  # names of what was compiled since the start


def note(event: str, seconds: float, fun_name: str = "", **rest) -> None:
    """Hears of a compilation."""
    if event == COMPILE:
        compiled.append(fun_name)


def run(folder: Path, way: str = "batch") -> dict[str, np.ndarray]:
    """Trains by gradient descent, then on folds as a run does."""
    jax.monitoring.register_event_duration_secs_listener(note)
    config = tiny.config()
    config.model.freeze, config.parallel = "block5", way  # heads alone compile soon
    config.model.gates, config.model.loss_weights = ("block5_pool",), (1.0,)
    config.train.pretrained_learning_rate, config.train.new_learning_rate = 5e-5, 5e-4
    setup = tiny.setup(config)
    arrays = {}
    if way == "batch":
        arrays = descend(setup) | with_dropout() | with_mixing()
    arrays |= train_all(setup, folder) | collectives(setup)
    arrays["devices"] = jax.device_count()
    arrays["streamed"] = setup.inputs.streamed
    return {name: np.asarray(array) for name, array in arrays.items()}


def with_dropout() -> dict:
    """The same with a head that draws at random."""
    config = tiny.config("ds_fc")
    config.model.head, config.model.freeze = "fc", "block4"
    with tiny.narrow_vgg16(config.picture.size):
        return {f"dropout {name}": x for name, x in descend(tiny.setup(config)).items()}


def with_mixing() -> dict:
    """The same with timelines each of which is mixed with the next."""
    config, _ = tiny.make("ds_am_statistics")
    config.train.mixup = 0.5
    setup = tiny.setup(config, tiny.timelines(tiny.corpus(16)))
    return {f"mixing {name}": x for name, x in descend(setup).items()}


def descend(setup: TrainingSetup) -> dict:
    """Plain gradient descent: parameters move by the gradient itself, not by its sign."""
    layout, optimiser = parallel.ONE_MODEL, optax.sgd(1e-2)
    network = create_network(setup.config, layout.axis_name)
    step = step_module.create_train_step(
        *(network, optimiser, setup.inputs, layout, setup.config.seeds),
        mixup=setup.config.train.get("mixup", 0.0),
    )
    state = step_module.create_state(network, optimiser, setup.pretrained, jax.random.key(0), {})
    state = layout.place([state])
    before = [leaf.sharding for leaf in jax.tree.leaves(state)]
    losses, counts = [], []
    for rows in (np.arange(8), np.arange(8, 11), np.arange(3, 11)):
        for chunk in setup.inputs.chunks(layout, [[rows]], 1, layout.width(8)):
            state, loss = step(state, np.int32(0), np.float32(1), *chunk)
        losses.append(float(loss[0]))
        counts.append(len(compiled))
    after = [leaf.sharding for leaf in jax.tree.leaves(state)]
    same = all(a.is_equivalent_to(b, 0) for a, b in zip(before, after, strict=True))
    arrays = {"losses": losses, "same_sharding": same, "counts": counts}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.variables):
        arrays["variables" + jax.tree_util.keystr(path)] = leaf
    return arrays


def train_all(setup: TrainingSetup, folder: Path) -> dict:
    """Two epochs of every fold, with checkpoints, and the probabilities of the test splits."""
    arrays, compilations = {}, []
    with mock.patch.object(epochs, "save_model", wraps=epochs.save_model) as save:
        for number, predicted in loop.train_folds(setup, FOLDS, folder):
            arrays[f"probabilities_{number}"] = predicted.probabilities
            compilations.append(len(compiled))
    written = {int(re.search(r"fold_(\d+)", str(call.args[0]))[1]) for call in save.mock_calls}
    arrays[f"written_{jax.process_index()}"] = sorted(written)
    processes.wait_for_others("metrics")
    arrays["compilations"] = compilations
    for number in FOLDS:
        lines = (folder / f"fold_{number:02}" / "metrics.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        arrays[f"history_{number}"] = [[row["train_loss"], row["dev_loss"]] for row in rows]
    config, _, variables = inference.load(folder / "fold_00" / "checkpoints")
    arrays["seed_loaded"] = config.seed
    arrays["loaded"] = variables["params"]["head"]["block5_pool_logits"]["kernel"]
    return arrays


def collectives(setup: TrainingSetup) -> dict:
    """What the compiled step of each layout in use exchanges: how often, and how many numbers."""
    arrays = {}
    for layout, (train_step, _) in setup.steps.items():
        state = step_module.create_state(
            setup.network(layout), setup.optimiser, setup.pretrained, jax.random.key(0), {}
        )
        batches, width = [[np.arange(8)]] * layout.replicas, layout.width(8)
        length = setup.inputs.length(2, width)
        (chunk,) = setup.inputs.chunks(layout, batches, length, width)
        zeros = np.zeros(layout.replicas)
        lowered = train_step.lower(
            layout.place([state] * layout.replicas),
            layout.stack(zeros.astype(np.int32)),
            layout.stack(zeros.astype(np.float32)),
            *chunk,
        )
        found = COLLECTIVE.findall(lowered.compile().as_text())
        name = "batch" if layout.shared else "folds"
        arrays[f"collectives_{name}"] = [_size(shapes) for shapes, _ in found]
    return arrays


def _size(shapes: str) -> int:
    """How many numbers there are in arrays such as `(f32[3,4]{1,0}, f32[])`."""
    sizes = [np.prod(json.loads(f"[{shape}]"), dtype=int) for shape in SHAPE.findall(shapes)]
    return int(sum(sizes))


if __name__ == "__main__":
    folder, way, length, memory = sys.argv[1:]
    processes.start(distributed="DS_JAX_PROCESSES" in os.environ)
    jax.config.update("jax_numpy_rank_promotion", "raise")
    BACKBONES["vgg16"] = tiny.NARROW
    parallel.batches_in_dispatch = lambda batches: int(length)
    if memory == "small":
        parallel.fits = lambda size: False
    results = run(Path(folder), way)
    np.savez(Path(folder) / f"process_{jax.process_index()}.npz", **results)
