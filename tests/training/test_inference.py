"""Timelines of a batch are padded to the widest of them, which changes nothing but the work."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from ds_jax.features import spectrogram
from ds_jax.training import inference, parallel
from ds_jax.training.parallel import ONE_MODEL
from ds_jax.training.step import create_predict_step

pytestmark = pytest.mark.usefixtures("narrow")
ROWS = np.random.default_rng(0).permutation(16).astype(np.int32)[:13]


@pytest.fixture(scope="module")
def setup(narrow):
    config, _ = tiny.make("ds_am_statistics")
    return tiny.setup(config, tiny.timelines(tiny.corpus(16)))


@pytest.fixture(scope="module")
def network(setup):
    return setup.network(ONE_MODEL)


@pytest.fixture(scope="module")
def variables(setup, network):
    made = jax.jit(network.init)(jax.random.key(0), setup.corpus.inputs[:1], jnp.ones(1))
    return {**made, "params": made["params"] | network.port(setup.pretrained)}


def predict(inputs, network, variables):
    step = create_predict_step(network, inputs, ONE_MODEL)
    placed = ONE_MODEL.place([variables])
    return inference.predict(step, placed, inputs, ONE_MODEL, [ROWS], 4, 1)[0]


@pytest.mark.parametrize("kept", ["maps", "pictures", "nothing"])
def test_predictions_are_those_of_each_timeline_alone(setup, network, variables, kept, monkeypatch):
    """In the order in which they were asked for; with maps or pictures resident, and streamed."""
    answers = iter({"maps": [True], "pictures": [False, True], "nothing": [False, False]}[kept])
    monkeypatch.setattr(parallel, "fits", lambda size: next(answers))
    inputs = tiny.setup(setup.config, tiny.timelines(tiny.corpus(16))).inputs
    assert (inputs.method == "upper", inputs.streamed) == (kept == "maps", kept == "nothing")
    predicted = predict(inputs, network, variables)
    alone = jax.jit(lambda x: network.apply(variables, x, jnp.ones(1)))
    for place, row in enumerate(ROWS):
        picture = spectrogram.unpadded(setup.corpus.inputs[row])
        outputs = alone(picture[None])
        wanted = jax.nn.softmax(outputs.logits[0])
        np.testing.assert_allclose(predicted.probabilities[place], wanted, rtol=1e-4, atol=1e-6)
        for name, gate in predicted.gates.items():
            columns = outputs.gates[name].shape[2]
            np.testing.assert_allclose(
                gate[place][:, :columns], outputs.gates[name][0], rtol=1e-3, atol=1e-5
            )
            assert np.isnan(gate[place][:, columns:]).all()


def test_a_chunk_is_as_wide_as_the_corpus_or_half_as_wide_and_so_on(setup):
    widths = spectrogram.widths(setup.corpus.inputs)
    rows = np.argsort(widths).astype(np.int32)
    batches = [rows[:4], rows[-4:]]
    found = [
        chunk[0]["block4_pool"].rows(batch).whole().shape[2] * 16
        for chunk, batch in zip(
            setup.inputs.chunks(ONE_MODEL, [batches], 1, 4, narrow=True), batches, strict=True
        )
    ]
    assert [columns >= widths[batch].max() for columns, batch in zip(found, batches, strict=True)]
    assert found == [112, 208]  # of pieces of 16
    assert len(np.unique(setup.inputs.widths)) == 2
    (chunk, _) = setup.inputs.chunks(ONE_MODEL, [batches], 1, 4)
    assert chunk[0]["block4_pool"].rows(batches[0]).whole().shape[2] * 16 >= widths.max()
