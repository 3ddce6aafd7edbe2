"""The networks of Keras' applications as backbones, any layer of them by its name.

Keras is an optional requirement. It is imported when a network is built, which takes seconds, and
builds graphs and reads weights; `keras_layers` computes them.
"""

import concurrent.futures
import dataclasses
import functools
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ds_jax.models.backbone import Backbone, Block
from ds_jax.runtime import downloads
from ds_jax.runtime.errors import ConfigError, in_one_line, one_of

SUFFIXES = (".h5", ".hdf5", ".keras")
ADDRESS = "https://storage.googleapis.com/tensorflow/keras-applications/"  # of published weights
# Of each network its function in keras.applications, the size that the function takes by itself,
# and what the function `preprocess_input` beside it does, see `preprocessing.network_input`. The
# names are DeepSpectrum's, and those of networks that it has not are written alike.
APPLICATIONS = {
    "vgg16_keras": ("VGG16", 224, "caffe"),  # to be compared with ours
    "vgg19": ("VGG19", 224, "caffe"),
    "resnet50": ("ResNet50", 224, "caffe"),
    "resnet101": ("ResNet101", 224, "caffe"),
    "resnet152": ("ResNet152", 224, "caffe"),
    "resnet50_v2": ("ResNet50V2", 224, "tf"),
    "resnet101_v2": ("ResNet101V2", 224, "tf"),
    "resnet152_v2": ("ResNet152V2", 224, "tf"),
    "densenet121": ("DenseNet121", 224, "torch"),
    "densenet169": ("DenseNet169", 224, "torch"),
    "densenet201": ("DenseNet201", 224, "torch"),
    "inception_v3": ("InceptionV3", 299, "tf"),
    "inception_resnet_v2": ("InceptionResNetV2", 299, "tf"),
    "xception": ("Xception", 299, "tf"),
    "mobilenet": ("MobileNet", 224, "tf"),
    "mobilenet_v2": ("MobileNetV2", 224, "tf"),
    "mobilenet_v3_small": ("MobileNetV3Small", 224, "rgb"),
    "mobilenet_v3_large": ("MobileNetV3Large", 224, "rgb"),
    "nasnet_mobile": ("NASNetMobile", 224, "tf"),
    "nasnet_large": ("NASNetLarge", 331, "tf"),
    "efficientnet_v2_b0": ("EfficientNetV2B0", 224, "rgb"),
    "efficientnet_v2_b1": ("EfficientNetV2B1", 240, "rgb"),
    "efficientnet_v2_b2": ("EfficientNetV2B2", 260, "rgb"),
    "efficientnet_v2_b3": ("EfficientNetV2B3", 300, "rgb"),
    "efficientnet_v2_s": ("EfficientNetV2S", 384, "rgb"),
    "efficientnet_v2_m": ("EfficientNetV2M", 480, "rgb"),
    "efficientnet_v2_l": ("EfficientNetV2L", 480, "rgb"),
    "convnext_tiny": ("ConvNeXtTiny", 224, "rgb"),
    "convnext_small": ("ConvNeXtSmall", 224, "rgb"),
    "convnext_base": ("ConvNeXtBase", 224, "rgb"),
    "convnext_large": ("ConvNeXtLarge", 224, "rgb"),
    "convnext_xlarge": ("ConvNeXtXLarge", 224, "rgb"),
}


def _describe(name: str, function: str, size: int, preprocessing: str) -> Backbone:
    """Describes a network without building it."""
    terms = (
        f"{function}'s ImageNet weights are published with Keras, and "
        "https://keras.io/api/applications/ names their terms"
    )
    deepspectrum = "bgr" if function.startswith("VGG") else preprocessing
    return Backbone(name, function, size, preprocessing, deepspectrum, terms)


BACKBONES = {name: _describe(name, *row) for name, row in APPLICATIONS.items()}


