"""Resident or streamed, frozen blocks computed once or each time: the same inputs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from ds_jax.data.corpus import StoredPictures
from ds_jax.models import pairs
from ds_jax.models.create import create_network
from ds_jax.training import input_pipeline, parallel
from ds_jax.training import step as step_module
from ds_jax.training.input_pipeline import Rows
from ds_jax.training.parallel import ONE_MODEL

pytestmark = pytest.mark.usefixtures("narrow")


def create(corpus, freeze=""):
    config = tiny.config()
    config.model.freeze = freeze
    network, pretrained = create_network(config), tiny.pretrained()
    made = input_pipeline.create_inputs(
        network, {"vgg16": pretrained}, corpus.inputs, corpus.labels
    )
    return network, pretrained, made


def read(made, batches, length, width):
    """What a step would read of each batch: inputs, labels and mask."""
    found = []
    for corpus, labels, rows, mask, counts in made.chunks(ONE_MODEL, [batches], length, width):
        if made.streamed:
            corpus, labels = corpus[0], labels[0]
        for k in range(counts[0]):
            batch = rows[0, k]
            found.append((np.asarray(corpus[batch]), np.asarray(labels[batch]), mask[0, k]))
    return found


@pytest.mark.parametrize(("freeze", "count"), [("block1", 5), ("block4", 35), ("block1", 64)])
def test_frozen_blocks_computed_beforehand_are_the_network(freeze, count):
    """Also where the last part is not full."""
    corpus = tiny.corpus(count)
    network, pretrained, made = create(corpus, freeze)
    assert made.method == "upper"
    lower = jax.jit(functools.partial(network.apply, method="lower"))
    wanted = lower({"params": {"vgg16": pretrained}}, corpus.inputs)
    scale = float(jnp.abs(wanted).max())
    np.testing.assert_allclose(made.corpus[:count], wanted, rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize(
    ("system", "freeze"), [("ds_am", "block2"), ("ds_am_statistics", ""), ("ffnn", "")]
)
def test_accelerators_keep_what_the_network_reads_in_whole_tiles(monkeypatch, system, freeze):
    monkeypatch.setattr(parallel, "accelerated", lambda: True)
    config, corpus = tiny.make(system)
    if "freeze" in config.model:
        config.model.freeze = freeze
    network, rows = create_network(config), np.asarray([4, 0, 3])
    pictures = corpus.inputs[rows]
    variables = jax.jit(network.init)(jax.random.key(0), pictures, jnp.ones(3))
    made = input_pipeline.create_inputs(network, variables["params"], corpus.inputs)
    assert (made.method, made.streamed) == ("upper", False)
    kept = jax.tree.leaves(made.corpus, is_leaf=lambda x: isinstance(x, Rows))
    assert all(isinstance(x, Rows) or x.ndim == 1 for x in kept)  # else numbers of timelines
    for x in kept:
        if isinstance(x, Rows):
            assert (x.tiles.shape[1] % 8, x.tiles.shape[2:]) == (0, (128,))
    read = jax.jit(lambda corpus: step_module.take(corpus, rows))(made.corpus)
    logits = [
        jax.jit(functools.partial(network.apply, method=method))(variables, x, jnp.ones(3)).logits
        for method, x in (("__call__", pictures), ("upper", read))
    ]
    assert np.std(logits[0]) > 1e-3
    np.testing.assert_allclose(logits[1], logits[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("platform", "count"), [("cpu", 1), ("cuda", 1), ("tpu", 4)])
def test_tpus_read_a_large_batch_of_pictures_in_parts(monkeypatch, platform, count):
    monkeypatch.setattr(pairs, "PICTURES_AT_ONCE", 3)
    rows, shape = np.asarray([4, 0, 3, 3, 1, 2, 5, 0, 2, 4]), (6, 5, 3)
    wanted = np.random.default_rng(0).normal(size=(6, *shape)).astype(np.float32)
    tiles = np.zeros((6, 8 * 128), np.float32)
    tiles[:, :90] = wanted.reshape(6, -1)
    corpus = Rows(jnp.asarray(tiles.reshape(6, 8, 128)), shape)
    step = jax.jit(functools.partial(step_module.take, corpus))
    text = step.trace(rows).lower(lowering_platforms=(platform,)).as_text()
    assert text.count('"stablehlo.gather"(') == count
    tiny.compute_as_on(platform, monkeypatch)
    np.testing.assert_array_equal(step_module.take(corpus, rows), wanted[rows])


def test_rows_of_accelerators_are_joined(monkeypatch):
    monkeypatch.setattr(parallel, "accelerated", lambda: True)
    parts = [create(tiny.corpus(count, seed=count))[2] for count in (5, 3)]
    joined = parts[0].join(parts[1])
    wanted = [step_module.take(part.corpus, np.arange(len(part.labels))) for part in parts]
    found = step_module.take(joined.corpus, np.arange(8))
    np.testing.assert_array_equal(found, np.concatenate(wanted))
    labels = np.concatenate([part.labels for part in parts])
    np.testing.assert_array_equal(joined.labels[:8], labels)


def test_a_step_as_accelerators_compute_it_is_the_plain_one(monkeypatch):
    """In bfloat16; the parameters move by the gradient itself."""
    monkeypatch.setattr(parallel, "accelerated", lambda: True)
    monkeypatch.setattr(pairs, "PICTURES_AT_ONCE", 3)  # of the four in each half
    config, optimiser, found = tiny.config("ds_fc"), optax.sgd(1.0), []
    network = create_network(config, ONE_MODEL.axis_name, parallel.compute_dtype())
    # On the first of these the pictures alone fit.
    for platform, memory in (("cpu", 10**5), ("tpu", 10**9), ("cuda", 10**9)):
        monkeypatch.setattr(parallel, "fits", lambda size, memory=memory: size <= memory)
        tiny.compute_as_on(platform, monkeypatch)
        setup = tiny.setup(config)
        state = step_module.create_state(
            network, optimiser, setup.pretrained, jax.random.key(0), {}
        )
        before = jax.device_get(state.params)
        step = step_module.create_train_step(
            network, optimiser, setup.inputs, ONE_MODEL, config.seeds
        )
        (chunk,) = setup.inputs.chunks(ONE_MODEL, [[np.arange(8)]], 1, 8)
        state, losses = step(ONE_MODEL.place([state]), np.int32(0), np.float32(1), *chunk)
        moved = jax.tree.map(np.subtract, jax.device_get(state.params), before)
        found.append((setup.inputs.method, losses[0], moved))
    assert [method for method, *_ in found] == ["__call__", "upper", "upper"]
    (_, wanted, plain), *others = found
    for _, loss, gradients in others:
        np.testing.assert_allclose(loss, wanted, rtol=2**-8)
        for ours, reference in zip(*map(jax.tree.leaves, (gradients, plain)), strict=True):
            assert np.linalg.norm(ours - reference) <= 2**-6 * np.linalg.norm(reference)


@pytest.mark.parametrize("freeze", ["", "block1"])
def test_what_does_not_fit_is_computed_each_time_and_then_streamed(monkeypatch, freeze):
    corpus = tiny.corpus(20)
    methods = []
    for memory in (10**9, 20 * 48 * 48 + 30_000, 1000):  # of a device: all, pictures alone, neither
        monkeypatch.setattr(parallel, "fits", lambda size, memory=memory: size <= memory)
        made = create(corpus, freeze)[2]
        methods.append((made.method, made.streamed))
    kept = "upper" if freeze else "__call__"
    assert methods == [(kept, False), ("__call__", False), ("__call__", True)]


@pytest.mark.parametrize("length", [1, 3])
def test_streamed_batches_are_the_resident_ones(monkeypatch, length):
    corpus = tiny.corpus(20)
    order = np.random.default_rng(0).permutation(20).astype(np.int32)
    batches = input_pipeline.split_batches(order, 6)
    assert [len(batch) for batch in batches] == [6, 6, 6, 2]
    resident = read(create(corpus)[2], batches, length, 6)
    monkeypatch.setattr(parallel, "fits", lambda size: False)
    made = create(corpus)[2]
    streamed = read(made, batches, length, 6)
    assert len(streamed) == len(resident) == 4
    for (pictures, labels, mask), (wanted, wanted_labels, wanted_mask), batch in zip(
        streamed, resident, batches, strict=True
    ):
        np.testing.assert_array_equal(mask, wanted_mask)
        real = mask > 0
        np.testing.assert_array_equal(pictures[real], wanted[real])
        np.testing.assert_array_equal(pictures[real], corpus.inputs[batch])
        np.testing.assert_array_equal(labels[real], wanted_labels[real])
        assert not pictures[~real].any()  # padding is not read
    assert not read(made, [], length, 6)


def test_chunks_that_are_streamed_are_bounded(monkeypatch):
    resident = create(tiny.corpus(20))[2]
    monkeypatch.setattr(parallel, "batches_in_dispatch", lambda batches: batches)
    assert resident.length(1000, 8) == 1000
    monkeypatch.setattr(parallel, "fits", lambda size: False)
    monkeypatch.setattr(input_pipeline, "STREAMED_AT_ONCE", 3 * 8 * 48 * 48)
    assert create(tiny.corpus(20))[2].length(1000, 8) == 3
    assert create(tiny.corpus(20))[2].length(1000, 800) == 1


def test_stored_pictures_are_indexed_like_an_array():
    pictures = tiny.corpus(7).inputs
    numbers = (3, 1, 2, 0, 6, 5, 4)  # in the order in which they are stored
    stored = StoredPictures(
        lambda position: pictures[numbers[position]], np.asarray(numbers), (48, 48)
    )
    assert (len(stored), stored.shape, stored.dtype) == (7, (7, 48, 48), np.uint8)
    for rows in (2, slice(1, 4), np.asarray([5, 0, 5]), np.asarray([[1, 2], [3, 4]])):
        np.testing.assert_array_equal(stored[rows], pictures[rows])
