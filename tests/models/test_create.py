"""The network of a config and what is known of it without computing anything."""

import jax
import jax.numpy as jnp
import pytest
import tiny

from ds_jax.models.create import abstract_variables, create_network

pytestmark = pytest.mark.usefixtures("narrow")


@pytest.mark.parametrize("system", ["ds_am", "ds_fc"])
def test_abstract_variables_are_those_of_initialisation(system):
    network = create_network(tiny.config(system))
    real = jax.eval_shape(
        lambda: network.init(jax.random.key(0), jnp.zeros((1, 48, 48), jnp.uint8), jnp.ones(1))
    )
    abstract = abstract_variables(network)
    assert abstract["params"] == real["params"]
    assert abstract["batch_stats"] == real.get("batch_stats", {})
