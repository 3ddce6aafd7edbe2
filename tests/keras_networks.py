"""Networks of Keras with random weights that keep the signal's size, and files of them."""

import concurrent.futures

import keras
import numpy as np

from ds_jax.models.keras_backbone import APPLICATIONS

# Of each family the smallest, with the least pictures that it takes.
SMALLEST = {
    **dict.fromkeys(("vgg19", "resnet50", "resnet50_v2", "densenet121", "mobilenet"), 32),
    **dict.fromkeys(("mobilenet_v2", "mobilenet_v3_small", "nasnet_mobile"), 32),
    **dict.fromkeys(("efficientnet_v2_b0", "convnext_tiny"), 32),
    **{"inception_v3": 75, "inception_resnet_v2": 75, "xception": 71},
}


def create(name: str, size: int, include_top: bool = False) -> keras.Model:
    """A network as Keras builds it, whatever this program does."""

    def build():
        # Drawing parameters takes long to compile.
        with keras.StatelessScope(initialize_variables=False):
            function = getattr(keras.applications, APPLICATIONS[name][0])
            shape, pooling = (size, size, 3), None if include_top else "avg"
            return function(
                include_top=include_top, weights=None, input_shape=shape, pooling=pooling
            )

    # A thread of its own counts layers without a name of their own from the beginning.
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        model = thread.submit(build).result()
    rng = np.random.default_rng(0)
    for variable in model.variables:
        variable.assign(_draw(variable, rng))
    return model


def _draw(variable, rng: np.random.Generator) -> np.ndarray:
    shape = tuple(variable.shape)
    if variable.name.endswith("kernel"):
        inputs = shape[:2] if variable.name.startswith("depthwise") else shape[:-1]
        return rng.normal(0, np.sqrt(2 / np.prod(inputs)), shape).astype(np.float32)
    if variable.name in ("gamma", "moving_variance"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    return rng.normal(0, 0.1, shape).astype(variable.dtype)
