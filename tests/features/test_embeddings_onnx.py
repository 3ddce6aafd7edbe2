"""A speech model in an ONNX file gives the embeddings that its graph computes."""

import sys

import numpy as np
import onnx
import pytest
import speech_models
from onnx import TensorProto, helper, numpy_helper
from refusals import refused_field

from configs import base
from ds_jax import config as configuration
from ds_jax.features import embeddings, embeddings_onnx, extract
from ds_jax.features.embeddings import EmbeddingSettings

pytest.importorskip("onnxruntime", reason="the optional package onnxruntime is missing")
KERNEL, STRIDE, SIZE = 400, 320, 6
WEIGHTS = np.random.default_rng(0).normal(size=(SIZE, 1, KERNEL)).astype(np.float32)


def write(path, inputs=("samples",), outputs=("low", "high")):
    """A convolution of the waveform, and its values through a tangent."""
    nodes = [
        helper.make_node("Unsqueeze", [inputs[0], "axis"], ["x"]),
        helper.make_node("Conv", ["x", "weights"], ["channels"], strides=[STRIDE]),
        helper.make_node("Transpose", ["channels"], ["low"], perm=[0, 2, 1]),
        helper.make_node("Tanh", ["low"], ["high"]),
        helper.make_node("ReduceMean", ["low"], ["mean"], axes=[1], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "speech",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, "n")) for name in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [
            numpy_helper.from_array(WEIGHTS, "weights"),
            numpy_helper.from_array(np.asarray([1]), "axis"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def noise(count):
    return np.random.default_rng(1).normal(0.02, 0.1, count).astype(np.float32)


def expected(samples, layer):
    windows = np.lib.stride_tricks.sliding_window_view(samples, KERNEL)[::STRIDE]
    frames = windows.astype(float) @ WEIGHTS[:, 0].T
    frames = np.tanh(frames) if layer else frames
    return np.concatenate([frames.mean(0), frames.std(0)])


def config_of(file, layer=1):
    config = base.get_config()
    base.use_svc(config, "embeddings", "linear")
    config.embeddings.model, config.embeddings.layer = str(file), layer
    return config


@pytest.mark.parametrize("layer", [0, 1])
def test_layers_are_the_outputs_of_the_graph(tmp_path, layer):
    settings = EmbeddingSettings(str(write(tmp_path / "mine.onnx")), layer)
    found = embeddings.statistics(noise(9000), settings)
    assert (found.shape, found.dtype) == ((2 * SIZE,), np.float32)
    np.testing.assert_allclose(found, expected(noise(9000), layer), rtol=1e-4, atol=1e-5)


def test_long_recordings_are_read_in_parts(tmp_path, monkeypatch):
    settings = EmbeddingSettings(str(write(tmp_path / "mine.onnx")), 0)
    monkeypatch.setattr(embeddings_onnx, "LONGEST", 1)
    samples = noise(40_000)
    frames = [
        np.lib.stride_tricks.sliding_window_view(part, KERNEL)[::STRIDE] @ WEIGHTS[:, 0].T
        for part in np.array_split(samples, 3)
    ]
    together = np.concatenate(frames)
    wanted = np.concatenate([together.mean(0), together.std(0)])
    found = embeddings.statistics(samples, settings)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_config_notes_the_file_and_reports_name_it_and_the_card_beside_it(tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    write(tmp_path / "models/mine.onnx")
    monkeypatch.chdir(tmp_path)
    config = config_of("models/mine.onnx")
    configuration.expand_paths(config)
    assert config.embeddings.model == str(tmp_path / "models/mine.onnx")
    embeddings.pin(config)
    assert (len(config.embeddings.sha256), config.embeddings.size) == (64, 2 * SIZE)
    settings = extract.settings(config)
    settings.check()
    (vector,) = extract.from_samples(noise(8000), 16_000, settings)
    assert vector.shape == settings.shape == (2 * SIZE,)
    assert "does not say its licence" in embeddings.terms(settings.embeddings)
    (tmp_path / "models/README.md").write_text(speech_models.CARD)
    terms = embeddings.terms(settings.embeddings)
    assert "layer 1 of mine.onnx" in terms
    assert "licence as cc-by-sa-3.0" in terms


def test_what_is_too_short_is_told_in_a_line(tmp_path):
    settings = EmbeddingSettings(str(write(tmp_path / "mine.onnx")), 0)
    with pytest.raises(ValueError, match=r"^[^\n]*mine\.onnx[^\n]*$"):
        embeddings.statistics(noise(KERNEL - 1), settings)


@pytest.mark.parametrize(
    ("fields", "layer", "field"),
    [
        ({"inputs": ("samples", "padding")}, 0, "embeddings.model"),
        ({"outputs": ("low", "mean")}, 1, "embeddings.model"),
        ({}, 2, "embeddings.layer"),
    ],
)
def test_another_graph_or_output_is_refused(tmp_path, fields, layer, field):
    file = write(tmp_path / "mine.onnx", **fields)
    assert refused_field(embeddings.pin, config_of(file, layer)) == field


def test_files_of_other_kinds_damaged_ones_and_missing_ones_are_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    for name in ("model.safetensors", "models/none.onnx"):
        assert refused_field(embeddings.pin, config_of(tmp_path / name)) == "embeddings.model"
    file = write(tmp_path / "mine.onnx")
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(ValueError, match=r"mine\.onnx cannot be read"):
        embeddings.pin(config_of(file))


def test_weights_in_another_file_are_not_opened(tmp_path):
    model = onnx.load(write(tmp_path / "mine.onnx"), load_external_data=False)
    onnx.save(
        model, tmp_path / "mine.onnx", save_as_external_data=True, location="w", size_threshold=0
    )
    with pytest.raises(ValueError, match="another file"):
        embeddings.pin(config_of(tmp_path / "mine.onnx"))


def test_without_the_package_the_command_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match="pip install onnxruntime"):
        embeddings.pin(config_of(write(tmp_path / "mine.onnx")))
