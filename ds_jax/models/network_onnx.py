"""The networks on pictures in an ONNX graph: what `deep_spectrum` and `timeline` compute."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ds_jax.features.colours import colour_table
from ds_jax.models.create import Variables
from ds_jax.models.deep_spectrum import AttentionHeads, DeepSpectrumNetwork, FullyConnectedHead
from ds_jax.models.layers import NEVER, BatchNorm
from ds_jax.models.preprocessing import IMAGENET_MEAN_BGR
from ds_jax.models.timeline import LEAST_VARIANCE, LEAST_WEIGHT, LIMIT, StatisticsHeads
from ds_jax.runtime import graphs
from ds_jax.runtime.graphs import Value, concatenate, expand, op


def probabilities(
    network: DeepSpectrumNetwork,
    models: Sequence[tuple[float, Variables]],
    pictures: Value,
    seen: Value | None,
) -> Value:
    """Returns the weighted sum of the probabilities of some models, float32 [batch, classes].

    Args:
        network: The network of all models.
        models: The variables of each model, on the host, with its weight; the frozen blocks, which
            are alike in all of them, are computed once.
        pictures, seen: What `spectrogram_onnx.draw` returns.
    """
    backbone, frozen = network.backbone, network.frozen_blocks
    x, seen = _network_input(network, pictures), [seen]
    if seen[0] is not None:
        x = x * seen[0]
    for _ in range(network.last_block):
        # Of two columns that become one the second is the later: if it is real, both are.
        end = np.iinfo(np.int64).max
        half = None if seen[-1] is None else op("Slice", seen[-1], [1], [end], [3], [2])
        seen.append(half)
    outputs, params = {}, models[0][1]["params"]
    if frozen:
        blocks = backbone.blocks[:frozen]
        outputs = backbone.trunk_onnx(x, params[backbone.name], blocks, seen[: frozen + 1])
        x = outputs[backbone.outputs[frozen - 1]]
    shares = [
        weight * op("Softmax", _logits(network, variables, x, outputs, seen), axis=1)
        for weight, variables in models
    ]
    return graphs.add(shares)


def _network_input(network: DeepSpectrumNetwork, pictures: Value) -> Value:
    """Does what `preprocessing.network_input` does; returns float32 [batch, 3, height, width]."""
    picture = network.picture
    table = pictures.graph.constant(colour_table(picture.colour_map))
    x = op("Transpose", op("Gather", table, pictures), perm=[0, 3, 1, 2])
    if not picture.is_timeline and picture.size != picture.canvas:
        shape = picture.size, picture.canvas
        matrix = np.asarray(jax.image.resize(jnp.eye(picture.canvas), shape, "linear"))
        x = op("MatMul", op("MatMul", matrix, x), matrix.T)
    if picture.preprocessing == "caffe":
        x = x - np.reshape(IMAGENET_MEAN_BGR, (3, 1, 1))
    return x


def _logits(
    network: DeepSpectrumNetwork,
    variables: Variables,
    x: Value,
    outputs: Mapping[str, Value],
    seen: Sequence[Value | None],
) -> Value:
    """Returns a model's logits, float32 [batch, classes].

    Args:
        network, variables: The network of the model, and its variables.
        x: The input of the lowest block that is trained.
        outputs: The outputs of the frozen blocks.
        seen: The real columns of the picture and of each block, see `vgg16_onnx.trunk`.
    """
    params, statistics = variables["params"], variables["batch_stats"]
    backbone, frozen, last = network.backbone, network.frozen_blocks, network.last_block
    if frozen < last:
        blocks = backbone.blocks[frozen:last]
        above = backbone.trunk_onnx(x, params[backbone.name], blocks, seen[frozen : last + 1])
        outputs = {**outputs, **above}
    match network.head:
        case AttentionHeads() as head:
            logits = _attention_heads(head, params["head"], statistics["head"], outputs)
        case FullyConnectedHead() as head:
            x = outputs[backbone.outputs[-1]]
            if head.kind == "fc":
                x = backbone.top_onnx(x, params["head"]["fully_connected"])
            else:
                x = graphs.reduce("Mean", x, 2, 3)
            logits = _dense(x, params["head"]["classifier"])
        case StatisticsHeads() as head:
            maps = {
                name: (_standardised(outputs[name], statistics[f"standardise_{name}"]), of_map)
                for name, of_map in zip(backbone.outputs, seen[1:], strict=False)
                if name in head.heads
            }
            logits = _statistics_heads(head, params["head"], statistics["head"], maps)
    trained = np.asarray(statistics["trained_classes"]["trained"]) > 0
    return graphs.where(trained, logits, NEVER)


def _attention_heads(
    heads: AttentionHeads, params: Mapping, statistics: Mapping, outputs: Mapping[str, Value]
) -> Value:
    """Does what `AttentionHeads` and `AttentionHead` do."""
    features = {}
    for name in heads.gates:
        head, key = params[f"{name}_attention"], f"{name}_attention"
        x = _normalised(outputs[name], head["batch_norm"], statistics[key]["batch_norm"])
        hidden = _pointwise(_pointwise(x, head["conv1"]), head["conv2"])
        kernel = np.transpose(head["gate"]["kernel"], (2, 0, 1))
        gate = _gate(hidden, kernel, head["gate"]["bias"])
        features[name] = graphs.reduce("Mean", gate * x, 2, 3) / graphs.reduce("Mean", gate, 2, 3)
    if heads.merging == "early_fusion":
        fused = concatenate(list(features.values()), axis=1)
        return _dense(op("Relu", _dense(fused, params["fusion"])), params["fusion_logits"])
    return _mean_of([_dense(x, params[f"{name}_logits"]) for name, x in features.items()])


def _statistics_heads(
    heads: StatisticsHeads,
    params: Mapping,
    statistics: Mapping,
    maps: Mapping[str, tuple[Value, Value]],
) -> Value:
    """Does what `StatisticsHeads` and `StatisticsHead` do, on maps and what is real of them."""
    logits = []
    for name in heads.heads:
        (x, weights), head = maps[name], params[name]
        if heads.gate:
            hidden = _pointwise(_pointwise(x, head["dense1"]), head["dense2"])
            kernel = np.transpose(head["gate_kernel"])[..., None]
            weights = _gate(hidden, kernel, np.asarray(head["gate_bias"])[:, None]) * weights
        else:
            weights = op("Expand", weights, concatenate([[1, 1], graphs.shape(x, 2, 3)], axis=0))
        pooled = _weighted_statistics(op("Reshape", x, [0, 0, -1]), weights)
        x = _normalised(pooled, head["batch_norm"], statistics[name]["batch_norm"])
        logits.append(_dense(x, head["logits"]))
    return _mean_of(logits)


def _weighted_statistics(x: Value, weights: Value) -> Value:
    """Does what `timeline.weighted_statistics` does.

    Args:
        x: float32 [batch, channels, positions].
        weights: float32 [batch, 1, height, width].
    """
    total = graphs.total(weights, 2, 3) + LEAST_WEIGHT
    weights = op("Reshape", weights, [0, -1, 1])
    mean = op("Squeeze", op("MatMul", x, weights), [2]) / total
    centred = x - expand(mean, 2)
    variance = op("Squeeze", op("MatMul", centred * centred, weights), [2]) / total
    return concatenate([mean, op("Sqrt", variance + LEAST_VARIANCE)], axis=1)


def _standardised(x: Value, statistics: Mapping) -> Value:
    """Does what `timeline.Standardise` does."""
    mean, deviation = (np.reshape(statistics[n], (-1, 1, 1)) for n in ("mean", "deviation"))
    return graphs.clip((x - mean) / deviation, -LIMIT, LIMIT)


def _normalised(x: Value, layer: Mapping, running: Mapping) -> Value:
    """Does what `layers.BatchNorm` does outside of training."""
    values = layer["scale"], layer["bias"], running["mean"], running["variance"]
    return op("BatchNormalization", x, *values, epsilon=BatchNorm.epsilon)


def _pointwise(x: Value, layer: Mapping) -> Value:
    """Applies a dense layer and a ReLU at each position of [batch, channels, height, width]."""
    kernel = np.reshape(layer["kernel"], np.shape(layer["kernel"])[-2:])
    return op("Relu", op("Conv", x, kernel.T[..., None, None], layer["bias"]))


def _gate(hidden: Value, kernel: np.ndarray, bias: np.ndarray) -> Value:
    """Returns a gate, float32 [batch, 1, height, width], of 0 to 1."""
    return op("Sigmoid", graphs.total(hidden * kernel, 1, keep=True) + bias)


def _dense(x: Value, layer: Mapping) -> Value:
    return op("Gemm", x, layer["kernel"], layer["bias"])


def _mean_of(logits: Sequence[Value]) -> Value:
    return logits[0] if len(logits) == 1 else op("Mean", *logits)
