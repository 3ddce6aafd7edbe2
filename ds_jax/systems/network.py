"""Networks as systems: trained by epochs, and loaded from finished models to predict."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from ds_jax import config as configuration
from ds_jax.config import adapts
from ds_jax.data import enrolment
from ds_jax.data.corpus import Corpus
from ds_jax.evaluation.predictions import Predicted, mean, probabilities_of
from ds_jax.models.backbones import built, needs_full_weights
from ds_jax.models.create import (
    Variables,
    abstract_variables,
    create_network,
    merge_params,
    split_frozen,
)
from ds_jax.models.layers import Network
from ds_jax.models.timeline import TimelineNetwork
from ds_jax.systems.base import generates
from ds_jax.training import parallel
from ds_jax.training.checkpoints import load_variables, read_card
from ds_jax.training.parallel import ONE_MODEL


def fit(config: ConfigDict, corpus: Corpus, protocol: str) -> Callable:
    """Puts the corpus on the devices; see `base.Implementation`."""
    from ds_jax.training import loop  # here, since answers of finished models need no training

    weights = load_weights(config) if "picture" in config else {}
    setup = loop.create_setup(config, corpus, weights)
    if generates(config):
        from ds_jax.training import generate

        return functools.partial(generate.train_folds, setup)
    return functools.partial(loop.train_folds, setup)


def load_weights(config: ConfigDict) -> dict[str, dict[str, np.ndarray]]:
    """Loads the parameters that a config's backbone begins with, see `pretrained.load`."""
    from ds_jax.models import pretrained  # here, for the same reason

    return pretrained.load(built(config), config.weights, full=needs_full_weights(config))


def load(directory: Path) -> tuple[ConfigDict, Network, Variables]:
    """Loads the finished model of a fold.

    Args:
        directory: A fold's `checkpoints` folder.

    Returns:
        The config that it was trained by, its network, and its variables on the host.

    Raises:
        FileNotFoundError: There is no finished model in the folder.
        ValueError: The model is damaged, of another label set, or of another network.
    """
    config = ConfigDict(configuration.complete(read_card(directory)["config"]))
    network = create_network(config, ONE_MODEL.axis_name, parallel.compute_dtype())
    return config, network, load_variables(directory, like=abstract_variables(network))


