"""What a network says of its inputs: in training, from checkpoints, and of one's own recordings."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import flax.struct
import jax
import ml_collections
import numpy as np
import scipy.special

from ds_jax import devices, ending, models, progress
from ds_jax.checkpoints import Checkpoints
from ds_jax.corpus import Corpus, StoredPictures
from ds_jax.devices import BATCH, Layout
from ds_jax.inputs import Inputs, create_inputs, cut
from ds_jax.networks import (
    Network,
    Variables,
    abstract_variables,
    create_network,
    frozen_layers,
)


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


def create_predict_step(network: Network, inputs: Inputs, layout: Layout) -> Callable:
    """Maps a dispatch of predictions over devices; compiled once, at its first call.

    Returns:
        `(variables, *chunk of inputs) -> logits, head logits, gates`, each with leading axes
        [batches that a chunk has room for, rows that a model's devices take together].
    """

    def predict_step(variables, corpus, labels, rows, mask, count):
        del labels

        def predict(_, batch):
            rows, mask = batch
            outputs = network.apply(variables, corpus[rows], mask, method=inputs.method)
            return (), (outputs.logits, outputs.head_logits, outputs.gates)

        _, judged = layout.scan(predict, (), (rows, mask), count)
        if layout.axis_name is None:
            return judged
        return jax.tree.map(
            lambda x: jax.lax.all_gather(x, layout.axis_name, axis=1, tiled=True), judged
        )

    return inputs.parallel(layout, predict_step, models=1)


def judge(
    predict_step: Callable,
    variables: Variables,
    inputs: Inputs,
    layout: Layout,
    rows: Sequence[np.ndarray],
    batch_size: int,
    length: int,
) -> list[Judgement | None]:
    """Lets models predict rows of a corpus.

    Args:
        predict_step: Of `create_predict_step`.
        variables: Of each model, placed by the layout.
        inputs: The corpus.
        layout: How models lie on devices.
        rows: For each model the row numbers that it judges, int [n].
        batch_size: Rows that go through a network together.
        length: Batches of a chunk, of `inputs.length`.

    Returns:
        What each model says of its rows; None where it has none.

    Raises:
        Interrupted: SIGTERM came in a block that defers it.
    """
    batches = [cut(own, batch_size) for own in rows]
    late, judged = [], []
    steps, shown = max(map(len, batches)), devices.is_first_process()
    with progress.bar("judging", steps, "steps", shown=shown) as bar:
        for chunk in inputs.chunks(layout, batches, length, layout.width(batch_size)):
            if layout.any_process(ending.is_asked()):
                raise ending.Interrupted
            # The host reads a dispatch while the devices work at the next.
            late.append(predict_step(variables, *chunk))
            if len(late) > 1:
                judged.append(jax.device_get(late.pop(0)))
                bar.update(min(length, steps - bar.n))
        judged += map(jax.device_get, late)
    return [_of_lane(judged, layout, lane, own, length) for lane, own in enumerate(batches)]


def _of_lane(
    judged: Sequence, layout: Layout, lane: int, batches: Sequence[np.ndarray], length: int
) -> Judgement | None:
    """What a model says of its batches, from the outputs of all dispatches."""

    def of_batch(number: int):
        place = (lane, number % length) if layout.folds else number % length
        return jax.tree.map(lambda x: x[place][: len(batches[number])], judged[number // length])

    parts = [of_batch(number) for number in range(len(batches))]
    return _judgement(*jax.tree.map(lambda *x: np.concatenate(x), *parts)) if parts else None


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
    network = create_network(config)
    with Checkpoints(directory) as checkpoints:
        variables = checkpoints.load(checkpoints.best, variables=abstract_variables(network))
    return config, network, variables["variables"]


def judge_from_checkpoints(
    rows: Mapping[Path, np.ndarray], corpus: np.ndarray | StoredPictures
) -> Iterator[tuple[Path, Judgement]]:
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
        judged = judge(predict_step, variables, inputs, BATCH, [own_rows], batch_size, length)
        yield directory, judged[0]


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
        own.append(BATCH.place([variables]))
    of_pictures = isinstance(network, models.Network)

    def lower(params, inputs):
        return network.apply({"params": params}, inputs, method="lower") if of_pictures else inputs

    def upper(variables, x, mask):
        method = "upper" if of_pictures else "__call__"
        outputs = network.apply(variables, x, mask, method=method)
        judged = (outputs.logits, outputs.head_logits, outputs.gates)
        return jax.tree.map(lambda x: jax.lax.all_gather(x, devices.AXIS, tiled=True), judged)

    lower = BATCH.parallel(lower, models=1, whole=0, spread=1, stays=True)
    upper = BATCH.parallel(upper, models=1, whole=0, spread=2)
    shared = devices.replicate(shared)

    def judge(inputs, width):
        rows, mask, _ = BATCH.spread([[np.arange(len(inputs))]], 1, width)
        x = lower(shared, BATCH.put(inputs[rows[:, 0]]))
        judged = [upper(variables, x, mask[:, 0]) for variables in own]

        def wait():
            whole = jax.tree.map(lambda x: np.asarray(x)[: len(inputs)], judged)
            return mean([_judgement(*one) for one in whole])

        return wait

    return judge


def mean(judgements: Sequence[Judgement]) -> Judgement:
    """What several models say of the same inputs together: the mean of all that each says."""
    return jax.tree.map(lambda *parts: np.mean(parts, axis=0), *judgements)
