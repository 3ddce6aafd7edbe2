"""DS-AM in Keras on JAX, on the trunk of keras.applications."""

import os
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"

import jax
import keras
import numpy as np
from keras import layers, ops


class GatedMean(layers.Layer):
    """One weight and bias for each position of a gate, and the mean where it is open."""

    def build(self, shapes: list[tuple]) -> None:
        """Creates the gate's kernel and bias."""
        hidden, _ = shapes
        self.kernel = self.add_weight(shape=hidden[1:], name="kernel")
        self.bias = self.add_weight(shape=hidden[1:-1], name="bias")

    def call(self, inputs: list) -> object:
        """Maps hidden [b, h, w, 16] and normalised [b, h, w, c] to [b, c]."""
        hidden, normalised = inputs
        gate = ops.sigmoid(ops.sum(hidden * self.kernel, -1) + self.bias)
        pooled = ops.mean(gate[..., None] * normalised, (1, 2))
        return pooled / ops.mean(gate, (1, 2))[:, None]


def create(folder: Path, size: int, batch: int, threads: int, cuda: bool) -> dict[str, dict]:
    """Prepares the one variant, from what `peer_ds_jax.create` left."""
    del batch, threads
    with np.load(folder / "network.npz") as file:
        arrays = dict(file)
    if cuda:
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    trunk = keras.applications.VGG16(include_top=False, weights=None, input_shape=(size, size, 3))
    outputs = []
    for name in ("block4_pool", "block5_pool"):
        x = layers.Activation("linear", dtype="float32")(trunk.get_layer(name).output)
        x = layers.BatchNormalization(momentum=0.9, name=f"{name}_norm", dtype="float32")(x)
        hidden = x
        for index, channels in ((1, 64), (2, 16)):
            convolution = layers.Conv2D(
                channels, 1, activation="relu", name=f"{name}_conv{index}", dtype="float32"
            )
            hidden = convolution(hidden)
        pooled = GatedMean(name=f"{name}_gate", dtype="float32")([hidden, x])
        outputs.append(layers.Dense(7, name=f"{name}_logits", dtype="float32")(pooled))
    model = keras.Model(trunk.input, outputs)
    for layer in model.layers:
        block, _, part = layer.name.rpartition("_")
        name = f"vgg16/{layer.name}"
        if part == "logits":
            name = f"head/{layer.name}"
        elif block.endswith("pool"):
            name = f"head/{block}_attention/{part}"
        if f"{name}/kernel" in arrays:
            layer.set_weights([arrays[f"{name}/kernel"], arrays[f"{name}/bias"]])
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(5e-5), loss=[cross_entropy] * 2, loss_weights=[1.0, 0.8])
    x, labels = jax.device_put(arrays["pictures"]), jax.device_put(arrays["labels"])

    def training_step() -> float:
        return float(model.train_on_batch(x, [labels, labels], return_dict=True)["loss"])

    return {
        "Keras": {
            "parameters": sum(weight.value.size for weight in model.trainable_weights),
            "loss": training_step,
            "forward": lambda: model.predict_on_batch(x),
            "features": lambda: trunk.predict_on_batch(x),
            "training step": training_step,
        }
    }
