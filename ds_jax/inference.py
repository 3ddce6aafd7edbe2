"""What a network says of its inputs: in training, from checkpoints, and of one's own recordings."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import flax
import flax.struct
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import scipy.special

from ds_jax import devices, feature_networks, models, representation
from ds_jax.checkpoints import Checkpoints
from ds_jax.corpus import Corpus

Network = models.Network | feature_networks.FeatureNetwork
Variables = Mapping[str, Mapping]  # {"params": ..., "batch_stats": ...}


class Judgement(flax.struct.PyTreeNode):
    """What a system says of n inputs or utterances.

    Attributes:
        probabilities: float64 [n, 7].
        head_probabilities: For each attention head, float64 [n, 7].
        gates: For each attention head, float32 [n, height, width] in 0..1.
    """

    probabilities: np.ndarray
    head_probabilities: dict[str, np.ndarray]
    gates: dict[str, np.ndarray]


def create_network(config: ml_collections.ConfigDict) -> Network:
    """Builds the network of a config for the devices of this machine.

    Raises:
        ValueError: A field has an impossible value.
    """
    settings = representation.settings(config)
    if config.system in feature_networks.SYSTEMS:
        return feature_networks.create(config.system, config.model, settings)
    return models.create(
        config.system, config.model, settings, devices.AXIS, devices.compute_dtype()
    )


def create_predict_step(network: Network) -> Callable:
    """Compiles, once, `(variables, inputs, rows, mask) -> logits, head logits, gates`."""
    method = "upper" if network.keeps_lower else "__call__"

    def predict_step(variables, inputs, rows, mask):
        outputs = network.apply(variables, inputs[rows], mask, method=method)
        judged = (outputs.logits, outputs.head_logits, outputs.gates)
        return jax.tree.map(lambda x: jax.lax.all_gather(x, devices.AXIS, tiled=True), judged)

    return devices.parallel(predict_step, whole=2, spread=2)


def resident_inputs(network: Network, params: Mapping, inputs: np.ndarray) -> jax.Array:
    """Puts a corpus on every device: its inputs, or what the frozen blocks make of its pictures.

    Args:
        network: Whose frozen blocks they are.
        params: All parameters of the network.
        inputs: Of a corpus.

    Returns:
        `inputs`, or float [n, height, width, channels].
    """
    if not network.keeps_lower:
        return devices.replicate(inputs)
    frozen = {name: params["vgg16"][name] for name in frozen_layers(network)}

    @jax.jit
    def lower(pictures):
        return network.apply({"params": {"vgg16": frozen}}, pictures, method="lower")

    # One shape compiles once: the last rows are padded by the ones before them.
    count, width = len(inputs), min(32, len(inputs))
    features = None
    for start in range(0, count, width):
        start = min(start, count - width)
        block = np.asarray(lower(inputs[start : start + width]))
        if features is None:
            features = np.empty((count, *block.shape[1:]), block.dtype)
        features[start : start + width] = block
    return devices.replicate(features)


def frozen_layers(network: Network) -> set[str]:
    """Names of the layers of VGG16 that training leaves as they are."""
    return {
        f"block{block}_conv{index}"
        for block in range(1, network.frozen_blocks + 1)
        for index in range(1, models.BLOCKS[block - 1][1] + 1)
    }


def judge(
    predict_step: Callable,
    variables: Variables,
    inputs: jax.Array,
    rows: np.ndarray,
    batch_size: int,
) -> Judgement:
    """Predicts some rows of the resident inputs.

    Args:
        predict_step: Of `create_predict_step`.
        variables: On the devices.
        inputs: Of `resident_inputs`.
        rows: int [n] row numbers, n at least 1.
        batch_size: Rows that go through the network together.
    """
    width = devices.batch_width(batch_size)
    batches = []
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        judged = predict_step(variables, inputs, *devices.spread(batch, width))
        batches.append((judged, len(batch)))
    whole = [jax.tree.map(lambda x, n=n: np.asarray(x)[:n], judged) for judged, n in batches]
    return _judgement(*jax.tree.map(lambda *parts: np.concatenate(parts), *whole))


def _judgement(logits: np.ndarray, head_logits: dict, gates: dict) -> Judgement:
    def softmax(x):
        return scipy.special.softmax(x.astype(np.float64), axis=-1)

    return Judgement(softmax(logits), {k: softmax(x) for k, x in head_logits.items()}, gates)


def by_utterance(judgement: Judgement, corpus: Corpus, rows: np.ndarray) -> Judgement:
    """Averages the judgements of an utterance's windows.

    Args:
        judgement: Of the pictures `rows`.
        corpus: Whose pictures they are.
        rows: int [n], ascending.

    Returns:
        A judgement for each utterance that has a picture among `rows`, in the corpus' order.
    """
    starts = np.unique(corpus.owners[rows], return_index=True)[1]
    counts = np.diff([*starts, len(rows)])

    def mean(x):
        total = np.add.reduceat(x, starts, axis=0)
        return total / counts.reshape(-1, *(1,) * (x.ndim - 1)).astype(x.dtype)

    return jax.tree.map(mean, judgement)


def abstract_variables(network: Network) -> Variables:
    """Shapes and dtypes of the network's variables, without computing any."""
    inputs = jax.ShapeDtypeStruct((1, *network.input_shape), network.input_dtype)
    mask = jax.ShapeDtypeStruct((1,), jnp.float32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), inputs, mask)
    return {"params": shapes["params"], "batch_stats": shapes.get("batch_stats", {})}


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


