"""What a network predicts for rows of a corpus, in training and from checkpoints."""

from collections.abc import Callable, Sequence

import jax
import numpy as np
import scipy.special

from ds_jax.data.corpus import Corpus
from ds_jax.evaluation.predictions import Predicted
from ds_jax.models.create import Network, Variables
from ds_jax.runtime import processes, progress, shutdown
from ds_jax.training.input_pipeline import Inputs, split_batches
from ds_jax.training.parallel import Layout


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


def predict(
    predict_step: Callable,
    variables: Variables,
    inputs: Inputs,
    layout: Layout,
    rows: Sequence[np.ndarray],
    batch_size: int,
    length: int,
) -> list[Predicted | None]:
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
    batches = [split_batches(own, batch_size) for own in rows]
    late, judged = [], []
    steps, shown = max(map(len, batches)), processes.is_first_process()
    with progress.bar("judging", steps, "steps", shown=shown) as bar:
        for chunk in inputs.chunks(layout, batches, length, layout.width(batch_size)):
            if layout.any_process(shutdown.sigterm_received()):
                raise shutdown.Interrupted
            # The host reads a dispatch while the devices work at the next.
            late.append(predict_step(variables, *chunk))
            if len(late) > 1:
                judged.append(jax.device_get(late.pop(0)))
                bar.update(min(length, steps - bar.n))
        judged += map(jax.device_get, late)
    return [_of_lane(judged, layout, lane, own, length) for lane, own in enumerate(batches)]


def _of_lane(
    judged: Sequence, layout: Layout, lane: int, batches: Sequence[np.ndarray], length: int
) -> Predicted | None:
    """What a model says of its batches, from the outputs of all dispatches."""

    def of_batch(number: int):
        place = (lane, number % length) if layout.folds else number % length
        return jax.tree.map(lambda x: x[place][: len(batches[number])], judged[number // length])

    parts = [of_batch(number) for number in range(len(batches))]
    return probabilities_of(*jax.tree.map(lambda *x: np.concatenate(x), *parts)) if parts else None


def probabilities_of(logits: np.ndarray, head_logits: dict, gates: dict) -> Predicted:
    def softmax(x):
        return scipy.special.softmax(x.astype(np.float64), axis=-1)

    return Predicted(softmax(logits), {k: softmax(x) for k, x in head_logits.items()}, gates)


def average_windows(judgement: Predicted, corpus: Corpus, rows: np.ndarray) -> Predicted:
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


def mean(judgements: Sequence[Predicted]) -> Predicted:
    """What several models say of the same inputs together: the mean of all that each says."""
    return jax.tree.map(lambda *parts: np.mean(parts, axis=0), *judgements)
