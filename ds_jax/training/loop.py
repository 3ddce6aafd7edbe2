"""Trains networks on folds, one after the other or one on each device."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
import optax

from ds_jax.config import adapts, is_scheduled
from ds_jax.data import enrolment
from ds_jax.data.corpus import Corpus
from ds_jax.data.folds import Fold
from ds_jax.evaluation import predictions
from ds_jax.evaluation.predictions import Predicted
from ds_jax.models.create import Network, create_network
from ds_jax.models.timeline import TimelineNetwork
from ds_jax.runtime import processes, progress, shutdown
from ds_jax.runtime.files import path_text
from ds_jax.training import inference, parallel
from ds_jax.training.fold import FoldState
from ds_jax.training.input_pipeline import Inputs, create_inputs
from ds_jax.training.parallel import ONE_FOLD_PER_DEVICE, ONE_MODEL, Layout, read_behind
from ds_jax.training.step import (
    TrainState,
    class_weights,
    create_optimiser,
    create_predict_step,
    create_state,
    create_train_step,
)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class TrainingSetup:
    """What all folds of a run share, so that nothing is compiled or computed twice.

    Attributes:
        config: The run's config.
        corpus: The corpus that is divided into the folds.
        pretrained: The backbone's ImageNet weights, by layer; empty for networks on features.
        inputs: The corpus as the steps read it.
        optimiser: The optimiser of all folds.
        measured: What the networks' `scaling` reads: the corpus' inputs, or the moments of each;
            None where each row has its own scaling. Rows that were generated are not measured.
        steps: The training step and the prediction step of each layout that was needed.
    """

    config: ml_collections.ConfigDict
    corpus: Corpus
    pretrained: Mapping
    inputs: Inputs
    optimiser: optax.GradientTransformation
    measured: Any
    steps: dict[Layout, tuple[Callable, Callable]] = dataclasses.field(default_factory=dict)

    def network(self, layout: Layout) -> Network:
        """Creates the network for a layout."""
        return create_network(self.config, layout.axis_name, parallel.compute_dtype())

    def steps_for(self, layout: Layout) -> tuple[Callable, Callable]:
        """Returns the training step and the prediction step for a layout.

        They compile when they are first called.
        """
        if layout not in self.steps:
            parallel.say_compiling("the network")
            network = self.network(layout)
            self.steps[layout] = (
                create_train_step(
                    network,
                    self.optimiser,
                    self.inputs,
                    layout,
                    self.config.seeds,
                    self.config.train.get("label_smoothing", 0.0),
                    self.config.train.get("mixup", 0.0),
                ),
                create_predict_step(network, self.inputs, layout),
            )
        return self.steps[layout]

    def first_state(self, layout: Layout, fold: FoldState) -> TrainState:
        """Returns the state that the training of a fold begins with, on the host."""
        network, train, rows = self.network(layout), self.config.train, fold.rows["train"]
        rng = jax.random.fold_in(jax.random.key(self.config.seeds.initialisation), fold.number)
        measured = {}
        if self.measured is not None:
            known = len(jax.tree.leaves(self.measured)[0])
            measured = network.scaling(self.measured, rows[rows < known])
        trained = [name in fold.trained for name in self.corpus.classes]
        measured |= {"trained_classes": {"trained": np.asarray(trained, np.float32)}}
        schedule = ()
        if is_scheduled(train):
            steps = train.epochs * -(-len(rows) // train.batch_size)
            labels, classes = self.corpus.labels[rows], len(self.corpus.classes)
            schedule = steps, class_weights(labels, classes)
        return create_state(network, self.optimiser, self.pretrained, rng, measured, *schedule)


def create_setup(
    config: ml_collections.ConfigDict, corpus: Corpus, pretrained: Mapping
) -> TrainingSetup:
    """Puts the corpus on the devices, or prepares to stream it.

    What frozen blocks make of it is kept with the corpus, for experiments that differ in their
    seeds or their training alone.

    Args:
        config: The run's config.
        corpus: The corpus, represented as the config says.
        pretrained: The backbone's ImageNet weights, by layer, see `pretrained.load`; empty for
            networks on features.
    """
    if adapts(config) and "features" in config:
        standardised = enrolment.standardise_speakers(corpus.inputs, corpus)
        corpus = dataclasses.replace(corpus, inputs=standardised)
    network = create_network(config, dtype=parallel.compute_dtype())
    ported = network.port(pretrained)
    fields = ("backbone", "freeze", "gates", "heads", "head")
    parts = {name: config.model.get(name) for name in fields}
    key = str([config.get("picture"), parts, config.get("weights")])
    if key not in corpus.computed:
        corpus.computed.clear()
        inputs, measured = (
            create_inputs(network, ported, corpus.inputs, corpus.labels),
            corpus.inputs,
        )
        if isinstance(network, TimelineNetwork):
            measured = inference.moments(network, ported, inputs, config.train.batch_size)
        corpus.computed[key] = inputs, measured
    inputs, measured = corpus.computed[key]
    if adapts(config) and "picture" in config:
        inputs, measured = inference.adapt(network, inputs, measured, corpus), None
    return TrainingSetup(
        config=config,
        corpus=corpus,
        pretrained=pretrained,
        inputs=inputs,
        optimiser=create_optimiser(config.train, ported),
        measured=measured,
    )


def extend(setup: TrainingSetup, corpus: Corpus) -> TrainingSetup:
    """Returns a setup for its corpus with more rows at the end, which no scaling measures."""
    network = create_network(setup.config, dtype=parallel.compute_dtype())
    create = functools.partial(create_inputs, network, network.port(setup.pretrained))
    base, labels, first = setup.inputs, corpus.labels, len(setup.corpus.owners)
    inputs = None
    if not base.streamed:
        inputs = base.join(create(corpus.inputs[first:], labels[first:]))
    if inputs is None:
        inputs = create(corpus.inputs, labels)
    alike = (inputs.method, inputs.streamed) == (base.method, base.streamed)
    steps = setup.steps if alike else {}
    return dataclasses.replace(setup, corpus=corpus, inputs=inputs, steps=steps)


def train_folds(
    setup: TrainingSetup, folds: Mapping[int, Fold], workdir: Path
) -> Iterator[tuple[int, Predicted | None]]:
    """Trains on folds, or goes on where an earlier call was stopped.

    Args:
        setup: What the folds share.
        folds: The folds by their numbers, which seed what is random in them.
        workdir: The folder of the run; checkpoints and metrics go to each fold's folder in it.

    Yields:
        A fold's number, and what the model of its best epoch predicts for its test utterances,
        ordered by name; None without any. Of several processes the one that is to write the
        predictions yields them.

    Raises:
        FloatingPointError: A loss is not finite; the error names the last good checkpoint.
    """
    processes.say(
        f"learning curves: pip install tensorboard && tensorboard --logdir={path_text(workdir)}"
    )
    apart, together = parallel.assign_folds(list(folds), setup.config.parallel)
    # A device that a fold has freed early takes another; several processes would have to agree.
    spare = together if jax.process_count() == 1 else []
    yield from _train(setup, ONE_FOLD_PER_DEVICE, folds, apart, spare, workdir)
    yield from _train(setup, ONE_MODEL, folds, together, [], workdir)


def _train(
    setup: TrainingSetup,
    layout: Layout,
    folds: Mapping[int, Fold],
    waiting: list[int],
    spare: list[int],
    workdir: Path,
) -> Iterator[tuple[int, Predicted | None]]:
    """Trains as many folds at a time as a layout has replicas; a fold that is over makes room.

    All folds of `waiting` are trained, and as many of `spare` as find room while others train.
    """
    train_length, predict_length = _lengths(setup, layout, folds)
    running: dict[int, FoldState] = {}  # by the replica that trains it
    states = None  # of all replicas, on the devices
    with shutdown.defer_sigterm(), contextlib.ExitStack() as opened:
        while waiting or running:
            if layout.any_process(shutdown.sigterm_received()):
                raise shutdown.Interrupted
            for replica in set(range(layout.replicas)) - set(running):
                if not waiting and not (spare and running):
                    break
                number = (waiting or spare).pop(0)
                fold = FoldState(
                    setup.config, setup.corpus, number, folds[number], workdir, layout.shared
                )
                opened.callback(fold.close)
                running[replica] = fold
                state = fold.restore(setup.first_state(layout, fold))
                if states is None:
                    states = layout.place([state] * layout.replicas)
                else:
                    states = layout.replace(states, replica, state)

            learning = {replica: fold for replica, fold in running.items() if not fold.is_over}
            if learning:
                states = _run_epoch(setup, layout, learning, states, train_length)
                rows = {replica: fold.selection_rows for replica, fold in learning.items()}
                some = {replica: fold.measured_rows for replica, fold in learning.items()}
                try:
                    # A prediction looks for SIGTERM, but here there may be nothing to predict.
                    unselected = setup.config.select_on == "none"
                    if unselected and layout.any_process(shutdown.sigterm_received()):
                        raise shutdown.Interrupted
                    predicted = _predict(setup, layout, states.model, rows, predict_length)
                    measured = _predict(setup, layout, states.model, some, predict_length)
                except shutdown.Interrupted:
                    for replica, fold in learning.items():
                        fold.save(layout.take(states, replica))
                    raise
                for replica, fold in learning.items():
                    state = layout.take(states, replica)
                    fold.end_epoch(state, predicted.get(replica), measured.get(replica))

            over = {replica: fold for replica, fold in running.items() if fold.is_over}
            variables = states.model
            for replica, fold in over.items():
                best = fold.finish(layout.take(states, replica))
                variables = layout.replace(variables, replica, best)
            rows = {replica: fold.rows["test"] for replica, fold in over.items()}
            predicted = _predict(setup, layout, variables, rows, predict_length)
            for replica, fold in over.items():
                running.pop(replica).close()
                if fold.writes:
                    yield fold.number, predicted.get(replica)


def _lengths(setup: TrainingSetup, layout: Layout, folds: Mapping[int, Fold]) -> tuple[int, int]:
    """Batches of a dispatch in training and in prediction, enough for the longest of all folds."""
    corpus, size = setup.corpus, setup.config.train.batch_size
    rows_of = dict.fromkeys(("dev", "test"), corpus.rows_of) | {"train": corpus.training_rows}

    def length(*splits: str) -> int:
        lengths = [
            len(rows_of[split](fold.splits[split])) for fold in folds.values() for split in splits
        ]
        longest = max(lengths, default=0)
        return setup.inputs.length(-(-longest // size), layout.width(size))

    selection = {setup.config.select_on} - {"none"}
    return length("train"), length("test", *selection)


def _run_epoch(
    setup: TrainingSetup,
    layout: Layout,
    folds: Mapping[int, FoldState],
    states: TrainState,
    length: int,
) -> TrainState:
    """Takes a step for each batch of an epoch, until SIGTERM comes; returns the states then.

    The losses of the steps, and the time that they took, are noted in each fold.
    """
    width, (train_step, _) = layout.width(setup.config.train.batch_size), setup.steps_for(layout)
    batches = [[]] * layout.replicas
    numbers, scales = np.zeros(layout.replicas, np.int32), np.zeros(layout.replicas, np.float32)
    for replica, fold in folds.items():
        batches[replica] = fold.batches()
        numbers[replica], scales[replica] = fold.number, fold.learning_rate_scale
    numbers, scales = layout.stack(numbers), layout.stack(scales)
    steps, shown = max(map(len, batches)), processes.is_first_process()

    def dispatches():
        nonlocal states
        for chunk in setup.inputs.chunks(layout, batches, length, width):
            states, loss = train_step(states, numbers, scales, *chunk)
            yield loss
            if layout.any_process(shutdown.sigterm_received()):
                return

    losses, began = [np.empty((layout.replicas, 0), np.float32)], time.monotonic()
    with progress.bar(_title(folds), steps, "steps", shown=shown) as bar:
        for loss in read_behind(dispatches()):
            losses.append(loss.reshape(layout.replicas, length))
            bar.update(min(length, steps - bar.n))
    losses, seconds = np.concatenate(losses, axis=1), time.monotonic() - began
    for replica, fold in folds.items():
        fold.losses = np.append(fold.losses, losses[replica, : len(batches[replica])])
        fold.seconds += seconds
    return states


def _title(folds: Mapping[int, FoldState]) -> str:
    """Names the progress bar of an epoch."""
    if len(folds) == 1:
        (fold,) = folds.values()
        return f"fold {fold.number} epoch {fold.epoch + 1}"
    numbers = [fold.number for fold in folds.values()]
    return f"an epoch of {len(numbers)} folds, {min(numbers)} to {max(numbers)}"


def _predict(
    setup: TrainingSetup,
    layout: Layout,
    variables: Mapping,
    rows: Mapping[int, np.ndarray],
    length: int,
) -> dict[int, Predicted]:
    """Lets some replicas predict rows of the corpus' inputs, utterance by utterance.

    Raises:
        Interrupted: SIGTERM came, maybe in the steps before.
    """
    wanted = [rows.get(replica, np.empty(0, np.int32)) for replica in range(layout.replicas)]
    _, predict_step = setup.steps_for(layout)
    size = setup.config.train.batch_size
    outputs = inference.predict(predict_step, variables, setup.inputs, layout, wanted, size, length)
    return {
        replica: predictions.average_windows(predicted, setup.corpus, wanted[replica])
        for replica, predicted in enumerate(outputs)
        if predicted is not None
    }
