"""What an export to ONNX has of its own; `test_export.py` asks for its probabilities."""

import json
import re
import runpy
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny
from exports import RATE, batch_of, load, predicted, wave

from ds_jax.commands import export
from ds_jax.data.labels import LABELS
from ds_jax.runtime import files
from ds_jax.systems.finding import EXPORTED, EXPORTED_CARD, EXPORTED_ONNX
from ds_jax.systems.finding import load as load_model

pytestmark = pytest.mark.usefixtures("narrow")


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    directory = tmp_path_factory.mktemp("export")
    export.run(run, directory, "onnx")
    return directory


@pytest.fixture(scope="module")
def model(exported):
    return load(exported)


def test_sounds_at_the_limits(run, model, tmp_path):
    square = np.sign(np.sin(np.arange(8000) / 9)).astype(np.float32)  # at full scale
    quiet = (1e-3 * wave(0.5)).astype(np.float32)
    gap = np.concatenate([wave(0.5), np.zeros(4000, np.float32), wave(0.5)])
    sounds = [square, quiet, gap, wave(20.0), wave(3 / RATE)]
    found = np.concatenate([model(*batch_of([samples])) for samples in sounds])
    np.testing.assert_allclose(found, predicted(run, sounds, tmp_path), atol=1e-5)
    silent = model(np.zeros((1, 8000), np.float32), np.array([8000], np.int32))
    np.testing.assert_allclose(silent.sum(), 1, atol=1e-6)


def test_the_fully_connected_layers(tmp_path, waves):
    config = tiny.config("ds_fc")
    config.picture.size, config.model.head = 32, "fc"
    with tiny.narrow_vgg16(32):
        setup = tiny.create_setup(config, tiny.corpus(8), tiny.pretrained(side=1))
        tiny.save(tmp_path / "fold_00" / "checkpoints", tiny.state(setup).variables, config)
        export.run(tmp_path / "fold_00", form="onnx")
        expected = predicted(tmp_path / "fold_00", waves, tmp_path)
        found = load(tmp_path / "fold_00" / "export_onnx")(*batch_of(waves))
    assert expected.std(axis=0).max() > 1e-4
    np.testing.assert_allclose(found, expected, atol=1e-5)


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
