"""What a network says of its inputs: in training, from checkpoints, and of one's own recordings."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import jax
import ml_collections
import numpy as np

from ds_jax.data.corpus import StoredPictures
from ds_jax.evaluation.predictions import Predicted
from ds_jax.models import deep_spectrum
from ds_jax.models.create import (
    Network,
    Variables,
    abstract_variables,
    create_network,
    split_frozen,
)
from ds_jax.training import parallel
from ds_jax.training.checkpoints import load_variables, read_card
from ds_jax.training.inference import mean, predict, probabilities_of
from ds_jax.training.input_pipeline import create_inputs
from ds_jax.training.parallel import ONE_MODEL
from ds_jax.training.step import create_predict_step


def load_config(directory: Path) -> ml_collections.ConfigDict:
    """Reads the config that the finished model in a fold's `checkpoints` folder was trained by.

    Raises:
        FileNotFoundError: There is no finished model in the folder.
        ValueError: The model is damaged, or of another label set.
    """
    return ml_collections.ConfigDict(read_card(directory)["config"])


def load_fold(directory: Path) -> str:
    """Reads the digest of the fold that the finished model in a folder was trained on.

    Raises:
        FileNotFoundError, ValueError: As `load_config`.
    """
    return read_card(directory)["fold"]


def load(directory: Path) -> tuple[ml_collections.ConfigDict, Network, Variables]:
    """Loads the finished model of a fold.

    Args:
        directory: A fold's `checkpoints` folder.

    Returns:
        The config that it was trained by, its network, and its variables on the host.

    Raises:
        FileNotFoundError: There is no finished model in the folder.
        ValueError: The model is damaged, of another label set, or of another network.
    """
    config = load_config(directory)
    network = create_network(config, ONE_MODEL.axis_name, parallel.compute_dtype())
    return config, network, load_variables(directory, like=abstract_variables(network))


def predict_from_checkpoints(
    rows: Mapping[Path, np.ndarray], corpus: np.ndarray | StoredPictures
) -> Iterator[tuple[Path, Predicted]]:
    """Lets the networks of a run judge inputs, one network in memory at a time.

    Args:
        rows: For each fold's `checkpoints` folder the inputs that its model judges, int [n].
        corpus: Inputs represented as the run's config says, see `corpus.Corpus`.

    Yields:
        The folder and what its model says.

    Raises:
        FileNotFoundError, ValueError: As `load`.
    """
    inputs = predict_step = None
    for directory, own_rows in rows.items():
        config, network, variables = load(directory)
        batch_size = config.train.batch_size
        if inputs is None:  # frozen blocks are ImageNet's, and so alike in all folds of a run
            inputs = create_inputs(network, variables["params"], corpus)
            predict_step = create_predict_step(network, inputs, ONE_MODEL)
            batches = max(-(-len(own) // batch_size) for own in rows.values())
            length = inputs.length(batches, ONE_MODEL.width(batch_size))
        variables = ONE_MODEL.place([variables])
        judged = predict(predict_step, variables, inputs, ONE_MODEL, [own_rows], batch_size, length)
        yield directory, judged[0]


def load_ensemble(
    directories: Sequence[Path],
) -> Callable[[np.ndarray, int], Callable[[], Predicted]]:
    """Loads the networks of a run, all at once, to judge batch after batch.

    What the frozen blocks make of a picture is computed once for all of them: these blocks are
    ImageNet's, and so alike in all folds of a run.

    Args:
        directories: The `checkpoints` folders of a run's folds, one or more.

    Returns:
        A function of inputs, represented as the run's config says, and of the number of rows that
        they are padded to. It begins to predict and returns a function that waits for the end:
        the mean of what the networks say.

    Raises:
        FileNotFoundError, ValueError: As `load`.
    """
    network, shared, own = None, {}, []
    for directory in directories:
        _, loaded, variables = load(directory)
        frozen, trained = split_frozen(loaded, variables["params"])
        shared = shared or frozen
        variables = {**variables, "params": trained}
        network = network or loaded
        own.append(ONE_MODEL.place([variables]))
    of_pictures = isinstance(network, deep_spectrum.Network)

    def lower(params, inputs):
        return network.apply({"params": params}, inputs, method="lower") if of_pictures else inputs

    def upper(variables, x, mask):
        method = "upper" if of_pictures else "__call__"
        outputs = network.apply(variables, x, mask, method=method)
        judged = (outputs.logits, outputs.head_logits, outputs.gates)
        return jax.tree.map(lambda x: jax.lax.all_gather(x, parallel.AXIS, tiled=True), judged)

    lower = ONE_MODEL.parallel(lower, models=1, whole=0, spread=1, stays=True)
    upper = ONE_MODEL.parallel(upper, models=1, whole=0, spread=2)
    shared = parallel.replicate(shared)

    def judge(inputs, size):
        rows, mask, _ = ONE_MODEL.spread([[np.arange(len(inputs))]], 1, ONE_MODEL.width(size))
        x = lower(shared, ONE_MODEL.put(inputs[rows[:, 0]]))
        judged = [upper(variables, x, mask[:, 0]) for variables in own]

        def wait():
            whole = jax.tree.map(lambda x: np.asarray(x)[: len(inputs)], judged)
            return mean([probabilities_of(*one) for one in whole])

        return wait

    return judge
