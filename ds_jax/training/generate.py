"""Pictures for the training of a fold, drawn by a generator that has learnt from its own alone.

The generator never sees another split. Each picture takes the class and the length of a training
recording, of which it is a row like those of variants, so that nothing but training reads it.
"""

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from ds_jax.data import generated, leakage
from ds_jax.data.corpus import Corpus
from ds_jax.data.folds import Fold
from ds_jax.evaluation.predictions import Predicted
from ds_jax.features import extract, spectrogram
from ds_jax.models.generator import FRAMES, Generator
from ds_jax.runtime import processes, progress
from ds_jax.runtime.progress import many
from ds_jax.runtime.workdir import GENERATED, fold_directory
from ds_jax.training import loop
from ds_jax.training.loop import TrainingSetup
from ds_jax.training.step import rate_share

LEAST = 5  # pictures of a class from which its generation is learnt
BATCH = 16
ADAM, LEARNING_RATE = optax.scale_by_adam(), 2e-3  # which follows `rate_share`
# Places between noise and picture are a sigmoid's of normal numbers of the mean -SPREAD and the
# deviation SPREAD, so that most are near noise; nearer to a picture than `LEAST_LEFT` errors weigh
# no more (Li and He, "Back to Basics: Let Denoising Generative Models Denoise", 2025).
SPREAD, LEAST_LEFT = 0.8, 0.2
MOVES = 6  # from noise to a picture, each with two looks at the velocity (the midpoint method)
DRAWN_AT_ONCE = 64


class Fitted(NamedTuple):
    """A generator after its training.

    Attributes:
        generator: The network.
        params: Its parameters.
        mean, deviation: float32 [bands], those of each band of the pictures it was trained on.
        losses: The loss of each step.
    """

    generator: Generator
    params: Any
    mean: np.ndarray
    deviation: np.ndarray
    losses: list[float]


def train_folds(
    setup: TrainingSetup, folds: Mapping[int, Fold], workdir: Path
) -> Iterator[tuple[int, Predicted | None]]:
    """Trains on folds one after the other, each with generated pictures; see `loop.train_folds`.

    The pictures of a fold are kept in its folder. A fold that was stopped goes on with them.

    Args:
        setup: What the folds share.
        folds: The folds by their numbers.
        workdir: The folder of the run.

    Raises:
        FloatingPointError: A loss is not finite.
        ValueError: A class has too few pictures, or what was kept is of another fold or config.
    """
    for number, fold in folds.items():
        _check_counts(setup.corpus, number, fold)
    for number, fold in folds.items():
        path, failure = fold_directory(workdir, number) / GENERATED, None
        digest = _digest(setup.config, setup.corpus, number, fold)
        if processes.is_first_process() and not generated.is_whole(path):
            try:
                generated.write(path, *_generate(setup.config, setup.corpus, number, fold), digest)
            except Exception as error:  # the other processes wait here, and are told first
                failure = error
        if processes.in_any_process([failure is not None])[0]:
            raise failure or ValueError(
                f"fold {number}: the first process has drawn no pictures, and says why"
            )
        corpus = generated.join(setup.corpus, generated.read(path, digest))
        yield from loop.train_folds(loop.extend(setup, corpus), {number: fold}, workdir)


def _check_counts(corpus: Corpus, number: int, fold: Fold) -> None:
    """Checks that a generator has enough pictures of each class that a fold trains.

    Raises:
        ValueError: It has not.
    """
    counts = np.bincount(corpus.labels[corpus.rows_of(fold.train)], minlength=len(corpus.classes))
    for name, count in zip(corpus.classes, counts.tolist(), strict=True):
        if 0 < count < LEAST:
            raise ValueError(
                f"fold {number}: the generator has {many(count, 'training picture')} of {name}, "
                f"and needs {LEAST} of each class: set config.generate.share=0.0, or leave the "
                "class out of config.classes"
            )


