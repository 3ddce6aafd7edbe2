"""The network of a config, whatever it reads: pictures or features."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import ml_collections

from ds_jax.features import representation
from ds_jax.models import baselines, deep_spectrum
from ds_jax.training import parallel

Network = deep_spectrum.Network | baselines.FeatureNetwork
Variables = Mapping[str, Mapping]  # {"params": ..., "batch_stats": ...}


def create_network(
    config: ml_collections.ConfigDict, layout: parallel.Layout = parallel.BATCH
) -> Network:
    """Builds the network of a config for the devices of this machine.

    Args:
        config: A run's config.
        layout: How models will lie on devices.

    Raises:
        ValueError: A field has an impossible value.
    """
    settings = representation.settings(config)
    if config.system in baselines.SYSTEMS:
        return baselines.create(config.system, config.model, settings)
    return deep_spectrum.create(
        config.system, config.model, settings, layout.axis_name, parallel.compute_dtype()
    )


def frozen_layers(network: Network) -> set[str]:
    """Names of the layers of VGG16 that training leaves as they are."""
    return {
        f"block{block}_conv{index}"
        for block in range(1, network.frozen_blocks + 1)
        for index in range(1, deep_spectrum.BLOCKS[block - 1][1] + 1)
    }


def abstract_variables(network: Network) -> Variables:
    """Shapes and dtypes of the network's variables, without computing any."""
    inputs = jax.ShapeDtypeStruct((1, *network.input_shape), network.input_dtype)
    mask = jax.ShapeDtypeStruct((1,), jnp.float32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), inputs, mask)
    return {"params": shapes["params"], "batch_stats": shapes.get("batch_stats", {})}
