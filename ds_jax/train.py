"""Trains a network on one fold."""

import dataclasses
import functools
import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import flax.struct
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import tensorboardX
from tqdm import tqdm

from ds_jax import devices, inference, metrics
from ds_jax.checkpoints import Checkpoints
from ds_jax.corpus import LABELS, Corpus
from ds_jax.files import write_text
from ds_jax.folds import Fold

PLATEAU_FACTOR = 0.1  # what a plateau multiplies the learning rates by (Gorriz et al., 2019)


class TrainState(flax.struct.PyTreeNode):
    """What a step changes.

    Attributes:
        step: int32, steps taken.
        params: All parameters, frozen ones included.
        batch_stats: Running statistics of batch normalisation.
        opt_state: Of the optimiser.
    """

    step: jax.Array
    params: Mapping
    batch_stats: Mapping
    opt_state: optax.OptState

    @property
    def variables(self) -> inference.Variables:
        """What the network is applied with."""
        return {"params": self.params, "batch_stats": self.batch_stats}


@dataclasses.dataclass
class Progress:
    """What the loop remembers between epochs, apart from the state.

    Attributes:
        learning_rate_scale: What plateaus have multiplied the learning rates by.
        best_loss: The lowest so far, on the side that chooses the epoch.
        epochs_without_gain: Since then.
        history: The rows of metrics.jsonl.
    """

    learning_rate_scale: float = 1.0
    best_loss: float = math.inf
    epochs_without_gain: int = 0
    history: list[dict] = dataclasses.field(default_factory=list)

    def record(self, row: dict, loss: float, plateau_patience: int) -> None:
        """Adds an epoch, and lowers the learning rates when the loss has stopped falling."""
        self.history.append(row)
        if loss < self.best_loss:
            self.best_loss, self.epochs_without_gain = loss, 0
            return
        self.epochs_without_gain += 1
        if self.epochs_without_gain % plateau_patience == 0:
            self.learning_rate_scale *= PLATEAU_FACTOR


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What all folds of a run share, so that nothing is compiled or computed twice.

    Attributes:
        config: The run's config.
        corpus: In memory.
        network: Of the config.
        pretrained: VGG16's ImageNet weights, by layer.
        inputs: The corpus on the devices, see `inference.resident_inputs`.
        labels: int32 [n], on the devices.
        optimiser: Of `create_optimiser`.
        train_step: `(state, inputs, labels, scale, rng, rows, mask) -> state, loss`.
        predict_step: Of `inference.create_predict_step`.
    """

    config: ml_collections.ConfigDict
    corpus: Corpus
    network: inference.Network
    pretrained: Mapping
    inputs: jax.Array
    labels: jax.Array
    optimiser: optax.GradientTransformation
    train_step: Callable
    predict_step: Callable


def create_experiment(
    config: ml_collections.ConfigDict, corpus: Corpus, pretrained: Mapping
) -> Experiment:
    """Builds the network and its steps and puts the corpus on the devices.

    Args:
        config: The run's config.
        corpus: In memory.
        pretrained: VGG16's ImageNet weights, by layer, see `weights.load`; empty for features.
    """
    network = inference.create_network(config)
    optimiser = create_optimiser(network, config.train)
    return Experiment(
        config,
        corpus,
        network,
        pretrained,
        inference.resident_inputs(network, {"vgg16": pretrained}, corpus.inputs),
        devices.replicate(corpus.labels),
        optimiser,
        create_train_step(network, optimiser),
        inference.create_predict_step(network),
    )


def create_optimiser(
    network: inference.Network, train: ml_collections.ConfigDict
) -> optax.GradientTransformation:
    """Adam with one learning rate for ported layers, another for new ones, none for frozen ones."""
    frozen = inference.frozen_layers(network)

    def group(path, _):
        names = [entry.key for entry in path]
        if any(name in frozen for name in names):
            return "frozen"
        return "pretrained" if {"vgg16", "fully_connected"} & set(names) else "new"

    optimisers = {"new": optax.adam(train.new_learning_rate), "frozen": optax.set_to_zero()}
    if "pretrained_learning_rate" in train:
        optimisers["pretrained"] = optax.adam(train.pretrained_learning_rate)
    return optax.multi_transform(
        optimisers, lambda params: jax.tree_util.tree_map_with_path(group, params)
    )


def create_state(
    network: inference.Network,
    optimiser: optax.GradientTransformation,
    pretrained: Mapping,
    rng: jax.Array,
    scaling: Mapping[str, np.ndarray],
) -> TrainState:
    """Initialises the network, with ported weights where there are some.

    Args:
        network: To be trained.
        optimiser: Of `create_optimiser`.
        pretrained: VGG16's ImageNet weights, by layer.
        rng: Of the new layers.
        scaling: What the network's `scaling` measured on the training side.
    """
    shapes = inference.abstract_variables(network)["params"]
    params, batch_stats = _new_layers(network, rng)
    if "vgg16" in shapes:
        params["vgg16"] = {name: pretrained[name] for name in shapes["vgg16"]}
        if "fully_connected" in shapes["head"]:
            params["head"]["fully_connected"] = {name: pretrained[name] for name in ("fc1", "fc2")}
    return TrainState(jnp.int32(0), params, batch_stats | scaling, optimiser.init(params))


@functools.partial(jax.jit, static_argnums=0)
def _new_layers(network: inference.Network, rng: jax.Array) -> tuple[dict, dict]:
    """Draws the layers that nothing is ported to; drawing the others takes seconds to compile."""
    inputs = jnp.zeros((1, *network.input_shape), network.input_dtype)
    variables = network.init(rng, inputs, jnp.ones(1))
    params = {name: layer for name, layer in variables["params"].items() if name != "vgg16"}
    if "head" in params:
        kept = params["head"].items()
        params["head"] = {name: layer for name, layer in kept if name != "fully_connected"}
    return params, dict(variables.get("batch_stats", {}))


def create_train_step(
    network: inference.Network, optimiser: optax.GradientTransformation
) -> Callable:
    """Compiles, once, `(state, inputs, labels, scale, rng, rows, mask) -> state, loss`."""
    method = "upper" if network.keeps_lower else "__call__"

    def train_step(state, inputs, labels, scale, rng, rows, mask):
        # Divided by the rows of all devices together, since their numbers of real rows differ.
        count = jax.lax.psum(jnp.sum(mask), devices.AXIS)
        positions = jax.lax.axis_index(devices.AXIS) * len(rows) + jnp.arange(len(rows))
        step_rng = jax.random.fold_in(rng, state.step)
        rngs = jax.vmap(lambda position: jax.random.fold_in(step_rng, position))(positions)

        def loss_fn(params):
            outputs, updated = network.apply(
                {"params": params, "batch_stats": state.batch_stats},
                inputs[rows],
                mask,
                True,
                rngs,
                method=method,
                mutable=["batch_stats"],
            )
            return jnp.sum(outputs.losses(labels[rows]) * mask) / count, updated

        (loss, updated), gradients = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        loss, gradients = jax.lax.psum((loss, gradients), devices.AXIS)
        updates, opt_state = optimiser.update(gradients, state.opt_state, state.params)
        updates = jax.tree.map(lambda update: scale * update, updates)
        params = optax.apply_updates(state.params, updates)
        batch_stats = updated.get("batch_stats", {})
        return TrainState(state.step + 1, params, batch_stats, opt_state), loss

    return devices.parallel(train_step, whole=5, spread=2, donate=True)


def train_fold(
    experiment: Experiment, number: int, fold: Fold, directory: Path
) -> inference.Judgement | None:
    """Trains on one fold, or goes on where an earlier call was stopped.

    Args:
        experiment: What the folds share.
        number: The fold's number, from 0; it seeds what is random in the fold.
        fold: Who trains, who chooses the epoch, who tests.
        directory: Where checkpoints and metrics go.

    Returns:
        What the best epoch says of the fold's test utterances, ordered by name; None without any.

    Raises:
        FloatingPointError: A loss is not finite; the last good checkpoint is named.
    """
    config, corpus = experiment.config, experiment.corpus
    rng = jax.random.fold_in(jax.random.key(config.seed), number)
    rows = corpus.rows_of(fold.train)
    scaling = experiment.network.scaling(corpus.inputs[rows])
    state = create_state(
        experiment.network, experiment.optimiser, experiment.pretrained, rng, scaling
    )
    state, rng = devices.replicate((state, rng))
    progress = Progress()
    chooser = "test" if config.select_on == "test" else "dev"
    chooser_rows = corpus.rows_of(getattr(fold, chooser))
    last_epoch = config.train.epochs
    with Checkpoints(directory / "checkpoints", trains=True) as checkpoints:
        start = checkpoints.latest or 0
        if start:
            state, progress = _resume(checkpoints, start, state)
            _write_history(directory, progress)  # it may have been stopped just before
        writer = _event_writer(directory, start)
        for epoch in range(start + 1, last_epoch + 1):
            if progress.epochs_without_gain >= config.train.stop_patience:
                break
            began = time.monotonic()
            order = np.random.default_rng([config.seed, number, epoch]).permutation(rows)
            state, losses = _train_epoch(
                experiment, state, rng, order, progress.learning_rate_scale, f"epoch {epoch}"
            )
            rate = len(order) / (time.monotonic() - began)
            chosen = _judge(experiment, state.variables, chooser_rows)
            scores = _scores(chosen, corpus, chooser_rows)
            seen = np.append(losses, scores["loss"])  # the last step may have spoilt the network
            _check_finite(seen, int(state.step), checkpoints)
            row = {"epoch": epoch, "step": int(state.step), "train_loss": float(np.mean(losses))}
            row |= {f"{chooser}_{name}": value for name, value in scores.items()}
            row["learning_rate_scale"] = progress.learning_rate_scale
            seconds = time.monotonic() - began
            row |= {"inputs_per_second": rate, "seconds": seconds}
            progress.record(row, scores["loss"], config.train.plateau_patience)
            checkpoints.save(
                epoch,
                state.variables,
                {"step": state.step, "opt_state": state.opt_state},
                scores["loss"],
                config.to_dict(),
                dataclasses.asdict(progress),
            )
            _log(writer, directory, progress)
            devices.say(
                f"fold {number} epoch {epoch}/{last_epoch}  loss {row['train_loss']:.4f}  "
                f"{chooser} loss {scores['loss']:.4f}  UAR {scores['uar']:.3f}  "
                f"{rate:.1f} inputs/s  at most {_clock(seconds * (last_epoch - epoch))} left"
            )
        if writer is not None:
            writer.close()
        if not fold.test:
            return None
        best = checkpoints.load(checkpoints.best, variables=state.variables)["variables"]
    test_rows = corpus.rows_of(fold.test)
    return _judge(experiment, best, test_rows)


def _judge(
    experiment: Experiment, variables: inference.Variables, rows: np.ndarray
) -> inference.Judgement:
    judgement = inference.judge(
        experiment.predict_step,
        variables,
        experiment.inputs,
        rows,
        experiment.config.train.batch_size,
    )
    return inference.by_utterance(judgement, experiment.corpus, rows)


def _train_epoch(
    experiment: Experiment,
    state: TrainState,
    rng: jax.Array,
    order: np.ndarray,
    scale: float,
    title: str,
) -> tuple[TrainState, np.ndarray]:
    """Takes one step for each batch of `order`; returns the state and all losses."""
    size = experiment.config.train.batch_size
    width = devices.batch_width(size)
    scale = devices.replicate(jnp.float32(scale))
    losses = []
    starts = range(0, len(order), size)
    shown = None if devices.is_first_process() else True  # tqdm: None shows on a terminal only
    for start in tqdm(starts, title, leave=False, disable=shown):
        rows, mask = devices.spread(order[start : start + size], width)
        state, loss = experiment.train_step(
            state, experiment.inputs, experiment.labels, scale, rng, rows, mask
        )
        losses.append(loss)  # read when the epoch is over: the device never waits for the host
    return state, np.asarray(jax.device_get(losses))


def _scores(judgement: inference.Judgement, corpus: Corpus, rows: np.ndarray) -> dict[str, float]:
    """Loss, accuracy and UAR over the utterances that `rows` were cut from."""
    owners = np.unique(corpus.owners[rows])
    labels = np.asarray([LABELS.index(corpus.utterances[owner].label) for owner in owners])
    right = judgement.probabilities[np.arange(len(labels)), labels]
    matrix = metrics.confusion(labels, judgement.probabilities.argmax(axis=1))
    return {
        "loss": float(-np.mean(np.log(np.maximum(right, np.finfo(np.float64).tiny)))),
        "accuracy": float(metrics.accuracy(matrix)),
        "uar": float(metrics.uar(matrix)),
    }


def _resume(checkpoints: Checkpoints, epoch: int, state: TrainState) -> tuple[TrainState, Progress]:
    optimizer = {"step": state.step, "opt_state": state.opt_state}
    loaded = checkpoints.load(epoch, variables=state.variables, optimizer=optimizer)
    progress = Progress(**checkpoints.metadata(epoch)["progress"])
    devices.say(f"going on after epoch {epoch} from {checkpoints.directory}")
    return TrainState(**loaded["optimizer"], **loaded["variables"]), progress


def _check_finite(losses: np.ndarray, last_step: int, checkpoints: Checkpoints) -> None:
    """Checks an epoch's losses, one a step, and the one of the chooser after the last step."""
    bad = np.flatnonzero(~np.isfinite(losses))
    if len(bad):
        step = min(last_step - len(losses) + 2 + bad[0], last_step)
        latest = checkpoints.latest
        good = f"epoch {latest} in {checkpoints.directory}" if latest else "none was saved yet"
        raise FloatingPointError(
            f"the loss at step {step} is {losses[bad[0]]}; last good checkpoint: {good}. In "
            "another workdir, lower train.pretrained_learning_rate and train.new_learning_rate."
        )


def _event_writer(directory: Path, epoch: int) -> tensorboardX.SummaryWriter | None:
    if not devices.is_first_process():
        return None
    return tensorboardX.SummaryWriter(str(directory / "tensorboard"), purge_step=epoch + 1)


def _log(writer: tensorboardX.SummaryWriter | None, directory: Path, progress: Progress) -> None:
    _write_history(directory, progress)
    row = progress.history[-1]
    if writer is not None:
        for name, value in row.items():
            if name != "epoch":
                writer.add_scalar(name, value, row["epoch"])


def _write_history(directory: Path, progress: Progress) -> None:
    if devices.is_first_process():
        lines = [json.dumps(row) + "\n" for row in progress.history]
        write_text(directory / "metrics.jsonl", "".join(lines))


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