def _digest(config: ml_collections.ConfigDict, corpus: Corpus, number: int, fold: Fold) -> str:
    """Returns a SHA-256 in hexadecimal digits of all that decides what a fold's pictures are."""
    fields = config.generate.to_dict(), config.seeds.generation, str(extract.settings(config))
    labels = list(config.classes), list(config.label_map)
    recordings = leakage.fold_digest(number, fold.splits, corpus.digests)
    return hashlib.sha256(json.dumps([*fields, *labels, recordings]).encode()).hexdigest()


def _generate(
    config: ml_collections.ConfigDict, corpus: Corpus, number: int, fold: Fold
) -> tuple[np.ndarray, list[str]]:
    """Returns generated pictures for a fold, and the name of the recording that each stands by."""
    rows = corpus.rows_of(fold.train)
    what = f"fold {number}: the generator"
    leakage.check_rows(what, rows, corpus, fold.splits, ("train",))
    pictures, labels = corpus.inputs[rows], corpus.labels[rows]
    rng = np.random.default_rng([config.seeds.generation, number])
    fitted = fit(pictures, labels, len(corpus.classes), config.generate.steps, rng, what)
    wanted = choose(labels, config.generate.share, rng)
    drawn = draw(fitted, labels[wanted], spectrogram.widths(pictures)[wanted], rng)
    progress.say(
        f"{what} has drawn {many(len(drawn), 'picture')}; its loss fell from "
        f"{fitted.losses[0]:.2f} to {np.mean(fitted.losses[-50:]):.2f}"
    )
    owners = corpus.owners[rows[wanted]]
    return drawn, [corpus.utterances[owner].name for owner in owners]