@functools.cache
def build(backbone: Backbone, size: int, layers: tuple[str, ...] = ()) -> Backbone:
    """Adds what is known of a network once it is built: its layers are its blocks.

    Args:
        backbone: One of `BACKBONES`.
        size: Pixels, the side of its pictures.
        layers: What will be read of it. Where one of them is above the mean over positions, as the
            fully connected layers of VGG19 are, the whole network is built.

    Raises:
        ConfigError: There is no such network for pictures of this size.
        ValueError: Keras is missing, or does not run on JAX.
    """
    key = backbone.title, size, False, "float32"
    if whole := not {*layers} <= {operation.name for operation in graph(*key).operations}:
        key = backbone.title, backbone.size, True, "float32"
        if size != backbone.size and {*layers} <= {one.name for one in graph(*key).operations}:
            allowed = f"{backbone.size}, since one of the layers belongs to pictures of this size"
            raise ConfigError("picture.size", size, allowed)
    operations = graph(*key).operations
    return dataclasses.replace(
        backbone,
        blocks=tuple(_blocks(operations)),
        trunk=functools.partial(_trunk, functools.partial(part, *key[:3])),
        fixed=tuple(
            name
            for operation in operations
            for name, variables in parameters(operation).items()
            if not variables[0].trainable
        ),
        load=functools.partial(_load, backbone, whole),
    )


def _trunk(*arguments, **options):
    from ds_jax.models.keras_layers import Trunk  # here, since a config is checked without Flax

    return Trunk(*arguments, **options)


def _blocks(operations: list) -> Iterator[Block]:
    """Describes all layers but the input, from below."""
    makers = {id(operation.output): number for number, operation in enumerate(operations)}
    readers = {}  # of each layer the last one that reads it
    for number, operation in enumerate(operations[1:], start=1):
        inputs = operation.input if isinstance(operation.input, list) else [operation.input]
        readers |= {makers[id(x)]: number for x in inputs}
    farthest = readers[0]
    for number, operation in enumerate(operations[1:], start=1):
        shape = operation.output.shape
        height = shape[1] if len(shape) == 4 else 0
        names, is_cut = tuple(parameters(operation)), farthest <= number
        yield Block(operation.name, operation.name, shape[-1], names, height, is_cut)
        farthest = max(farthest, readers.get(number, 0))


def parameters(operation: Any) -> dict[str, list]:
    """Returns the variables of a layer of Keras by the names that checkpoints have for them.

    What Keras trains has the layer's name, and what it only measures has `_statistics` after it.
    """
    named = {}
    for variable in getattr(operation, "variables", ()):
        if variable.dtype == "float32":  # and no state of a generator of random numbers
            name = operation.name if variable.trainable else f"{operation.name}_statistics"
            named.setdefault(name, []).append(variable)
    return named


@functools.cache
def graph(function: str, size: int, whole: bool, dtype: str) -> Any:
    """Returns a network of Keras without parameters.

    Args:
        function: The name of its function in `keras.applications`.
        size: Pixels, the side of its pictures.
        whole: Whether its classifier of ImageNet is wanted, in place of the mean over positions.
        dtype: What it computes in, float32 or bfloat16.

    Raises:
        ConfigError: There is none for pictures of this size.
    """
    try:
        return _create(function, size, whole, dtype)
    except ValueError as error:
        raise ConfigError("picture.size", size, f"one that {function} can have: {error}") from error


@functools.cache
def part(
    function: str, size: int, whole: bool, dtype: str, below: str | None, names: tuple[str, ...]
) -> tuple[Any, dict[str, list]]:
    """Returns some layers as a network of Keras, and their variables as in `parameters`.

    Args:
        function, size, whole, dtype: As in `graph`.
        below: The layer whose output is the input; None means the picture.
        names: The layers, whose outputs are those of the network, in this order.
    """
    whole_graph, variables = graph(function, size, whole, dtype), {}
    operations = {operation.name: operation for operation in whole_graph.operations}
    for name in names:
        variables |= parameters(operations[name])
    start = whole_graph.input if below is None else operations[below].output
    return import_keras().Model(start, [operations[name].output for name in names]), variables


def _create(function: str, size: int, whole: bool, dtype: str, weights=None) -> Any:
    keras = import_keras()

    # Random parameters take long to draw, and nobody would use them.
    scope = keras.StatelessScope(initialize_variables=False)

    def create():
        keras.config.set_dtype_policy("mixed_bfloat16" if dtype == "bfloat16" else dtype)
        build, shape = getattr(keras.applications, function), (size, size, 3)
        with scope:
            return build(include_top=whole, weights=weights, input_shape=shape, pooling="avg")

    # In a thread Keras numbers layers from the beginning, whatever it has built before, and leaves
    # the settings of other threads alone.
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        model = thread.submit(create).result()
    for variable in model.variables:
        if (value := scope.get_current_value(variable)) is not None:
            variable.assign(value)  # which were published
    return model


