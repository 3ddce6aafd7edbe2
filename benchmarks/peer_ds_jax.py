"""DS-AM as this program trains it."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from configs import base
from ds_jax import devices, inference, train
from ds_jax.preprocessing import network_input
from ds_jax.vgg import VGG16


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
        `loss`, `features` and a `training step`, that return when the device has.
    """
    del threads, cuda
    devices.start()
    config = base.get_config()
    config.picture.size, config.train.batch_size = size, batch
    network = inference.create_network(config)
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (batch, *network.input_shape), np.uint8)
    labels = rng.integers(0, 7, batch).astype(np.int32)
    blank = jnp.zeros((1, size, size, 3))
    pretrained = jax.device_get(jax.jit(VGG16().init)(jax.random.key(0), blank)["params"])
    # As light as centred pictures are large, which keeps the first loss at a fresh network's.
    first = pretrained["block1_conv1"]
    first["kernel"] = first["kernel"] / 64
    optimiser = train.create_optimiser(network, config.train)
    state = train.create_state(network, optimiser, pretrained, jax.random.key(0), {})
    params = jax.device_get(state.params)
    picture = config.picture
    x = network_input(jnp.asarray(pictures), picture.colour_map, size, picture.preprocessing)
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    named = {"/".join(entry.key for entry in path): leaf for path, leaf in leaves}
    np.savez(folder / "network.npz", pictures=np.asarray(x), labels=labels, **named)

    step = train.create_train_step(network, optimiser)
    rows, mask = devices.spread(np.arange(batch, dtype=np.int32), devices.batch_width(batch))
    state, pictures, labels, key, scale = devices.replicate(
        (state, pictures, labels, jax.random.key(1), jnp.float32(1))
    )
    held = [state]

    def training_step() -> float:
        held[0], loss = step(held[0], pictures, labels, scale, key, rows, mask)
        jax.block_until_ready(held[0])
        return float(loss)

    trunk = VGG16(devices.compute_dtype())
    pool = jax.jit(lambda params, x: trunk.apply({"params": params}, x)["block5_pool"])
    trunk_params = jax.device_put(params["vgg16"])
    trial: dict[str, int | Callable] = {
        "parameters": sum(leaf.size for leaf in named.values()),
        "loss": training_step,
        "features": lambda: jax.block_until_ready(pool(trunk_params, x)),
        "training step": training_step,
    }
    return {"ds_jax": trial}