def choose(labels: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Chooses the pictures whose class and length generated ones take, int [share x n], or one.

    Each class has its share, and each picture is chosen about as often as any other.
    """
    shuffled = rng.permutation(len(labels))
    order = shuffled[np.argsort(labels[shuffled], kind="stable")]
    count = max(1, round(share * len(labels)))
    return order[np.floor((np.arange(count) + 0.5) * len(labels) / count).astype(int)]


def fit(
    pictures: np.ndarray,
    labels: np.ndarray,
    classes: int,
    steps: int,
    rng: np.random.Generator,
    title: str = "the generator",
) -> Fitted:
    """Trains a generator.

    Args:
        pictures: uint8 [n, bands, widest], timelines that are 0 after their ends.
        labels: int [n].
        classes: The number of classes.
        steps: The number of batches.
        rng: Draws initial values, batches, crops and noise.
        title: The name of the work in its progress bar.

    Raises:
        FloatingPointError: The loss is not finite.
    """
    values, widths = np.moveaxis(pictures, 1, 2), spectrogram.widths(pictures)
    real = values[values[:, :, 0] > 0]
    mean = real.mean(axis=0, dtype=float)
    # The sum of squares is exact, and converts small parts of the pictures at a time.
    squares = np.einsum("fb,fb->b", real, real, dtype=float) / len(real)
    deviation = np.sqrt(np.maximum(squares - mean**2, 1)).astype(np.float32)
    mean = mean.astype(np.float32)
    values = np.pad(values, [(0, 0), (0, max(0, FRAMES - values.shape[1])), (0, 0)])
    generator = Generator(len(mean), classes)
    shape = BATCH, FRAMES, len(mean)
    state = _start(generator, int(rng.integers(1 << 31)))
    losses, columns = [], np.arange(FRAMES)
    for number in progress.bar(title, steps, "steps", range(steps)):
        rows = rng.integers(len(values), size=BATCH)
        starts = rng.integers(np.maximum(widths[rows] - FRAMES, 0) + 1)
        crops = values[rows[:, None], starts[:, None] + columns]
        place, noise = (rng.standard_normal(each, np.float32) for each in (BATCH, shape))
        batch = (crops - mean) / deviation, crops[:, :, 0] > 0, labels[rows].astype(np.int32)
        rate = LEARNING_RATE * rate_share(number, steps)
        state, loss = _step(generator, state, rate, *batch, place, noise)
        losses.append(float(loss))
        if not np.isfinite(losses[-1]):
            raise FloatingPointError(f"{title}: the loss at step {len(losses)} is {losses[-1]}")
    return Fitted(generator, state[0], mean, deviation, losses)


def draw(
    fitted: Fitted, labels: np.ndarray, widths: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draws pictures.

    Args:
        fitted: The generator.
        labels: int [m], the class of each picture, m >= 1.
        widths: int [m], the columns of each; `FRAMES` at most are drawn.
        rng: Draws the noise that pictures begin with.

    Returns:
        uint8 [m, bands, widest], timelines that are 0 after their ends.
    """
    widths, parts = np.minimum(widths, FRAMES), []
    shape = DRAWN_AT_ONCE, FRAMES, len(fitted.mean)
    for start in range(0, len(labels), DRAWN_AT_ONCE):
        some = np.minimum(np.arange(start, start + DRAWN_AT_ONCE), len(labels) - 1)
        seen = np.arange(FRAMES) < widths[some, None]
        noise = rng.standard_normal(shape, np.float32)
        of_some = labels[some].astype(np.int32)
        x = np.asarray(_follow(fitted.generator, fitted.params, seen, of_some, noise))
        values = np.clip(np.rint(x * fitted.deviation + fitted.mean), 1, 255) * seen[..., None]
        parts.append(np.moveaxis(values.astype(np.uint8), 2, 1))
    return np.concatenate(parts)[: len(labels), :, : max(widths)]


@functools.partial(jax.jit, static_argnums=0)
def _start(generator: Generator, seed: int) -> tuple[Any, Any]:
    """Returns the parameters that training begins with, and the optimiser's state."""
    x, seen = jnp.zeros((1, FRAMES, generator.bands)), jnp.ones((1, FRAMES))
    params = generator.init(jax.random.key(seed), x, seen, jnp.ones(1), jnp.zeros(1, jnp.int32))
    return params, ADAM.init(params)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def _step(
    generator: Generator,
    state: tuple[Any, Any],
    rate: jax.Array,
    x: jax.Array,
    seen: jax.Array,
    labels: jax.Array,
    place: jax.Array,
    noise: jax.Array,
) -> tuple[tuple[Any, Any], jax.Array]:
    """Takes a step of training; columns after a timeline's end count for nothing."""
    params, opt_state = state
    seen = seen.astype(jnp.float32)
    x = x * seen[..., None]
    place = jax.nn.sigmoid(SPREAD * place - SPREAD)[:, None, None]
    between = noise + place * (x - noise)

    def loss_fn(params):
        guess = generator.apply(params, between, seen, place[:, 0, 0], labels)
        errors = jnp.square((guess - x) / jnp.maximum(1 - place, LEAST_LEFT))  # of the velocity
        return jnp.sum(jnp.mean(errors, axis=2) * seen) / jnp.sum(seen)

    loss, gradients = jax.value_and_grad(loss_fn)(params)
    updates, opt_state = ADAM.update(gradients, opt_state)
    updates = jax.tree.map(lambda update: -rate * update, updates)
    return (optax.apply_updates(params, updates), opt_state), loss


@functools.partial(jax.jit, static_argnums=0)
def _follow(
    generator: Generator, params: Any, seen: jax.Array, labels: jax.Array, noise: jax.Array
) -> jax.Array:
    """Moves noise to pictures, float32 [m, FRAMES, bands]."""
    seen = seen.astype(jnp.float32)

    def velocity(x, place):
        guess = generator.apply(params, x, seen, jnp.full(len(x), place), labels)
        return (guess - x) / (1 - place)

    def move(number, x):
        half = x + velocity(x, number / MOVES) / (2 * MOVES)
        return x + velocity(half, (number + 0.5) / MOVES) / MOVES

    return jax.lax.fori_loop(0, MOVES, move, noise)
