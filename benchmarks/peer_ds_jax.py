"""DS-AM as this program trains it."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import generated
from ds_jax.features import extract
from ds_jax.models.backbones import backbone_of
from ds_jax.models.preprocessing import network_input
from ds_jax.runtime import processes
from ds_jax.systems.deep_features import LayerFeatures
from ds_jax.training.loop import create_setup
from ds_jax.training.parallel import ONE_MODEL


def create(folder: Path, size: int, batch: int, threads: int, cuda: bool) -> dict[str, dict]:
    """Draws pictures and weights, leaves them to the peers in `network.npz`, and prepares.

    Args:
        folder: Where `network.npz` goes.
        size: Side of a picture in pixels.
        batch: Pictures in a batch.
        threads: XLA takes as many as there are CPUs to this process.
        cuda: Whether a GPU is used, which JAX finds by itself.

    Returns:
        By the name of a variant: how many `parameters` it has, and functions to compute its
        `loss`, `forward`, `features` and a `training step`, that return when the device has.
    """
    del threads, cuda
    processes.start()
    config = generated.config(size, batch, epochs=1)
    corpus = generated.corpus(batch, *(config.picture.canvas,) * 2)
    setup = create_setup(config, corpus, generated.weights(size))
    step, predict_step = setup.steps_for(ONE_MODEL)
    state, *arguments = generated.arguments(setup, ONE_MODEL, batches=1)
    params = jax.device_get(state.params)
    picture = config.picture
    kind = backbone_of(config).input_of(picture.preprocessing)
    x = network_input(jnp.asarray(corpus.inputs), picture.colour_map, size, kind)
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    named = {"/".join(entry.key for entry in path): leaf for path, leaf in leaves}
    np.savez(folder / "network.npz", pictures=np.asarray(x), labels=corpus.labels, **named)
    held = [state]

    def training_step() -> float:
        held[0], losses = step(held[0], *arguments)
        jax.block_until_ready(held[0])
        return float(losses[0])

    chunk = arguments[2:]
    extractor = LayerFeatures(
        backbone_of(config), ["block5_pool"], extract.settings(config), setup.pretrained
    ).create_extractor()
    trial: dict[str, int | Callable] = {
        "parameters": sum(leaf.size for leaf in named.values()),
        "loss": training_step,
        "forward": lambda: jax.device_get(predict_step(held[0].variables, *chunk)),
        "features": lambda: extractor(corpus.inputs, ONE_MODEL.width(batch))(),
        "training step": training_step,
    }
    return {"ds_jax": trial}
