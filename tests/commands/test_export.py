"""An exported model gives the probabilities of --mode=predict without this program."""

import json
import re
import shutil
from pathlib import Path

import exports
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
import tiny
from exports import RATE, batch_of, load, predicted, untrained

from ds_jax.commands import export
from ds_jax.data.labels import LABELS
from ds_jax.runtime import files
from ds_jax.runtime.errors import ConfigError
from ds_jax.systems import base as systems
from ds_jax.systems.finding import EXPORTED, EXPORTED_CARD, EXPORTED_ONNX
from ds_jax.systems.finding import load as load_model

pytestmark = pytest.mark.usefixtures("narrow")


@pytest.fixture(scope="module")
def both(run, tmp_path_factory):
    """The folder of an export in each form."""
    folders = {form: tmp_path_factory.mktemp(form) for form in export.FORMATS}
    for form, folder in folders.items():
        export.run(run, folder, form)
    return folders


@pytest.fixture(scope="module")
def exported(both):
    return both["stablehlo"]


@pytest.fixture(scope="module", params=export.FORMATS)
def either(request, both):
    return both[request.param]


@pytest.fixture(scope="module")
def model(either):
    return load(either)


@pytest.fixture
def _quick(monkeypatch):
    """Exports a program that computes nothing, for tests of the other files."""
    shapes = jax.ShapeDtypeStruct((1,), jnp.float32)
    exported = jax.export.export(jax.jit(lambda x: x))(shapes)
    monkeypatch.setattr(export, "trace", lambda *arguments: exported)


def test_it_gives_the_probabilities_of_predict_whatever_follows_a_recording(model, waves, expected):
    for size, filler in ((50_001, 7.0), (50_001, 0.0)):
        found = np.asarray(model(*batch_of(waves, size, filler)))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-5)
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(model(*batch_of(waves[:1])), expected[:1], atol=1e-5)


def test_a_fold_is_exported_alone_and_to_the_same_bytes(run_copy, waves, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "PLATFORMS", ("cpu",))
    fold, content = run_copy / "fold_01", set()
    for given, place in ((fold, tmp_path / "elsewhere"), (fold / "checkpoints", None)):
        export.run(given, place)
        content.add(((place or fold / "export") / EXPORTED).read_bytes())
    assert len(content) == 1
    assert not (fold / "checkpoints" / "export").exists()
    found = load(fold / "export")(*batch_of(waves))
    np.testing.assert_allclose(found, predicted(fold, waves, tmp_path), atol=1e-5)


SYSTEMS = {
    "ds_fc": {
        "system": "ds_fc",
        "picture.mode": "spectrogram",
        "picture.preprocessing": "deepspectrum",
    },
    "windows": {"picture.window": 0.5, "picture.window_hop": 0.3, "trim": 30.0},
    "early fusion": {"model.merging": "early_fusion", "model.freeze": "block2", "picture.size": 48},
}
TIMELINES = {
    "differences": {"picture.subtract_band_means": True},
    "no gate": {"model.gate": False, "model.freeze": "block2"},
    "all trained": {"picture.floor_db": 60.0, "model.freeze": ""},
}


def in_each_form(names, *slow):
    """Runs a test for names in ONNX, and in StableHLO, which compiles longer."""
    cases = [(form, name) for form in export.FORMATS for name in names]
    marks = {case: [pytest.mark.slow] * (case in slow) for case in cases}
    cases = [pytest.param(*case, marks=marks[case]) for case in cases]
    return pytest.mark.parametrize(("form", "name"), cases)


@in_each_form(SYSTEMS, ("stablehlo", "early fusion"))
def test_other_systems_and_pictures(form, name, waves, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "PLATFORMS", ("cpu",))
    changes = {"picture.size": 32} | SYSTEMS[name]
    config = tiny.config(changes.pop("system", "ds_am"))
    config.update_from_flattened_dict(changes)
    if config.trim:
        waves = exports.with_silence(waves)
    fold = untrained(tmp_path / "fold_00", config)
    export.run(fold, tmp_path / "export", form)
    expected = predicted(fold, waves, tmp_path)
    assert expected.std(axis=0).max() > 1e-4
    found = load(tmp_path / "export")(*batch_of(waves, 70_001, 7.0))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@in_each_form(
    TIMELINES, ("stablehlo", "no gate"), ("stablehlo", "all trained"), ("onnx", "all trained")
)
def test_timelines_of_any_length_and_classes_that_were_never_trained(
    form, name, waves, tmp_path, monkeypatch
):
    monkeypatch.setattr(export, "PLATFORMS", ("cpu",))
    config, corpus = tiny.make("ds_am_statistics")
    config.update_from_flattened_dict(TIMELINES[name])
    variables = tiny.state(tiny.setup(config, corpus)).variables
    trained = np.array([1, 0, 1, 1, 1, 1, 0], np.float32)
    statistics = {**variables["batch_stats"], "trained_classes": {"trained": trained}}
    fold = tmp_path / "fold_00"
    tiny.save(fold / "checkpoints", {**variables, "batch_stats": statistics}, config)
    export.run(fold, tmp_path / "export", form)
    expected = np.stack([load_model(fold)(samples, RATE) for samples in waves])
    assert expected.std(axis=0).max() > 1e-4
    found = load(tmp_path / "export")(*batch_of(waves, 50_001, 7.0))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert not found[:, trained == 0].any()


