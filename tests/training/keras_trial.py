"""Descends with a small network of Keras on the devices of this process, and saves what came out.

Called by test_keras_parallel.py: python keras_trial.py WEIGHTS FILE, with the devices in the
environment.
"""

import sys
from pathlib import Path

import device_trial
import jax
import ml_collections
import numpy as np
import tiny

from ds_jax.models.backbones import built
from ds_jax.runtime import processes
from ds_jax.training.loop import create_setup

NAME, FROZEN, GATES = "mobilenet_v2", "block_15_add", ("block_16_expand", "out_relu")


def experiment(weights: str | Path) -> ml_collections.ConfigDict:
    """DS-AM on the network, of which the highest block is trained."""
    config = tiny.config()
    config.weights, config.picture.size = str(weights), 48
    config.picture.preprocessing = "tf"
    config.model.backbone, config.model.gates, config.model.freeze = NAME, GATES, FROZEN
    return config


def descend(weights: str | Path) -> dict[str, np.ndarray]:
    """Three steps, in the second of which most rows are padding, as in `device_trial`."""
    config = experiment(weights)
    setup = create_setup(config, tiny.corpus(), built(config).load(config.weights))
    found = device_trial.descend(setup) | {"devices": jax.device_count()}
    return {name: np.asarray(array) for name, array in found.items()}


if __name__ == "__main__":
    processes.start(distributed=False)
    jax.config.update("jax_numpy_rank_promotion", "raise")
    np.savez(sys.argv[2], **descend(sys.argv[1]))