def load(directory: Path) -> tuple[ml_collections.ConfigDict, Network, Variables]:
    """Loads the best checkpoint of a fold.

    Args:
        directory: A fold's `checkpoints` folder.

    Returns:
        The config that it was trained by, its network, and its variables on every device.

    Raises:
        FileNotFoundError: There is no checkpoint in the folder.
        ValueError: The checkpoint is of another label set or of another architecture.
    """
    config = load_config(directory)
    network = create_network(config)
    with Checkpoints(directory) as checkpoints:
        variables = checkpoints.load(checkpoints.best, variables=abstract_variables(network))
    return config, network, variables["variables"]


def judge_from_checkpoints(
    rows: Mapping[Path, np.ndarray], inputs: np.ndarray
) -> Iterator[tuple[Path, Judgement]]:
    """Lets the networks of a run judge inputs, one network in memory at a time.

    Args:
        rows: For each fold's `checkpoints` folder the inputs that its model judges, int [n].
        inputs: Represented as the run's config says, see `corpus.Corpus`.

    Yields:
        The folder and what its model says.

    Raises:
        FileNotFoundError, ValueError: As `load`.
    """
    resident = predict_step = None
    for directory, own_rows in rows.items():
        config, network, variables = load(directory)
        if resident is None:  # frozen blocks are ImageNet's, and so alike in all folds of a run
            resident = resident_inputs(network, variables["params"], inputs)
            predict_step = create_predict_step(network)
        batch_size = config.train.batch_size
        yield directory, judge(predict_step, variables, resident, own_rows, batch_size)


def create_judge(
    directories: Sequence[Path],
) -> Callable[[np.ndarray, int], Callable[[], Judgement]]:
    """Loads the networks of a run, all at once, to judge batch after batch.

    What the frozen blocks make of a picture is computed once for all of them: these blocks are
    ImageNet's, and so alike in all folds of a run.

    Args:
        directories: The `checkpoints` folders of a run's folds, one or more.

    Returns:
        A function of inputs, represented as the run's config says, and of the rows that each
        device takes. It begins the judging and returns a function that waits for its end: the mean
        of what the networks say.

    Raises:
        FileNotFoundError, ValueError: As `load`.
    """
    network, shared, own = None, {}, []
    for directory in directories:
        _, loaded, variables = load(directory)
        if isinstance(loaded, models.Network):
            frozen, trunk = frozen_layers(loaded), variables["params"]["vgg16"]
            shared = shared or {"vgg16": {name: trunk[name] for name in frozen}}
            trained = {name: layer for name, layer in trunk.items() if name not in frozen}
            params = variables["params"] | {"vgg16": trained}
            variables = {**variables, "params": params}
        network = network or loaded
        own.append(variables)
    of_pictures = isinstance(network, models.Network)

    def lower(params, inputs):
        return network.apply({"params": params}, inputs, method="lower") if of_pictures else inputs

    def upper(variables, x, mask):
        method = "upper" if of_pictures else "__call__"
        outputs = network.apply(variables, x, mask, method=method)
        judged = (outputs.logits, outputs.head_logits, outputs.gates)
        return jax.tree.map(lambda x: jax.lax.all_gather(x, devices.AXIS, tiled=True), judged)

    lower = devices.parallel(lower, whole=1, spread=1, stays=True)
    upper = devices.parallel(upper, whole=1, spread=2)

    def judge(inputs, width):
        rows, mask = devices.spread(np.arange(len(inputs)), width)
        x = lower(shared, inputs[rows])
        judged = [upper(variables, x, mask) for variables in own]

        def wait():
            whole = jax.tree.map(lambda x: np.asarray(x)[: len(inputs)], judged)
            return mean([_judgement(*one) for one in whole])

        return wait

    return judge


def mean(judgements: Sequence[Judgement]) -> Judgement:
    """What several models say of the same inputs together: the mean of all that each says."""
    return jax.tree.map(lambda *parts: np.mean(parts, axis=0), *judgements)
