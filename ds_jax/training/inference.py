"""What a network predicts for rows of a corpus, in training and from finished models."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ds_jax.evaluation.predictions import Predicted, probabilities_of
from ds_jax.models.create import Variables
from ds_jax.models.timeline import TimelineNetwork
from ds_jax.runtime import processes, progress, shutdown
from ds_jax.training.input_pipeline import Inputs, split_batches
from ds_jax.training.parallel import ONE_MODEL, Layout
from ds_jax.training.step import create_moments_step


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
        predict_step: The result of `step.create_predict_step`.
        variables: The variables of each model, placed by the layout.
        inputs: The corpus.
        layout: How models lie on devices.
        rows: For each model the row numbers that it predicts, int [n].
        batch_size: Rows that go through a network together.
        length: Batches of a chunk, as `inputs.length` returns it.

    Returns:
        The predictions of each model for its rows; None where it has none.

    Raises:
        Interrupted: SIGTERM came in a block that defers it.
    """
    batches = [split_batches(of_model, batch_size) for of_model in rows]
    pending, outputs = [], []
    steps, shown = max(map(len, batches)), processes.is_first_process()
    with progress.bar("predicting", steps, "steps", shown=shown) as bar:
        for chunk in inputs.chunks(layout, batches, length, layout.width(batch_size)):
            if layout.any_process(shutdown.sigterm_received()):
                raise shutdown.Interrupted
            # The host reads a dispatch while the devices work at the next.
            pending.append(predict_step(variables, *chunk))
            if len(pending) > 1:
                outputs.append(jax.device_get(pending.pop(0)))
                bar.update(min(length, steps - bar.n))
        outputs += map(jax.device_get, pending)

    def predicted(model: int) -> Predicted:
        chunks = [layout.select(chunk, model) for chunk in outputs]
        return probabilities_of(*_join(chunks, batches[model], length))

    return [predicted(model) if batches[model] else None for model in range(len(batches))]


def moments(
    network: TimelineNetwork, params: Mapping, inputs: Inputs, rows: np.ndarray, batch_size: int
) -> Any:
    """Returns the network's `moments` of rows of a corpus, a tree of arrays on the host.

    Args:
        network: The network.
        params: Its pretrained parameters, by module and layer.
        inputs: The corpus.
        rows: int [n], the row numbers.
        batch_size: Rows that go through the network together.
    """
    batches, width = split_batches(rows.astype(np.int32), batch_size), ONE_MODEL.width(batch_size)
    length = inputs.length(len(batches), width)
    step = create_moments_step(network, inputs, ONE_MODEL)
    variables = ONE_MODEL.place([{"params": params}])
    chunks = inputs.chunks(ONE_MODEL, [batches], length, width)
    outputs = [jax.device_get(step(variables, *chunk)) for chunk in chunks]
    return _join(outputs, batches, length)


def _join(chunks: Sequence, batches: Sequence[np.ndarray], length: int) -> Any:
    """Joins a model's outputs of all dispatches, trees of arrays, to those for its batches."""

    def of_batch(number: int):
        size = len(batches[number])
        return jax.tree.map(lambda x: x[number % length, :size], chunks[number // length])

    parts = [of_batch(number) for number in range(len(batches))]
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)