def test_it_answers_from_python_as_the_run_does(run, exported, waves, expected, tmp_path):
    loaded = load_model(exported)
    assert loaded.classes == LABELS
    assert loaded.config.to_dict() == load_model(run).config.to_dict()
    assert loaded.card == json.loads((exported / EXPORTED_CARD).read_text())
    found = loaded(waves, RATE)
    assert (found.dtype, found.shape) == (np.float32, expected.shape)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    for number, samples in enumerate(waves):
        soundfile.write(tmp_path / f"{number}.wav", samples, RATE, subtype="FLOAT")
    records = loaded.predict(tmp_path)
    np.testing.assert_allclose([[each[n] for n in LABELS] for each in records], expected, atol=1e-5)
    with pytest.raises(ValueError, match="explain the run"):
        loaded.check_gates()


@pytest.mark.parametrize("damaged", [EXPORTED, EXPORTED_CARD])
def test_a_damaged_export_is_named(exported, tmp_path, damaged):
    folder = shutil.copytree(exported, tmp_path / "export")
    content = {EXPORTED: "no program", EXPORTED_CARD: '{"models": []}'}[damaged]
    (folder / damaged).write_text(content)
    with pytest.raises(ValueError, match=rf"{damaged} .*export the models again"):
        load_model(folder)


def test_real_recordings(run, model, tmp_path):
    recordings = exports.recordings()
    found = model(*batch_of(recordings, 50_001))
    np.testing.assert_allclose(found, predicted(run, recordings, tmp_path), atol=1e-5)


def test_the_readme_s_program_runs_without_this_program(either, model, tmp_path):
    without = {
        EXPORTED: {"flax", "scipy.fft", "librosa"},
        EXPORTED_ONNX: {"jax", "flax", "scipy"},
    }
    (program,) = (path for path in either.iterdir() if path.name in without)
    shutil.copy(program, tmp_path)
    exports.check_program(either, model, tmp_path, without[program.name])


def test_the_readme_has_the_figures_of_the_results(either):
    figures = re.compile(r"^\| (?:ONNX|StableHLO)\b.*$", re.MULTILINE)
    results = Path(export.__file__).parents[2] / "docs" / "results.md"
    found = figures.findall((either / "README.md").read_text(encoding="utf-8"))
    assert found == figures.findall(results.read_text(encoding="utf-8"))
    assert len(found) == 4


def test_facts_for_programs_and_people(run, exported):
    facts = json.loads((exported / "model.json").read_text())
    report = json.loads((run / "report.json").read_text())
    assert facts["labels"] == list(LABELS)
    assert facts["sample_rate"] == RATE
    assert (facts["trained_on"], facts["protocol"]) == ("tiny", "speakers")
    assert [model["fold"] for model in facts["models"]] == ["fold_00", "fold_01", "fold_02"]
    epochs = [fold["epoch"] for fold in report["folds"]]
    assert [model["epoch"] for model in facts["models"]] == epochs
    (score,) = facts["scores"]
    assert score["uar"] == report["uar"]
    assert "each fold's model" in score["judged_by"]
    licences = facts["licences"]
    assert (len(licences), "tiny" in licences[0], "CC BY 4.0" in licences[1]) == (2, True, True)
    readme = (exported / "README.md").read_text(encoding="utf-8")
    low, value = report["uar"]["low"], report["uar"]["value"]
    shown = (f"{value:.3f} ({low:.3f} to", report["interval"].rstrip("."), "`speakers`", *licences)
    for text in (*shown, "0 speakers, 0 recordings"):
        assert text in readme, text
    assert "synthetic" not in readme
    assert "Generated pictures" not in readme


@pytest.mark.usefixtures("_quick")
def test_the_terms_are_those_of_the_run_s_report(run_copy):
    path = run_copy / "report.json"
    terms = {"corpus_title": "EmoDB", "corpus_licence": "free, from its authors"}
    files.write_json(path, files.read_json(path) | terms)
    export.run(run_copy)
    licences = json.loads((run_copy / "export/model.json").read_text())["licences"]
    assert licences[0] == "EmoDB is free, from its authors"
    assert licences[0] in (run_copy / "export/README.md").read_text()


