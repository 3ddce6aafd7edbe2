"""VGG16 in an ONNX graph: what `vgg16_layers` computes, with channels before height and width."""

from collections.abc import Mapping, Sequence

import numpy as np

from ds_jax.models.backbone import Block
from ds_jax.runtime.graphs import Value, op

Layers = Mapping[str, Mapping[str, np.ndarray]]


def trunk(
    x: Value, params: Layers, blocks: Sequence[Block], seen: Sequence[Value | None]
) -> dict[str, Value]:
    """Runs some blocks, see `vgg16_layers.Trunk`.

    Args:
        x: float32 [batch, channels, height, width], the input of the lowest of them.
        params: The parameters of their layers.
        blocks: From below.
        seen: For the input and each block's output float32 [batch, 1, 1, width], which is 1 in the
            columns that are real and 0 after them, where the input is 0 too; or None if all are.

    Returns:
        The outputs by name, each half as high and wide as the one before.
    """
    outputs = {}
    for block, of_input, of_output in zip(blocks, seen[:-1], seen[1:], strict=True):
        for layer in block.layers:
            if layer != block.layers[0]:
                x = _blank(x, of_input)
            kernel = np.transpose(params[layer]["kernel"], (3, 2, 0, 1))
            x = op("Relu", op("Conv", x, kernel, params[layer]["bias"], pads=[1, 1, 1, 1]))
        x = op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
        x = outputs[block.output] = _blank(x, of_output)
    return outputs


def _blank(x: Value, seen: Value | None) -> Value:
    return x if seen is None else x * seen


def top(x: Value, params: Layers) -> Value:
    """Applies fc1 and fc2, see `vgg16_layers.FullyConnected`, to the last output of `trunk`.

    Returns:
        float32 [batch, units].
    """
    x = op("Flatten", op("Transpose", x, perm=[0, 2, 3, 1]), axis=1)
    for name in ("fc1", "fc2"):
        x = op("Relu", op("Gemm", x, params[name]["kernel"], params[name]["bias"]))
    return x
