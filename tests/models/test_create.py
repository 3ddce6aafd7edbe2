"""The network of a config, and its variables and shapes without computing anything."""

import jax
import jax.numpy as jnp
import pytest
import tiny

from ds_jax.models.backbones import BACKBONES, backbone_of, needs_full_weights
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


def test_a_backbone_knows_the_shapes_of_its_parameters():
    shapes = backbone_of(tiny.config()).shapes(full=False)
    wanted = {name: layer for name, layer in tiny.pretrained().items() if name[:5] == "block"}
    assert shapes == {
        name: {kind: x.shape for kind, x in layer.items()} for name, layer in wanted.items()
    }
    full = BACKBONES["vgg16"].shapes(full=True)
    assert full["fc1"]["kernel"] == (7 * 7 * tiny.CHANNELS[-1], tiny.UNITS)
    assert list(full) == [*shapes, "fc1", "fc2"]


def test_the_top_layers_are_needed_where_they_are_read():
    config = tiny.make("ds_svc")[0]
    assert not needs_full_weights(config)
    config.model.layers = ("block5_pool", "fc2")
    assert needs_full_weights(config)
    config = tiny.config("ds_fc")
    assert not needs_full_weights(config)
    config.model.head = "fc"
    assert needs_full_weights(config)
    assert not needs_full_weights(tiny.config("ds_am"))
