"""The baselines' networks on features, and their way through the trainer."""

import jax
import jax.numpy as jnp
import keras
import ml_collections
import numpy as np
import pytest
import tiny
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from configs import base
from ds_jax.data.corpus import Corpus
from ds_jax.data.labels import LABELS
from ds_jax.models.create import create_network
from ds_jax.systems import network as inference
from ds_jax.training.loop import create_setup

MODELS = {
    "lstm": {"units": (6, 5), "dense_units": 4},
    "ffnn": {"units": (8, 8), "dropout": 0.5},
}


def config(system, features="mfcc"):
    made = base.get_config()
    {"lstm": base.use_lstm, "ffnn": base.use_ffnn}[system](made, features)
    made.model = ml_collections.ConfigDict(MODELS[system])
    made.train.batch_size, made.train.epochs = 8, 3
    return made


def corpus(shape=(60,), seed=0):
    """Noise around a place for each label, in features of very different sizes."""
    drawn = tiny.corpus(28)
    rng = np.random.default_rng(seed)
    places = rng.normal(0, 3, (len(LABELS), shape[-1]))[drawn.labels]
    places = np.broadcast_to(places.reshape(28, *(1,) * (len(shape) - 1), -1), (28, *shape))
    inputs = (places + rng.normal(0, 0.1, (28, *shape))) * np.geomspace(1e-3, 1e3, shape[-1]) + 7
    return Corpus("tiny", drawn.utterances, inputs.astype(np.float32), drawn.owners)


def create(system, features="mfcc"):
    return create_network(config(system, features))


def apply(network, inputs, scaling, seed=0):
    inputs = jnp.asarray(inputs)
    mask = jnp.ones(len(inputs))
    variables = jax.jit(network.init)(jax.random.key(seed), inputs, mask)
    variables["batch_stats"] |= scaling
    return jax.jit(network.apply)(variables, inputs, mask).logits


def test_the_scalings_are_those_of_scikit_learn():
    inputs = corpus().inputs
    for system, reference in (
        ("lstm", MinMaxScaler((-1, 1))),
        ("ffnn", StandardScaler()),
    ):
        network = create(system)
        scaling = network.scaling(inputs, slice(None))
        scaled = (inputs - scaling["centre"]) / scaling["scale"]
        wanted = reference.fit_transform(inputs.astype(np.float64))
        np.testing.assert_allclose(scaled, wanted, atol=2e-3)


def test_constant_features_stay_finite():
    network = create("ffnn")
    inputs = np.full((5, 60), 3, np.float32)
    assert (network.scaling(inputs, slice(None))["scale"] == 1).all()


@pytest.mark.slow
def test_padding_of_a_sequence_changes_nothing():
    network = create("lstm", "mfcc_frames")
    inputs = corpus((9, 12)).inputs
    padded = np.concatenate([inputs, np.full((28, 4, 12), np.nan, np.float32)], axis=1)
    scaling = network.scaling(padded, slice(None))
    for name, value in network.scaling(inputs, slice(None)).items():
        np.testing.assert_array_equal(scaling[name], value)
    one, other = apply(network, inputs, scaling), apply(network, padded, scaling)
    np.testing.assert_allclose(one, other, atol=1e-6)
    earlier = apply(network, inputs[:, :-1], scaling)
    assert np.abs(one - earlier).max() > 1e-4  # the last frame counts


def test_a_vector_is_a_sequence_of_one_step():
    network = create("lstm")
    inputs = corpus().inputs
    scaling = network.scaling(inputs, slice(None))
    np.testing.assert_allclose(
        apply(network, inputs, scaling), apply(network, inputs[:, None], scaling), atol=1e-6
    )


def test_two_lstm_layers_are_those_of_keras():
    network = create("lstm", "mfcc_frames")
    inputs = np.random.default_rng(0).normal(size=(3, 7, 12)).astype(np.float32)
    variables = network.init(jax.random.key(1), jnp.asarray(inputs), jnp.ones(3))
    body = jax.tree.map(np.asarray, variables["params"]["body"])
    x = inputs
    for index, units in enumerate(MODELS["lstm"]["units"]):
        cell = body[f"lstm{index + 1}"]
        gates = "ifgo"  # Keras' order: input, forget, candidate, output
        with jax.numpy_rank_promotion("allow"):  # Keras' own
            layer = keras.layers.LSTM(units, return_sequences=True)
            layer.build(x.shape)
            layer.set_weights(
                [
                    np.concatenate([cell[f"i{gate}"]["kernel"] for gate in gates], axis=1),
                    np.concatenate([cell[f"h{gate}"]["kernel"] for gate in gates], axis=1),
                    np.concatenate([cell[f"h{gate}"]["bias"] for gate in gates]),
                ]
            )
            x = np.asarray(layer(x))
    dense, classifier = body["dense"], body["classifier"]
    hidden = np.maximum(x[:, -1] @ dense["kernel"] + dense["bias"], 0)
    wanted = hidden @ classifier["kernel"] + classifier["bias"]
    ours = network.apply(variables, jnp.asarray(inputs), jnp.ones(3)).logits
    np.testing.assert_allclose(ours, wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("system", "features"),
    [("ffnn", "mfcc"), pytest.param("lstm", "mfcc_frames", marks=pytest.mark.slow)],
)
def test_it_learns_and_judges_from_its_checkpoint(system, features, tmp_path):
    made = config(system, features)
    made.train.epochs, made.train.new_learning_rate = 30, 2e-2
    made.train.stop_patience = made.train.plateau_patience = 30
    made.model.units = (16, 16)
    spoken = corpus((60,) if features == "mfcc" else (5, 12))
    experiment = create_setup(made, spoken, {})
    fold = tiny.fold(range(14), range(14, 21), range(21, 28))
    judgement = tiny.train_fold(experiment, 0, fold, tmp_path)
    tested = spoken.rows_of(fold.test)
    assert (judgement.probabilities.argmax(axis=1) == spoken.labels[tested]).mean() > 0.5
    loaded = dict(inference.predict({tmp_path / "fold_00" / "checkpoints": tested}, spoken))
    np.testing.assert_array_equal(
        loaded[tmp_path / "fold_00" / "checkpoints"].probabilities, judgement.probabilities
    )


def test_the_scaling_knows_the_training_side_alone(tmp_path):
    made = config("ffnn")
    spoken = corpus()
    moved = spoken.inputs.copy()
    moved[14:] += 1000  # dev and test
    shifted = Corpus("tiny", spoken.utterances, moved, spoken.owners)
    scalings = []
    for number, of in enumerate((spoken, shifted)):
        made.train.epochs = 1
        experiment = create_setup(made, of, {})
        fold = tiny.fold(range(14), range(14, 21), range(21, 28))
        tiny.train_fold(experiment, 0, fold, tmp_path / str(number))
        variables = inference.load(tmp_path / str(number) / "fold_00" / "checkpoints")[2]
        scalings.append({name: variables["batch_stats"][name] for name in ("centre", "scale")})
    for name, value in scalings[0].items():
        np.testing.assert_array_equal(scalings[1][name], value)
