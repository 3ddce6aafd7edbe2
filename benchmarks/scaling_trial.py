"""What is compiled, exchanged and dispatched on the devices that this process has.

Called by scaling.py for each number of devices: python -m benchmarks.scaling_trial OUTPUT [small]
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import jax

from benchmarks import generated
from benchmarks.hlo import Program
from benchmarks.throughput import chosen, counted
from ds_jax.models import vgg16
from ds_jax.models.backbones import BACKBONES
from ds_jax.runtime import processes
from ds_jax.training import loop
from ds_jax.training.loop import TrainingSetup, create_setup
from ds_jax.training.parallel import ONE_FOLD_PER_DEVICE, ONE_MODEL, Layout

COMPILE = "/jax/core/compile/backend_compile_duration"
# Folds are trained by a VGG16 of few channels, one layer a block: what is counted there does not
# depend on them.
SMALL = vgg16.create(((4, 1), (6, 1), (8, 1), (16, 1), (16, 1)), vgg16.UNITS)
SIZE, BATCHES, BATCH_SIZE = 32, 8, 8  # of pictures, of an epoch, and of a batch


def create_trial(parallel: str) -> TrainingSetup:
    """Prepares to train on one fold more than there are devices, which share some pictures."""
    config = generated.config(SIZE, BATCH_SIZE, 1)
    config.parallel = parallel
    pictures = (BATCHES + 1) * BATCH_SIZE + jax.device_count()
    corpus = generated.corpus(pictures, *(config.picture.canvas,) * 2)
    return create_setup(config, corpus, generated.weights(SIZE))


def of_step(layout: Layout) -> dict:
    """Compiles the train step, and measures the host's time for one of an epoch's dispatches."""
    setup = create_trial("auto")
    arguments = generated.arguments(setup, layout, BATCHES)
    trained = sum(leaf.size for leaf in jax.tree.leaves(arguments[0].params))
    began = time.perf_counter()
    compiled = setup.steps_for(layout)[0].lower(*arguments).compile()
    return {
        "collectives": Program(compiled.as_text()).collectives(),
        "parameters": trained // layout.replicas,
        "compile seconds": time.perf_counter() - began,
        "host seconds a dispatch": sum(generated.host_seconds(setup, layout, BATCHES)),
    }


def of_folds(layout: Layout, parallel: str, folder: Path) -> dict:
    """Trains all folds, and counts dispatches and compilations."""
    setup, count = create_trial(parallel), jax.device_count() + 1
    train = BATCHES * BATCH_SIZE
    folds = {k: generated.fold(setup.corpus, train, BATCH_SIZE, start=k) for k in range(count)}
    train_step, predict_step = setup.steps_for(layout)
    learning, heard, compiled = [], [], []
    setup.steps[layout] = counted(train_step, learning), predict_step
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, _, **rest: heard.append(rest) if event == COMPILE else None
    )
    for _ in loop.train_folds(setup, folds, folder):
        compiled.append(len(heard))
    return {
        "folds": count,
        "dispatches an epoch": len(learning) / -(-count // layout.replicas),
        "compilations until the first fold is done": compiled[0],
        "compilations until the last fold is done": compiled[-1],
    }


def main(small: bool) -> dict:
    """Measures both layouts.

    Args:
        small: Whether the step that is compiled is that of the small network, too.
    """
    processes.start()
    found = {"devices": jax.device_count()}
    # One device has one layout: its folds are trained one after the other.
    folds = ONE_MODEL if jax.device_count() == 1 else ONE_FOLD_PER_DEVICE
    with chosen("auto", "accelerator"):
        for parallel, layout in (("folds", folds), ("batch", ONE_MODEL)):
            with mock.patch.dict(BACKBONES, vgg16=SMALL if small else vgg16.VGG16):
                found[parallel] = of_step(layout)
            jax.clear_caches()  # what is known of one network is not so of the other
            with (
                mock.patch.dict(BACKBONES, vgg16=SMALL),
                tempfile.TemporaryDirectory() as folder,
            ):
                found[parallel] |= of_folds(layout, parallel, Path(folder))
            jax.clear_caches()
    return found


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(main(small="small" in sys.argv[2:])))
