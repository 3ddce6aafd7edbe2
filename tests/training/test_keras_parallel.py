"""A network of Keras is trained alike on one device and on two, with batch normalisation."""

import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import keras_networks
import keras_trial
import numpy as np
import pytest

from ds_jax.models.backbones import built

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]
ROOT, HERE = Path(__file__).parents[2], Path(__file__).parent


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "small.weights.h5"
    keras_networks.create(keras_trial.NAME, 48).save_weights(path)
    return path


def test_two_devices_and_padding_change_nothing(weights, tmp_path):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2"}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (ROOT, ROOT / "tests", HERE)))
    script, file = HERE / "keras_trial.py", tmp_path / "two.npz"
    subprocess.run([sys.executable, script, weights, file], env=environment, check=True)
    one, two = keras_trial.descend(weights), dict(np.load(file))
    assert (one["devices"], two["devices"]) == (1, 2)
    given = built(keras_trial.experiment(weights)).load(str(weights))
    moved = set()
    for key, wanted in one.items():
        if key.startswith(("losses", "variables")):
            np.testing.assert_allclose(two[key], wanted, rtol=1e-4, atol=1e-5, err_msg=key)
        if key.startswith(f"variables['params']['{keras_trial.NAME}']"):
            *_, layer, kind = (part.strip("'") for part in key[len("variables[") : -1].split("]["))
            if not np.array_equal(wanted, given[layer][kind]):
                moved.add(layer)
    assert {"block_16_expand", "block_16_expand_BN", "Conv_1_bn"} <= moved
    assert not any(layer.endswith("_statistics") for layer in moved)


def test_bfloat16_is_close_to_float32(weights):
    backbone = built(keras_trial.experiment(weights))
    params = {"params": backbone.load(str(weights))}
    pictures = np.random.default_rng(0).uniform(-1, 1, (2, 48, 48, 3)).astype(np.float32)
    exact, rounded = (
        backbone.trunk(backbone.blocks, dtype).apply(params, pictures)["out_relu"]
        for dtype in (jnp.float32, jnp.bfloat16)
    )
    assert (exact.dtype, rounded.dtype) == (jnp.float32, jnp.bfloat16)
    difference = np.asarray(rounded, np.float32) - exact
    assert 1e-4 < np.linalg.norm(difference) / np.linalg.norm(exact) < 0.05
