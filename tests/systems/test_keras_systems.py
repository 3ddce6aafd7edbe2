"""A small network of Keras as the backbone of each system: trains, goes on, predicts, exports."""

import dataclasses
import os
from pathlib import Path

import jax
import keras_networks
import matplotlib
import numpy as np
import pytest
import soundfile
import tiny
from jax import export as jax_export
from refusals import refused_field

import ds_jax
from configs import base, deepspectrum
from datasets import prepare
from ds_jax.commands import export, features, train
from ds_jax.data.labels import LABELS
from ds_jax.evaluation import predictions
from ds_jax.features import extract
from ds_jax.models import keras_backbone
from ds_jax.models.backbones import BACKBONES, built
from ds_jax.models.vgg16 import VGG16
from ds_jax.systems import base as systems
from ds_jax.systems import network
from ds_jax.systems.deep_features import extract_features

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SMALL, FROZEN, GATES = "mobilenet_v2", "block_15_add", ("block_16_expand", "out_relu")
MEAN, RATE = "global_average_pooling2d", 16_000


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of random weights."""
    path = tmp_path_factory.mktemp("weights") / "small.weights.h5"
    keras_networks.create(SMALL, 32).save_weights(path)
    return str(path)


def experiment(system, weights, **fields):
    config, _ = tiny.make(system)
    config.weights, config.model.backbone = weights, SMALL
    config.picture.preprocessing = "tf"
    if "heads" not in config.model:
        config.picture.layout = "deepspectrum"
        config.picture.canvas = config.picture.size = 48
    if "layers" in config.model:
        config.model.layers = ("block_15_add", MEAN)
    if "gates" in config.model:
        config.model.gates = GATES
    if "freeze" in config.model:
        config.model.freeze = FROZEN
    config.update_from_flattened_dict(fields)
    return config


def trained(weights, folder, *epochs):
    """A fold of DS-AM that is given more epochs in each call."""
    for number in epochs:
        config = experiment("ds_am", weights, **{"train.epochs": number})
        train.check(config, [0])
        train.run(config, tiny.corpus(42), folder, [0])
    return folder / "fold_00"


@pytest.fixture(scope="module")
def finished(weights, tmp_path_factory):
    """A fold that had an epoch, and then another."""
    return trained(weights, tmp_path_factory.mktemp("run"), 1, 2)


@pytest.mark.slow
def test_a_fold_goes_on_to_the_model_of_one_that_was_never_stopped(finished, weights, tmp_path):
    folders = finished, trained(weights, tmp_path, 2)
    one, other = (network.load(folder / "checkpoints")[2] for folder in folders)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_training_moves_what_is_not_frozen_and_no_statistics(finished, weights):
    config, model, variables = network.load(finished / "checkpoints")
    assert len((finished / "metrics.jsonl").read_text().splitlines()) == 2
    given, params = built(config).load(weights), variables["params"][SMALL]
    assert not {*params} - {*given}
    frozen = model.frozen_layers(SMALL)
    for name, layer in params.items():
        same = all(np.array_equal(layer[kind], given[name][kind]) for kind in layer)
        assert same == (name in frozen), name
    statistics = {name for name in params if name.endswith("_statistics")}
    assert statistics <= frozen
    assert {"block_16_expand", "Conv_1", "Conv_1_bn"} <= {*params} - frozen
    assert {"block_15_expand", "Conv_1_bn_statistics"} <= frozen


def test_it_predicts_and_exports(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "PLATFORMS", ("cpu",))
    samples = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)
    model = ds_jax.load(finished)
    found = model(samples, RATE)
    assert found.shape == (len(LABELS),)
    assert model.card["licences"][-1].startswith("MobileNetV2's ImageNet weights")
    assert model.card["system"] == "DS-AM on MobileNetV2"
    export.run(finished, tmp_path / "export")
    exported = jax_export.deserialize((tmp_path / "export" / "model.stablehlo").read_bytes())
    batch = np.stack([samples, samples]), np.full(2, RATE, np.int32)
    np.testing.assert_allclose(exported.call(*batch)[1], found, atol=1e-5)
    assert refused_field(export.run, finished, tmp_path / "onnx", "onnx") == "model.backbone"


def test_its_gates_are_explained(finished, tmp_path):
    samples = np.random.default_rng(0).normal(0, 0.1, RATE)
    soundfile.write(tmp_path / "a.wav", samples, RATE)
    [record] = ds_jax.explain(ds_jax.load(finished), tmp_path / "a.wav")
    assert [*record["gates"]] == [*GATES]
    for gate in record["gates"].values():
        assert gate.values.shape == (len(gate.hertz), len(gate.seconds)) == (2, 2)
        assert ((gate.values >= 0) & (gate.values <= 1)).all()
        assert 0 < gate.seconds[0] < gate.seconds[-1] < 1


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in keras_networks.SMALLEST if name != SMALL])
def test_every_family_trains_goes_on_predicts_and_exports(name, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "PLATFORMS", ("cpu",))
    size = max(48, keras_networks.SMALLEST[name])
    keras_networks.create(name, size).save_weights(tmp_path / "all.weights.h5")
    backbone = keras_backbone.build(BACKBONES[name], size)
    *_, low, high = (block.name for block in backbone.blocks if block.is_cut and block.height)
    fields = {"model.backbone": name, "model.gates": (low, high), "model.freeze": low}
    fields |= {"picture.size": size, "picture.preprocessing": "deepspectrum"}
    for epochs in (1, 2):
        config = experiment("ds_am", str(tmp_path / "all.weights.h5"), **fields)
        config.train.epochs = epochs
        train.check(config, [0])
        train.run(config, tiny.corpus(42), tmp_path / "run", [0])
        lines = (tmp_path / "run" / "fold_00" / "metrics.jsonl").read_text().splitlines()
        assert len(lines) == epochs
    samples = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)
    found = ds_jax.load(tmp_path / "run" / "fold_00")(samples, RATE)
    export.run(tmp_path / "run" / "fold_00", tmp_path / "export")
    exported = jax_export.deserialize((tmp_path / "export" / "model.stablehlo").read_bytes())
    np.testing.assert_allclose(exported.call(samples[None], np.int32([RATE]))[0], found, atol=1e-5)


@pytest.mark.parametrize(
    "system", ["ds_svc", *(pytest.param(x, marks=pytest.mark.slow) for x in ("ds_ridge", "ds_fc"))]
)
def test_other_systems_test_a_fold(system, weights, tmp_path):
    config = experiment(system, weights)
    corpus = dataclasses.replace(tiny.corpus(42), name="tiny")
    train.check(config, [0])
    train.run(config, corpus, tmp_path, [0])
    lines = (tmp_path / "fold_00" / "predictions.csv").read_text().splitlines()
    assert len(lines) == 1 + 14


def test_features_of_recordings_have_deepspectrum_s_columns(weights, tmp_path):
    config = base.get_config()
    base.use_ds_svc(config)
    config.weights, config.model.backbone, config.model.layers = weights, SMALL, (MEAN,)
    config.picture.canvas = config.picture.size = 48
    samples = np.random.default_rng(0).normal(0, 0.1, RATE)
    soundfile.write(tmp_path / "a.wav", samples, RATE)
    features.run(config, [tmp_path / "a.wav"], tmp_path / "out.arff", "none")
    lines = (tmp_path / "out.arff").read_text().splitlines()
    assert lines[0] == "@relation 'MobileNetV2 features'"
    row = np.asarray(lines[-1].split(",")[1:], np.float32)
    assert row.shape == (1280,)
    settings = extract.settings(config)
    [record] = extract_features(tmp_path / "a.wav", MEAN, settings, weights, backbone=SMALL)
    np.testing.assert_allclose(record["features"], row, rtol=1e-6)
    picture = extract.read(tmp_path / "a.wav", settings)[1][0]
    colours = 255 * matplotlib.colormaps["viridis"](picture)[..., :3].astype(np.float32)
    wanted = keras_networks.create(SMALL, 48).predict(colours[None] / 127.5 - 1, verbose=0)
    np.testing.assert_allclose(row, wanted[0], atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize(("name", "size"), [("vgg16", 224), ("xception", 299)])
def test_pictures_may_have_the_size_that_the_network_was_trained_on(name, size, monkeypatch):
    monkeypatch.setattr(keras_backbone, "import_keras", None)
    config = deepspectrum.get_config()
    config.model.backbone, config.model.layers = name, ("block4_pool",)
    systems.check(config)
    assert config.picture.size == size
    config.picture.size = 96
    systems.check(config)
    assert config.picture.size == 96


def test_titles_name_layers_as_the_network_does():
    config = deepspectrum.get_config()
    config.model.layers = ("block4_pool",)
    assert systems.title(config) == "DS-SVC (block4)"
    config.model.backbone, config.model.layers = "resnet50", ("avg_pool",)
    assert systems.title(config) == "DS-SVC on ResNet50 (avg_pool)"


@pytest.mark.parametrize(
    ("system", "fields", "wrong"),
    [
        ("ds_am", {"model.backbone": "densenet_121"}, "model.backbone"),
        ("ds_am", {"picture.preprocessing": "caffe"}, "picture.preprocessing"),
        ("ds_fc", {"model.head": "fc"}, "model.head"),
        ("ds_am_statistics", {}, "model.backbone"),
    ],
)
def test_what_these_networks_cannot_do_is_told_without_keras(system, fields, wrong, monkeypatch):
    config = experiment(system, "", **fields)
    monkeypatch.setattr(keras_backbone, "import_keras", None)
    assert refused_field(systems.check, config) == wrong


@pytest.mark.slow
def test_vgg16_of_keras_answers_as_ours_does_on_emodb(tmp_path):
    """On every seventh recording."""
    given = Path(os.environ.get("DS_JAX_CORPORA", "corpora"))
    file = given.parent / "weights" / VGG16.trunk_file.name
    if not file.is_file() or not (given / "emodb").is_dir():
        pytest.skip(f"DS_JAX_CORPORA is not set, or there is no EmoDB or no {file}")
    raw = tmp_path / "corpora"
    (raw / "emodb" / "wav").mkdir(parents=True)
    for path in sorted((given / "emodb" / "wav").iterdir())[::7]:
        (raw / "emodb" / "wav" / path.name).symlink_to(path)
    corpora, found = prepare.Corpora(raw, tmp_path / "data", False, False), []
    for name in ("vgg16", "vgg16_keras"):
        config = base.get_config()
        base.use_ds_svc(config)
        config.corpus, config.weights, config.model.backbone = "emodb", str(file), name
        config.folds.protocol, config.folds.count, config.picture.size = "speakers", 2, 32
        train.check(config, [0])
        train.run(config, corpora.load(config, "emodb"), tmp_path / name, [0])
        found.append(predictions.read(tmp_path / name / "fold_00" / "predictions.csv"))
    one, other = found
    np.testing.assert_array_equal(one.predictions, other.predictions)
    np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-4)
