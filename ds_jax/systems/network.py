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
from ds_jax.training.checkpoints import Checkpoints
from ds_jax.training.inference import create_predict_step, mean, predict, probabilities_of
from ds_jax.training.input_pipeline import create_inputs
from ds_jax.training.parallel import BATCH


def load_config(directory: Path) -> ml_collections.ConfigDict:
    """Reads the config that the best checkpoint in a fold's `checkpoints` folder was trained by.

    Raises:
        FileNotFoundError: There is no checkpoint in the folder.
        ValueError: The checkpoint is of another label set.
    """
    if not directory.is_dir():
        raise FileNotFoundError(f"no checkpoints in {directory}: train this fold first")
    with Checkpoints(directory) as checkpoints:
        return ml_collections.ConfigDict(checkpoints.metadata(checkpoints.best)["config"])


def load_fold(directory: Path) -> str:
    """Reads the digest of the fold that the best checkpoint in a folder was trained on.

    Raises:
        FileNotFoundError, ValueError: As `load_config`.
    """
    with Checkpoints(directory) as checkpoints:
        return checkpoints.metadata(checkpoints.best)["fold"]


def load(directory: Path) -> tuple[ml_collections.ConfigDict, Network, Variables]:
    """Loads the best checkpoint of a fold.

    Args:
        directory: A fold's `checkpoints` folder.

    Returns:
        The config that it was trained by, its network, and its variables on the host.

    Raises:
        FileNotFoundError: There is no checkpoint in the folder.
        ValueError: The checkpoint is of another label set or of another architecture.
    """
    config = load_config(directory)
    network = create_network(config, BATCH.axis_name, parallel.compute_dtype())
    with Checkpoints(directory) as checkpoints:
        variables = checkpoints.load(checkpoints.best, variables=abstract_variables(network))
    return config, network, variables["variables"]


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
            predict_step = create_predict_step(network, inputs, BATCH)
            batches = max(-(-len(own) // batch_size) for own in rows.values())
            length = inputs.length(batches, BATCH.width(batch_size))
        variables = BATCH.place([variables])
        judged = predict(predict_step, variables, inputs, BATCH, [own_rows], batch_size, length)
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
        own.append(BATCH.place([variables]))
    of_pictures = isinstance(network, deep_spectrum.Network)

    def lower(params, inputs):
        return network.apply({"params": params}, inputs, method="lower") if of_pictures else inputs

    def upper(variables, x, mask):
        method = "upper" if of_pictures else "__call__"
        outputs = network.apply(variables, x, mask, method=method)
        judged = (outputs.logits, outputs.head_logits, outputs.gates)
        return jax.tree.map(lambda x: jax.lax.all_gather(x, parallel.AXIS, tiled=True), judged)

    lower = BATCH.parallel(lower, models=1, whole=0, spread=1, stays=True)
    upper = BATCH.parallel(upper, models=1, whole=0, spread=2)
    shared = parallel.replicate(shared)

    def judge(inputs, size):
        rows, mask, _ = BATCH.spread([[np.arange(len(inputs))]], 1, BATCH.width(size))
        x = lower(shared, BATCH.put(inputs[rows[:, 0]]))
        judged = [upper(variables, x, mask[:, 0]) for variables in own]

        def wait():
            whole = jax.tree.map(lambda x: np.asarray(x)[: len(inputs)], judged)
            return mean([probabilities_of(*one) for one in whole])

        return wait

    return judge
