"""What a network predicts for rows of a corpus, in training and from finished models."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ds_jax.data import enrolment
from ds_jax.data.corpus import Corpus
from ds_jax.evaluation.predictions import Predicted, probabilities_of
from ds_jax.features.extract import stack
from ds_jax.models.create import Variables
from ds_jax.models.timeline import TimelineNetwork
from ds_jax.runtime import processes, progress, shutdown
from ds_jax.training.input_pipeline import Inputs, split_batches
from ds_jax.training.parallel import ONE_MODEL, Layout, read_behind
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
    orders = [inputs.narrow_first(of_model) for of_model in rows]
    batches = [
        split_batches(of_model[order], batch_size)
        for of_model, order in zip(rows, orders, strict=True)
    ]
    steps, shown = max(map(len, batches)), processes.is_first_process()

    def dispatches():
        width = layout.width(batch_size)
        for chunk in inputs.chunks(layout, batches, length, width, narrow=True):
            if layout.any_process(shutdown.sigterm_received()):
                raise shutdown.Interrupted
            yield predict_step(variables, *chunk)

    outputs = []
    with progress.bar("predicting", steps, "steps", shown=shown) as bar:
        for output in read_behind(dispatches()):
            outputs.append(output)
            bar.update(min(length, steps - bar.n))

    def predicted(model: int) -> Predicted:
        parts = [layout.select(output, model) for output in outputs]
        return probabilities_of(*_join(parts, orders[model], batch_size))

    return [predicted(model) if len(of_model) else None for model, of_model in enumerate(rows)]


def moments(network: TimelineNetwork, params: Mapping, inputs: Inputs, batch_size: int) -> Any:
    """Returns the network's `moments` of all rows of a corpus, a tree of arrays on the host.

    Args:
        network: The network.
        params: Its pretrained parameters, by module and layer.
        inputs: The corpus.
        batch_size: Rows that go through the network together.
    """
    rows, width = np.arange(len(inputs.labels), dtype=np.int32), ONE_MODEL.width(batch_size)
    order = inputs.narrow_first(rows)
    batches = split_batches(rows[order], batch_size)
    length = inputs.length(len(batches), width)
    step = create_moments_step(network, inputs, ONE_MODEL)
    variables = ONE_MODEL.place([{"params": params}])
    chunks = inputs.chunks(ONE_MODEL, [batches], length, width, narrow=True)
    outputs = list(read_behind(step(variables, *chunk) for chunk in chunks))
    return _join(outputs, order, batch_size)


def adapt(network: TimelineNetwork, inputs: Inputs, measured: Any, corpus: Corpus) -> Inputs:
    """Puts beside each row what the network's `scaling` measures on recordings of its speaker.

    Args:
        network: The network.
        inputs: The corpus as steps read it.
        measured: What `moments` returned.
        corpus: The corpus.
    """
    speakers = enrolment.rows_of_speakers(corpus)

    def spread(*of_speakers):
        rows = np.empty((len(corpus.owners), *of_speakers[0].shape), np.float32)
        for (_, numbers), value in zip(speakers, of_speakers, strict=True):
            rows[numbers] = value
        return rows

    usual = [network.scaling(measured, numbers) for numbers, _ in speakers]
    return inputs.put_beside(jax.tree.map(spread, *usual))


def _join(outputs: Sequence, order: np.ndarray, batch_size: int) -> Any:
    """Joins a model's outputs for its rows, of which all batches but the last are full.

    Args:
        outputs: Trees of arrays [batches, rows, ...], whose gates may be of several widths.
        order: int [n], the place of each predicted row among the rows that were asked for.
        batch_size: Rows of a full batch; the devices may have taken more.
    """

    def join(*parts):
        rows = [row for part in parts for batch in part[:, :batch_size] for row in batch]
        return stack([rows[place] for place in np.argsort(order)])

    return jax.tree.map(join, *outputs)
