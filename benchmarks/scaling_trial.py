"""What is compiled, exchanged and dispatched on the devices that this process has.

Called by scaling.py for each number of devices: python -m benchmarks.scaling_trial SETTINGS FILE,
both JSON.
"""

import json
import re
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import jax
import numpy as np

from benchmarks import generated
from benchmarks.throughput import chosen, counted
from ds_jax import devices, train, vgg
from ds_jax.devices import BATCH, FOLDS, Layout

COMPILE = "/jax/core/compile/backend_compile_duration"
COLLECTIVE = re.compile(
    r"= (.*) (all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)\("
)
ARRAY = re.compile(r"([a-z]+)(\d+)[a-z0-9]*\[([\d,]*)\]")
# Folds are trained by a VGG16 of few channels, one layer a block: what is counted there does not
# depend on them.
SMALL = ((4, 1), (6, 1), (8, 1), (16, 1), (16, 1))
PICTURES = 64  # that a fold is trained on, eight batches of eight


def collectives(text: str) -> list[dict]:
    """What a compiled program exchanges, in the order of its text.

    Args:
        text: XLA's, optimised.

    Returns:
        For each collective operation its name, the numbers and the bytes that it takes in all.
    """
    found = []
    for shapes, name in COLLECTIVE.findall(text):
        numbers = size = 0
        for _, bits, shape in ARRAY.findall(shapes):
            count = int(np.prod([int(side) for side in shape.split(",") if side]))
            numbers, size = numbers + count, size + count * int(bits) // 8
        found.append({"name": name, "numbers": numbers, "bytes": size})
    return found


def of_step(layout: Layout, settings: dict) -> dict:
    """The compiled train step, and the host's time for one of an epoch's dispatches."""
    config = generated.config(settings["size"], settings["batch"], 1)
    corpus = generated.corpus(settings["batch"], config.picture.canvas)
    weights = generated.weights(config.picture.size)
    experiment = train.create_experiment(config, corpus, weights)
    arguments = generated.arguments(experiment, layout, PICTURES // settings["batch"])
    trained = sum(leaf.size for leaf in jax.tree.leaves(arguments[0].params))
    began = time.perf_counter()
    compiled = experiment.programs_for(layout).train_step.lower(*arguments).compile()
    seconds = time.perf_counter() - began
    host = generated.host_seconds(experiment, layout, PICTURES // settings["batch"])
    return {
        "collectives": collectives(compiled.as_text()),
        "parameters": trained // layout.lanes,
        "compile seconds": seconds,
        "host seconds a dispatch": host,
    }


def of_folds(parallel: str, folder: Path) -> dict:
    """Trains one fold more than there are devices, and counts dispatches and compilations."""
    count, batch = jax.device_count() + 1, 8
    config = generated.config(32, batch, 1)
    config.parallel = parallel
    corpus = generated.corpus(PICTURES + batch + count, config.picture.canvas)
    folds = {k: generated.fold(corpus, PICTURES, batch, start=k) for k in range(count)}
    with mock.patch.object(vgg, "BLOCKS", SMALL):
        weights = generated.weights(config.picture.size)
        experiment = train.create_experiment(config, corpus, weights)
        learning, compiled = {}, []
        for layout in (BATCH, FOLDS):
            programs, learning[layout] = experiment.programs_for(layout), []
            step = counted(programs.train_step, learning[layout])
            experiment.programs[layout] = train.Programs(
                programs.network, step, programs.predict_step
            )
        heard = []
        jax.monitoring.register_event_duration_secs_listener(
            lambda event, _, **rest: heard.append(rest) if event == COMPILE else None
        )
        for _ in train.train_folds(experiment, folds, folder):
            compiled.append(len(heard))
    lanes = (FOLDS if parallel == "folds" else BATCH).lanes
    rounds = -(-count // lanes)
    return {
        "folds": count,
        "dispatches an epoch": sum(map(len, learning.values())) / rounds,
        "compilations until the first fold is done": compiled[0],
        "compilations until the last fold is done": compiled[-1],
    }


def main(settings: dict) -> dict:
    """Measures both layouts."""
    devices.start()
    found = {"devices": jax.device_count()}
    with chosen("auto", "accelerator"):
        for parallel, layout in (("folds", FOLDS), ("batch", BATCH)):
            with mock.patch.object(vgg, "BLOCKS", SMALL if settings["small"] else vgg.BLOCKS):
                found[parallel] = of_step(layout, settings)
            with tempfile.TemporaryDirectory() as folder:
                found[parallel] |= of_folds(parallel, Path(folder))
    return found


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(main(json.loads(sys.argv[1]))))