def predict(rows: Mapping[Path, np.ndarray], corpus: Corpus) -> Iterator[tuple[Path, Predicted]]:
    """Predicts with the networks of a run; see `base.Implementation`."""
    from ds_jax.training import inference
    from ds_jax.training.step import create_predict_step

    inputs, predict_step = None, None
    for checkpoints, of_model in rows.items():
        config, network, variables = load(checkpoints)
        batch_size = config.train.batch_size
        if inputs is None:  # the frozen blocks are pretrained, and so alike in all folds of a run
            inputs = _inputs(config, network, variables["params"], corpus)
            predict_step = create_predict_step(network, inputs, ONE_MODEL)
            batches = max(-(-len(some) // batch_size) for some in rows.values())
            length = inputs.length(batches, ONE_MODEL.width(batch_size))
        variables = ONE_MODEL.place([variables])
        [predicted] = inference.predict(
            predict_step, variables, inputs, ONE_MODEL, [of_model], batch_size, length
        )
        yield checkpoints, predicted


def _inputs(config: ConfigDict, network: Network, params: Mapping, corpus: Corpus) -> Any:
    """Puts a corpus on the devices as `Inputs`; its speakers are standardised as in training."""
    from ds_jax.training import inference
    from ds_jax.training.input_pipeline import create_inputs

    if not adapts(config):
        return create_inputs(network, params, corpus.inputs)
    if not isinstance(network, TimelineNetwork):
        return create_inputs(network, params, enrolment.standardise_speakers(corpus.inputs, corpus))
    inputs = create_inputs(network, params, corpus.inputs)
    measured = inference.moments(network, params, inputs, config.train.batch_size)
    return inference.adapt(network, inputs, measured, corpus)


def load_measure(checkpoints: Sequence[Path]) -> Callable:
    """Loads what measures inputs for an enrolment; see `base.Implementation`."""
    _, network, variables = load(checkpoints[0])
    if not isinstance(network, TimelineNetwork):
        return lambda inputs, size: lambda: enrolment.frames(inputs)
    frozen = parallel.replicate(split_frozen(network, variables["params"])[0])

    def moments(params, inputs):
        x = network.apply({"params": params}, inputs, method="lower")
        return gather(network.apply({"params": params}, x, method="moments"))

    moments = ONE_MODEL.parallel(moments, models=1, whole=0, spread=1)
    return batched(lambda inputs, mask: moments(frozen, inputs))


def load_ensemble(
    checkpoints: Sequence[Path], enrolled: Any = None
) -> Callable[[np.ndarray, int], Callable[[], Predicted]]:
    """Loads the networks of a run, all at once; see `base.Implementation`.

    The output of the frozen blocks is computed once for all networks: these blocks are pretrained,
    and so alike in all folds of a run.
    """
    network, shared, ensemble, usual = None, {}, [], None
    for directory in checkpoints:
        _, network, variables = load(directory)
        frozen, trained = split_frozen(network, variables["params"])
        shared, batch_stats = shared or parallel.replicate(frozen), variables["batch_stats"]
        if enrolled is not None and isinstance(network, TimelineNetwork):
            batch_stats = {**batch_stats, **network.scaling(enrolled, slice(None))}
        ensemble.append(ONE_MODEL.place([{"params": trained, "batch_stats": batch_stats}]))
    if enrolled is not None and not isinstance(network, TimelineNetwork):
        usual = enrolment.measure(enrolled)

    def lower(params, inputs):
        return network.apply({"params": params}, inputs, method="lower")

    def upper(frozen, variables, x, mask):
        variables = {**variables, "params": merge_params(frozen, variables["params"])}
        outputs = network.apply(variables, x, mask, method="upper")
        return gather((outputs.logits, outputs.head_logits, outputs.gates))

    lower = ONE_MODEL.parallel(lower, models=1, whole=0, spread=1, stays=True)
    upper = ONE_MODEL.parallel(upper, models=2, whole=0, spread=2)

    def forward(inputs, mask):
        x = lower(shared, inputs)
        return [upper(shared, variables, x, mask) for variables in ensemble]

    start = batched(forward)

    def start_ensemble(inputs, size):
        wait = start(inputs if usual is None else enrolment.standardise(inputs, usual), size)
        return lambda: mean([probabilities_of(*outputs) for outputs in wait()])

    return start_ensemble


def batched(forward: Callable[[jax.Array, np.ndarray], Any]) -> Callable:
    """Lets a function that is mapped over devices take a batch of any number of rows.

    Args:
        forward: Maps rows [devices, width, ...] and a mask float32 [devices, width], which is 0
            for padding, to a tree of arrays with a row for each of the rows in all.

    Returns:
        A function of inputs [n, ...] and of the number of rows that they are padded to. It starts
        the computation, and returns a function that waits for its end and returns the tree with
        arrays [n, ...] on the host. Each number of rows is compiled once.
    """

    def start(inputs, size):
        rows, mask, _ = ONE_MODEL.spread([[np.arange(len(inputs))]], 1, ONE_MODEL.width(size))
        outputs = forward(ONE_MODEL.put(inputs[rows[:, 0]]), mask[:, 0])
        return lambda: jax.tree.map(lambda x: np.asarray(x)[: len(inputs)], outputs)

    return start


def gather(tree: Any) -> Any:
    """Collects the rows of all devices on each, in a function that is mapped over devices."""
    return jax.tree.map(lambda x: jax.lax.all_gather(x, parallel.AXIS, tiled=True), tree)
