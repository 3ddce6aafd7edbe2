"""An export to ONNX gives the probabilities of --mode=predict in ONNX Runtime."""

import json
import re
import runpy
import shutil
from pathlib import Path

import exports
import numpy as np
import onnx
import onnxruntime
import pytest
import tiny
from exports import RATE, batch_of, predicted, untrained, wave

from ds_jax.commands import export
from ds_jax.data.labels import LABELS
from ds_jax.runtime import files
from ds_jax.systems.finding import EXPORTED, EXPORTED_CARD, EXPORTED_ONNX
from ds_jax.systems.finding import load as load_model

pytestmark = pytest.mark.usefixtures("narrow")


def load(directory):
    """A function of samples and lengths."""
    path = directory / EXPORTED_ONNX
    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(path)

    def model(samples, lengths):
        (probabilities,) = session.run(None, {"samples": samples, "lengths": lengths})
        assert probabilities.dtype == np.float32
        return probabilities

    return model


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    directory = tmp_path_factory.mktemp("export")
    export.run(run, directory, "onnx")
    return directory


@pytest.fixture(scope="module")
def model(exported):
    return load(exported)


def test_it_gives_the_probabilities_of_predict_whatever_follows_a_recording(model, waves, expected):
    for size, filler in ((50_001, 7.0), (50_001, 0.0), (None, 0.0)):
        found = model(*batch_of(waves, size, filler))
        np.testing.assert_allclose(found, expected, atol=1e-5)
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    for samples, wanted in zip(waves, expected, strict=True):
        np.testing.assert_allclose(model(*batch_of([samples]))[0], wanted, atol=1e-5)


def test_sounds_at_the_limits(run, model, tmp_path):
    square = np.sign(np.sin(np.arange(8000) / 9)).astype(np.float32)  # at full scale
    quiet = (1e-3 * wave(0.5)).astype(np.float32)
    gap = np.concatenate([wave(0.5), np.zeros(4000, np.float32), wave(0.5)])
    sounds = [square, quiet, gap, wave(20.0), wave(3 / RATE)]
    found = np.concatenate([model(*batch_of([samples])) for samples in sounds])
    np.testing.assert_allclose(found, predicted(run, sounds, tmp_path), atol=1e-5)
    silent = model(np.zeros((1, 8000), np.float32), np.array([8000], np.int32))
    np.testing.assert_allclose(silent.sum(), 1, atol=1e-6)


def fields(**changed):
    """A config of `tiny` with some fields changed, by their full names."""
    config = tiny.config(changed.pop("system", "ds_am"))
    config.picture.size = 32
    config.update_from_flattened_dict(changed)
    return config


@pytest.mark.parametrize(
    "changes",
    [
        {
            "system": "ds_fc",
            "picture.mode": "spectrogram",
            "picture.preprocessing": "deepspectrum",
        },
        {"picture.window": 0.5, "picture.window_hop": 0.3, "trim": 30.0},
        {"model.merging": "early_fusion", "model.freeze": "block2", "picture.size": 48},
    ],
    ids=["ds_fc", "windows", "early_fusion"],
)
def test_other_systems_and_pictures(changes, waves, tmp_path):
    config = fields(**changes)
    if config.trim:
        waves = exports.with_silence(waves)
    fold = untrained(tmp_path / "fold_00", config)
    export.run(fold, form="onnx")
    expected = predicted(fold, waves, tmp_path)
    assert expected.std(axis=0).max() > 1e-4
    found = load(fold / "export_onnx")(*batch_of(waves, 70_001, 7.0))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_fully_connected_layers(tmp_path, waves):
    config = fields(system="ds_fc", **{"model.head": "fc"})
    with tiny.narrow_vgg16(32):
        setup = tiny.create_setup(config, tiny.corpus(8), tiny.pretrained(side=1))
        tiny.save(tmp_path / "fold_00" / "checkpoints", tiny.state(setup).variables, config)
        export.run(tmp_path / "fold_00", form="onnx")
        expected = predicted(tmp_path / "fold_00", waves, tmp_path)
        found = load(tmp_path / "fold_00" / "export_onnx")(*batch_of(waves))
    assert expected.std(axis=0).max() > 1e-4
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"picture.subtract_band_means": True, "model.freeze": "block2"},
        {"model.gate": False},
        pytest.param({"picture.floor_db": 60.0, "model.freeze": ""}, marks=pytest.mark.slow),
    ],
    ids=["differences", "no gate", "all trained"],
)
def test_timelines_of_any_length_and_classes_that_were_never_trained(changes, waves, tmp_path):
    config, corpus = tiny.make("ds_am_statistics")
    config.update_from_flattened_dict(changes)
    variables = tiny.state(tiny.setup(config, corpus)).variables
    trained = np.array([1, 0, 1, 1, 1, 1, 0], np.float32)
    statistics = {**variables["batch_stats"], "trained_classes": {"trained": trained}}
    fold = tmp_path / "fold_00"
    tiny.save(fold / "checkpoints", {**variables, "batch_stats": statistics}, config)
    export.run(fold, form="onnx")
    expected = np.stack([load_model(fold)(samples, RATE) for samples in waves])
    assert expected.std(axis=0).max() > 1e-4
    model = load(fold / "export_onnx")
    for size in (None, 50_001):
        found = model(*batch_of(waves, size, 7.0))
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert not found[:, trained == 0].any()


