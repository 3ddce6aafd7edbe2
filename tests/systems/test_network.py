"""Batches, windows and frozen blocks change no prediction; a finished model brings it back."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import tiny

from ds_jax.evaluation import predictions
from ds_jax.models.create import create_network
from ds_jax.systems import network as networks
from ds_jax.training import inference
from ds_jax.training.parallel import ONE_MODEL

pytestmark = pytest.mark.usefixtures("narrow")


@pytest.fixture(scope="module")
def corpus():
    return tiny.corpus(7, windows=5)


@pytest.fixture(scope="module")
def setup(narrow, corpus):
    config = tiny.config()
    config.model.freeze = "block3"
    return tiny.setup(config, corpus)


@pytest.fixture(scope="module")
def variables(setup):
    return tiny.state(setup).variables


def predict(setup, variables, rows, batch_size):
    step, placed = setup.steps_for(ONE_MODEL)[1], ONE_MODEL.place([variables])
    return inference.predict(step, placed, setup.inputs, ONE_MODEL, [rows], batch_size, 1)[0]


def assert_close(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), one, other)


@pytest.fixture(scope="module")
def everything(setup, variables):
    return predict(setup, variables, np.arange(35, dtype=np.int32), 35)


def test_a_prediction_is_the_networks_softmax(setup, variables, everything, corpus):
    network = create_network(setup.config)  # of one device alone
    outputs = jax.jit(network.apply)(variables, jnp.asarray(corpus.inputs), jnp.ones(35))
    assert everything.probabilities.dtype == np.float64
    np.testing.assert_allclose(everything.probabilities.sum(axis=1), 1, rtol=1e-12)
    wanted = scipy.special.softmax(np.asarray(outputs.logits), axis=1)
    assert wanted.std(axis=0).min() > 1e-3  # the pictures are told apart
    np.testing.assert_allclose(everything.probabilities, wanted, rtol=1e-3, atol=1e-5)
    assert list(everything.head_probabilities) == ["block4_pool", "block5_pool"]
    for name, logits in outputs.head_logits.items():
        wanted = scipy.special.softmax(np.asarray(logits), axis=1)
        np.testing.assert_allclose(
            everything.head_probabilities[name], wanted, rtol=1e-3, atol=1e-5
        )
        np.testing.assert_allclose(everything.gates[name], outputs.gates[name], rtol=1e-3)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_batches_do_not_matter(setup, variables, everything, batch_size):
    """35 rows leave a last batch of two, or none that is full."""
    rows = np.arange(35, dtype=np.int32)
    assert_close(predict(setup, variables, rows, batch_size), everything)


def test_rows_are_predicted_in_the_order_asked_for(setup, variables, everything):
    rows = np.asarray([30, 2, 17, 2], np.int32)
    predicted = predict(setup, variables, rows, 3)
    assert_close(predicted, jax.tree.map(lambda x: x[rows], everything))


def test_windows_are_averaged_by_utterance(everything, corpus):
    rows = np.asarray([0, 1, 2, 3, 4, 11, 13, 30], np.int32)  # of three utterances: 5, 2 and 1
    predicted = jax.tree.map(lambda x: x[rows], everything)
    averaged = predictions.average_windows(predicted, corpus, rows)

    def mean(x):
        return np.stack([x[:5].mean(axis=0), x[5:7].mean(axis=0), x[7]])

    assert averaged.probabilities.shape == (3, 7)
    assert_close(averaged, jax.tree.map(mean, predicted))
    assert averaged.gates["block4_pool"].dtype == np.float32


def test_freezing_changes_no_prediction(setup, variables, everything, corpus):
    unfrozen = tiny.setup(tiny.config(), corpus)
    assert unfrozen.inputs.corpus.dtype == np.uint8
    assert create_network(unfrozen.config).frozen_blocks == 0
    rows = np.arange(0, 35, 4, dtype=np.int32)
    assert_close(predict(unfrozen, variables, rows, 8), jax.tree.map(lambda x: x[rows], everything))


@pytest.fixture
def saved(tmp_path, setup, variables):
    tiny.save(tmp_path, variables, setup.config)
    return tmp_path


def test_loading_brings_back_the_network(saved, setup, variables, everything):
    config, network, loaded = networks.load(saved)
    assert json.loads(config.to_json()) == json.loads(setup.config.to_json())
    assert network == create_network(setup.config)
    jax.tree.map(np.testing.assert_array_equal, loaded, dict(variables))
    rows = np.arange(4, dtype=np.int32)
    predicted = predict(setup, loaded, rows, 4)
    assert_close(predicted, jax.tree.map(lambda x: x[:4], everything))


@pytest.mark.parametrize("freeze", [pytest.param("", marks=pytest.mark.slow), "block4"])
def test_networks_loaded_together_predict_the_mean_of_each(tmp_path, corpus, freeze):
    """Whatever is frozen, in batches that are not full, and with heads and gates."""
    config = tiny.config()
    config.model.freeze = freeze
    setup = tiny.setup(config, corpus)
    folders, alone = [], []
    for seed in range(2):
        state = tiny.state(setup, seed)
        folders.append(tmp_path / f"{seed}")
        tiny.save(folders[-1], state.variables, config)
        alone.append(predict(setup, state.variables, np.arange(7, dtype=np.int32), 7))
    start = networks.load_ensemble(folders)
    waiting = [start(corpus.inputs[:4], 4), start(corpus.inputs[4:7], 4)]
    parts = [wait() for wait in waiting]
    together = jax.tree.map(lambda *x: np.concatenate(x), *parts)
    assert_close(together, jax.tree.map(lambda *x: np.mean(x, axis=0), *alone))
    assert np.std([one.probabilities for one in alone], axis=0).max() > 1e-3
    assert together.gates["block4_pool"].dtype == np.float32