@pytest.mark.usefixtures("_quick")
def test_scores_name_the_models_that_they_are_about(run_copy):
    report = files.read_json(run_copy / "report.json")
    other = run_copy / "evaluations" / "o|ther" / "report.json"
    other.parent.mkdir(parents=True)
    shared = {"speakers": None, "sentences": None, "recordings": 3}
    changes = {"corpus": "o|ther", "selected_on": "test", "shared": shared}
    other.write_text(json.dumps(report | changes))
    models = {}
    for given in (run_copy, run_copy / "fold_01"):
        export.run(given)
        facts = json.loads((given / "export" / "model.json").read_text())
        models[given.name] = [score["judged_by"] for score in facts["scores"]]
    each = "each fold's model, on the utterances that its fold tests"
    assert models == {"run": [each, "this file"], "fold_01": [each, "the mean of 3 models"]}
    readme = (run_copy / "export" / "README.md").read_text()
    assert "| o\\|ther |" in readme
    assert "The test fold chose the epoch" in readme
    assert "share 3 recordings" in readme


@pytest.mark.usefixtures("_quick")
def test_a_synthetic_run_is_called_so(tmp_path):
    config = tiny.config()
    config.synthetic = True
    fold = untrained(tmp_path / "fold_00", config)
    export.run(fold)
    facts = json.loads((fold / "export" / "model.json").read_text())
    assert facts["synthetic"] is True
    assert "generated" in facts["licences"][0]
    assert facts["scores"] == []
    readme = (fold / "export" / "README.md").read_text()
    assert "Trained on synthetic speech" in readme
    assert "nothing was tested" in readme


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("changed", [False, True])
def test_the_readme_says_how_recordings_are_read_and_what_is_never_answered(tmp_path, changed):
    config, trained = tiny.config(), list(LABELS)
    if changed:
        config.trim, config.channel = 30.0, "left"
        trained.remove("DISGUST")
        trained.remove("SURPRISE")
    fold = untrained(tmp_path / "fold_00", config)
    card = files.read_json(fold / "checkpoints/card.json")
    files.write_json(fold / "checkpoints/card.json", {**card, "trained": trained}, sealed=True)
    export.run(fold)
    facts = json.loads((fold / "export/model.json").read_text())
    readme = (fold / "export/README.md").read_text()
    expected = (30.0, "left", ["DISGUST", "SURPRISE"]) if changed else (0.0, "mix", [])
    assert (facts["trim"], facts["channel"], facts["never_answered"]) == expected
    assert ("What lies 30.0 dB below" in readme) == changed
    assert ("No silence is cut off" in readme) != changed
    assert ("the left one is to be taken" in readme) == changed
    assert ("DISGUST, SURPRISE are never answered" in readme) == changed


def test_an_export_is_three_files_that_name_no_folder(exported):
    assert {path.name for path in exported.iterdir()} == {EXPORTED, "README.md", "model.json"}
    content = (exported / EXPORTED).read_bytes()
    assert str(Path(export.__file__).parents[1]).encode() not in content
    assert jax.export.deserialize(bytearray(content)).platforms == export.PLATFORMS


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("system", "lstm"),
        ("system", "ds_svc"),
        ("adapt", "speaker"),
        ("picture.mode", "chroma"),
        ("picture.sample_rate", 0),
    ],
)
def test_a_config_that_cannot_be_exported_is_an_error(field, value, run, tmp_path, monkeypatch):
    config = tiny.config()
    config.update_from_flattened_dict({field: value})
    monkeypatch.setattr(systems, "load_config", lambda checkpoints: config)
    with pytest.raises(ConfigError) as error:
        export.run(run, tmp_path / "export")
    assert (error.value.field, error.value.value) == (field, value)
    assert not (tmp_path / "export").exists()


def test_too_large_a_file_is_refused(run, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "LARGEST", 1000)
    with pytest.raises(ValueError, match=r"3 models .*fold_00"):
        export.run(run, tmp_path / "export")
    assert not (tmp_path / "export").exists()


def test_missing_checkpoints_and_closed_folders_are_named(run, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="--checkpoint"):
        export.run(tmp_path)
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(export, "trace", lambda *arguments: pytest.fail("work before the check"))
    with pytest.raises(OSError, match=r"file/export .*--workdir"):
        export.run(run, tmp_path / "file" / "export")


def test_another_format_is_refused(tmp_path):
    with pytest.raises(ValueError, match="form='onxx'"):
        export.run(tmp_path, form="onxx")