def test_real_recordings(run, model, tmp_path):
    recordings = exports.recordings()
    found = model(*batch_of(recordings, 50_001))
    np.testing.assert_allclose(found, predicted(run, recordings, tmp_path), atol=1e-5)


def test_the_readme_s_program_runs_without_jax(exported, model, tmp_path):
    shutil.copy(exported / EXPORTED_ONNX, tmp_path)
    exports.check_program(exported, model, tmp_path, without={"jax", "flax", "scipy", "ds_jax"})


def test_the_program_for_robots_runs(exported, monkeypatch, capsys, tmp_path):
    page = Path(__file__).parents[2] / "docs" / "on_a_robot.md"
    program = re.search(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)[1]
    monkeypatch.chdir(exported)
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    runpy.run_path(str(tmp_path / "program.py"))
    assert capsys.readouterr().out.split()[0] in LABELS


def test_the_file_says_what_a_program_needs(exported):
    content = (exported / EXPORTED_ONNX).read_bytes()
    loaded, facts = onnx.load_from_string(content), files.read_json(exported / EXPORTED_CARD)
    said = {entry.key: json.loads(entry.value) for entry in loaded.metadata_props}
    assert said == {name: facts[name] for name in said}
    assert said["labels"] == list(LABELS)
    assert said["sample_rate"] == RATE
    assert {"licences", "never_answered", "not_for", "synthetic"} < set(said)
    assert (loaded.producer_name, loaded.producer_version) == ("ds_jax", facts["ds_jax"])
    assert [(each.domain, each.version) for each in loaded.opset_import] == [("", facts["opset"])]
    assert (facts["format"], facts["file"]) == ("onnx", EXPORTED_ONNX)
    assert str(Path(export.__file__).parents[1]).encode() not in content
    assert {path.name for path in exported.iterdir()} == {EXPORTED_ONNX, "README.md", "model.json"}
    readme = (exported / "README.md").read_text(encoding="utf-8")
    for text in (*facts["not_for"], *facts["licences"], f" {len(content) / 1e6:.1f} MB"):
        assert text in readme


def test_the_same_models_give_the_same_bytes(exported, run, tmp_path):
    export.run(run, tmp_path, "onnx")
    assert (tmp_path / EXPORTED_ONNX).read_bytes() == (exported / EXPORTED_ONNX).read_bytes()


def test_one_folder_holds_one_export(run, exported, tmp_path):
    (tmp_path / EXPORTED).write_bytes(b"")
    with pytest.raises(ValueError, match=f"holds {EXPORTED}: .*another folder"):
        export.run(run, tmp_path, "onnx")
    with pytest.raises(ValueError, match=f"holds {EXPORTED_ONNX}: .*another folder"):
        export.run(run, exported)


def test_loading_an_onnx_file_names_its_reader(exported):
    with pytest.raises(ValueError, match="ONNX Runtime"):
        load_model(exported)
