"""Generated pictures and weights, which train as fast as real ones and show nothing else."""

import contextlib
import dataclasses
import statistics
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from configs import base
from ds_jax.config import is_scheduled
from ds_jax.data.corpus import Corpus, Utterance
from ds_jax.data.folds import Fold
from ds_jax.data.labels import LABELS
from ds_jax.models.backbones import BACKBONES
from ds_jax.training.loop import TrainingSetup
from ds_jax.training.parallel import Layout
from ds_jax.training.step import create_state

CALLS = 20  # that a median is taken of
COLUMNS = 192  # of a timeline
SPEECH = COLUMNS * 256 / 16_000  # seconds; a square picture is of as much


def corpus(pictures: int, height: int, width: int) -> Corpus:
    """Makes noise in small squares, a picture an utterance, labels in turn."""
    names = [f"u{number:06}" for number in range(pictures)]
    utterances = tuple(
        Utterance(name, LABELS[number % len(LABELS)], "nobody", "unknown", "", "normal", 1.0)
        for number, name in enumerate(names)
    )
    shape = pictures, -(-height // 8), -(-width // 8)
    noise = np.random.default_rng(0).integers(1, 256, shape, np.uint8)  # 0 is a timeline's padding
    noise = noise.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]
    return Corpus("generated", utterances, noise, np.arange(pictures, dtype=np.int32))


def fold(of: Corpus, train: int, dev: int, start: int = 0) -> Fold:
    """Returns a fold of `train` and `dev` utterances, from the one numbered `start` on."""
    names = [utterance.name for utterance in of.utterances[start:]]
    return Fold(tuple(names[:train]), tuple(names[train : train + dev]), ())


def weights(size: int, full: bool = False) -> dict:
    """Draws weights that keep the signal's size; `full` adds fc1 and fc2."""
    rng, params = np.random.default_rng(0), {}
    shapes = dataclasses.replace(BACKBONES["vgg16"], size=size).shapes(full)
    for name, shape in ((name, kinds["kernel"]) for name, kinds in shapes.items()):
        scale = np.float32(np.sqrt(2 / np.prod(shape[:-1])))
        kernel = rng.standard_normal(shape, np.float32) * scale
        params[name] = {"kernel": kernel, "bias": np.zeros(shape[-1], np.float32)}
    params["block1_conv1"]["kernel"] /= 64  # pixels are that large
    return params


def config(size: int, batch_size: int, epochs: int, freeze: str = "") -> ml_collections.ConfigDict:
    """Returns DS-AM on pictures of `size`, or its second form if that is 0, for all epochs."""
    made = base.get_config()
    if size:
        made.picture.size, made.picture.canvas = size, size + 3  # as 227 is to 224
        made.train.stop_patience = epochs
    else:
        base.use_ds_am_statistics(made)
    made.corpus, made.model.freeze = "generated", freeze
    made.train.batch_size, made.train.epochs = batch_size, epochs
    return made


@contextlib.contextmanager
def cache(folder: str) -> Iterator[None]:
    """Keeps all that is compiled in a folder, and forgets what was compiled before."""
    names = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"
    before = [getattr(jax.config, name) for name in names]
    try:
        _set(names, (folder, 0.0))
        yield
    finally:
        _set(names, before)


def _set(names, values) -> None:
    for name, value in zip(names, values, strict=True):
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    jax.clear_caches()


def arguments(setup: TrainingSetup, layout: Layout, batches: int) -> tuple:
    """Returns all that a train step is called with, for a full dispatch of such an epoch."""
    schedule = ()
    if is_scheduled(setup.config.train):
        schedule = 1, np.ones(len(setup.config.classes), np.float32)
    state = create_state(
        setup.network(layout),
        setup.optimiser,
        setup.pretrained,
        jax.random.key(setup.config.seed),
        {},
        *schedule,
    )
    numbers = layout.stack(np.zeros(layout.replicas, np.int32))
    scales = layout.stack(np.ones(layout.replicas, np.float32))
    return (
        layout.place([state] * layout.replicas),
        numbers,
        scales,
        *_chunk(setup, layout, batches),
    )


def _chunk(setup: TrainingSetup, layout: Layout, batches: int) -> tuple:
    size = setup.config.train.batch_size
    rows = np.arange(len(setup.corpus.inputs), dtype=np.int32)[:size]
    width = layout.width(size)
    length = setup.inputs.length(batches, width)
    wanted = [[rows] * length for _ in range(layout.replicas)]
    (chunk,) = setup.inputs.chunks(layout, wanted, length, width)
    return chunk


def host_seconds(setup: TrainingSetup, layout: Layout, batches: int) -> tuple[float, float]:
    """Measures what the host needs for a dispatch, if the device had nothing to do.

    It makes a chunk of the inputs and calls a step that returns the state which it is given. Most
    of this goes on while a device has work.

    Returns:
        Seconds to make the chunk, and to call the step.
    """

    def idle(state, number, scale, corpus, labels, rows, mask, count):
        del number, scale, corpus, labels, mask, count
        return state, jnp.zeros(len(rows))

    step = setup.inputs.parallel(layout, idle, models=3, donate=True)
    state, numbers, scales, *_ = arguments(setup, layout, batches)
    making, calling = [], []
    for _ in range(CALLS + 1):
        began = time.perf_counter()
        chunk = _chunk(setup, layout, batches)
        made = time.perf_counter()
        state, losses = step(state, numbers, scales, *chunk)
        jax.block_until_ready(losses)
        making.append(made - began)
        calling.append(time.perf_counter() - made)
    return statistics.median(making[1:]), statistics.median(calling[1:])  # the first compiles