def import_keras() -> ModuleType:
    """Imports Keras on JAX.

    Raises:
        ValueError: It is missing, or was imported on another library.
    """
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "jax"
    try:
        import keras
    except ModuleNotFoundError as error:
        if error.name != "keras":
            raise
        raise ValueError(
            "every model.backbone but 'vgg16' needs the package keras: "
            "pip install -r requirements-keras.txt"
        ) from error
    if (found := keras.backend.backend()) != "jax":
        raise ValueError(
            f"keras was imported on {found} before it was needed here, on JAX: set the environment "
            "variable KERAS_BACKEND to jax before anything imports keras"
        )
    return keras


def _load(backbone: Backbone, whole: bool, path: str) -> dict[str, dict[str, np.ndarray]]:
    """Reads the parameters from a file of Keras, from its cache, or from the internet.

    Args:
        backbone: The network.
        whole: Whether the layers above the mean over positions are needed.
        path: A file in one of Keras' formats; empty: its cache or a download.

    Returns:
        float32 arrays by the names of `parameters` and of Keras' variables; there may be more than
        needed.

    Raises:
        FileNotFoundError: There is no such file, or nothing could be downloaded.
        ValueError: The file holds another network, or numbers that are not finite.
    """
    if not path:
        return _arrays(backbone, whole, None, None)
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"there is no file of weights at {file}: correct the path")
    state = file.stat()
    return _arrays(backbone, whole, file, (state.st_size, state.st_mtime_ns))


@functools.lru_cache(maxsize=2)  # a check reads them first; members of an ensemble share them
def _arrays(
    backbone: Backbone, whole: bool, given: Path | None, _: tuple[int, int] | None
) -> dict[str, dict[str, np.ndarray]]:
    title = f"{backbone.title}'s ImageNet weights"
    if given:
        file, source = given, "a given file"
        model = _read(backbone, file, whole)
    else:
        file, source = _cache(), "Keras' cache"
        model = _download(backbone, whole)
    arrays = {
        name: {variable.name: np.asarray(variable.value, np.float32) for variable in variables}
        for operation in model.operations
        for name, variables in parameters(operation).items()
    }
    for name, layer in arrays.items():
        if not all(np.isfinite(array).all() for array in layer.values()):
            raise ValueError(f"{title} in {file} are not finite in the layer {name}: use others")
    print(f"{title}: {file}, from {source}", flush=True)
    return arrays


def _read(backbone: Backbone, file: Path, whole: bool) -> Any:
    """Reads a file with or without the classifier of ImageNet, if that is not needed."""
    if file.suffix not in SUFFIXES:
        raise ValueError(f"{file} must be a file of Keras and end in {one_of(SUFFIXES)}")
    problems = []
    for with_classifier in (True,) if whole else (False, True):
        model = _create(backbone.title, backbone.size, with_classifier, "float32")
        try:
            model.load_weights(file)
        except Exception as error:  # Keras and HDF5 meet other content with errors of many kinds
            problems.append(in_one_line(error))
        else:
            return model
    parts = "with its classifier" if whole else "with or without its classifier"
    raise ValueError(f"{file} does not hold {backbone.title} {parts}, or is damaged: {problems[0]}")


def _cache() -> Path:
    """Returns the folder in which Keras keeps what it has downloaded."""
    return Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "models"


def _download(backbone: Backbone, whole: bool) -> Any:
    """Lets Keras read its cache, or fill it."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(downloads.TIMEOUT)
    try:
        return _create(backbone.title, backbone.size, whole, "float32", weights="imagenet")
    except Exception as error:  # Keras raises Exception itself, and HDF5 errors of many kinds
        raise FileNotFoundError(
            f"{backbone.title}'s ImageNet weights could neither be read from {_cache()} nor be "
            f"downloaded ({in_one_line(error)}): delete the file there if it is damaged, or "
            f"download it, from below {ADDRESS}, elsewhere, and give its path by --config.weights"
        ) from error
    finally:
        socket.setdefaulttimeout(before)
