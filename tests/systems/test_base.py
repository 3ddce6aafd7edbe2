"""Every system is fitted on folds, writes the same files, and predicts from them."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
from refusals import refused_field

from ds_jax.commands import evaluate, train
from ds_jax.data.extension import with_variants
from ds_jax.data.folds import make_folds
from ds_jax.evaluation import predictions
from ds_jax.models.vgg16 import VGG16
from ds_jax.runtime.errors import ConfigError
from ds_jax.runtime.files import read_json, write_json
from ds_jax.runtime.workdir import CHECKPOINTS
from ds_jax.systems import base as systems
from ds_jax.systems import classifier_system, classifiers
from ds_jax.systems.deep_features import LayerFeatures
from ds_jax.training.checkpoints import CARD

# Ridges differ from support vectors in their fit alone, and these networks from the other two in
# what lies between inputs and logits, all of which has tests of its own.
SLOW = ("ds_ridge", "ridge", "ds_am", "ds_fc", "lstm")
every_system = pytest.mark.parametrize(
    "system",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name
        for name in systems.SYSTEMS
    ],
)


@pytest.fixture
def copied(finished_runs, tmp_path):
    """A function from a system to a copy of its finished run, and to the corpus of the run."""

    def copy(system):
        return shutil.copytree(finished_runs(system), tmp_path / "run"), tiny.make(system)[1]

    return copy


@every_system
def test_a_run_leaves_the_same_files_whatever_the_system(finished_runs, system):
    workdir, (config, corpus) = finished_runs(system), tiny.make(system)
    report = json.loads((workdir / "report.json").read_text())
    assert report["n"] == len(corpus.utterances)
    assert report["system"] == systems.title(config)
    assert report["system"].startswith(systems.SYSTEMS[system].title)
    assert ("MFCC" in report["system"]) == (systems.SYSTEMS[system].reads == "features")
    assert report["shared"]["speakers"] == 0
    assert report["chosen"] == systems.SYSTEMS[system].chooses
    assert report["selected_on"] == (config.select_on if "train" in config else "none")
    for number, record in enumerate(report["folds"]):
        fold = workdir / f"fold_{number:02}"
        assert (fold / "metrics.jsonl").is_file()
        assert len(predictions.read(fold / "predictions.csv").labels) == 14
        assert not report["chosen"] or record[report["chosen"]] > 0
    assert systems.load_config(sorted(workdir.glob("fold_*/checkpoints"))).system == system


@pytest.mark.parametrize("system", ["mlr", "svc", "xgboost"])
def test_what_can_be_learnt_is_learnt(finished_runs, system):
    report = json.loads((finished_runs(system) / "report.json").read_text())
    assert report["uar"]["value"] > (0.35 if system == "xgboost" else 0.9)


@pytest.mark.usefixtures("tiny_weights")
@every_system
def test_models_predict_from_disk_as_they_did_when_fitted(copied, system):
    workdir, corpus = copied(system)
    evaluate.run(workdir, corpus)
    again = predictions.read(workdir / "evaluations" / "tiny" / "predictions.csv")
    first = predictions.concatenate(
        [predictions.read(path) for path in sorted(workdir.glob("fold_*/predictions.csv"))]
    )
    order = np.argsort(first.utterances)
    np.testing.assert_array_equal(first.utterances[order], again.utterances)
    np.testing.assert_allclose(first.probabilities[order], again.probabilities, atol=1e-12)


@pytest.mark.usefixtures("tiny_weights")
@pytest.mark.parametrize(
    "system",
    ["ds_am_statistics", "ds_svc", "lstm", "mlr", "xgboost"]
    + [pytest.param(name, marks=pytest.mark.slow) for name in ("ds_am", "ds_fc", "ds_ridge")],
)
def test_all_models_together_predict_the_mean_of_each(finished_runs, system):
    corpus = tiny.make(system)[1]
    checkpoints = sorted(finished_runs(system).glob("fold_*/checkpoints"))
    rows = dict.fromkeys(checkpoints, np.arange(5, dtype=np.int32))
    of_system = systems.implementation(systems.load_config(checkpoints))
    each = [predicted.probabilities for _, predicted in of_system.predict(rows, corpus)]
    together = of_system.load_ensemble(checkpoints)(corpus.inputs[:5], 8)()
    np.testing.assert_allclose(together.probabilities, np.mean(each, axis=0), atol=1e-5)
    assert len(each) == 3


@pytest.mark.usefixtures("tiny_weights")
def test_deep_features_of_another_corpus_are_predicted(copied):
    """As those of other systems are, see `test_classes.py`."""
    workdir, corpus = copied("ds_svc")
    other = dataclasses.replace(corpus, name="other", inputs=corpus.inputs[::-1].copy())
    report = evaluate.run(workdir, other)
    assert (report.trained_on, report.n) == ("tiny", len(other.utterances))


@pytest.mark.parametrize("system", ["svc", "lstm"])
@pytest.mark.parametrize("change", ["a model was copied", "folds were changed by hand"])
def test_models_of_another_fold_predict_nothing(copied, system, change):
    workdir, corpus = copied(system)
    if change == "a model was copied":
        shutil.rmtree(workdir / "fold_01" / CHECKPOINTS)
        shutil.copytree(workdir / "fold_00" / CHECKPOINTS, workdir / "fold_01" / CHECKPOINTS)
    else:
        content = read_json(workdir / "folds.json")
        content["folds"][1]["train"].pop()
        write_json(workdir / "folds.json", content)
    for evaluated in (corpus, dataclasses.replace(corpus, name="other")):
        with pytest.raises(ValueError, match="fold_01/checkpoints is of another fold"):
            evaluate.run(workdir, evaluated)


@pytest.mark.parametrize("system", ["svc", "lstm"])
def test_the_card_of_a_model_names_its_system_and_is_checked(copied, system):
    """Whatever files lie in the folder, and whether it lies in a run or alone."""
    workdir, _ = copied(system)
    folder = workdir / "fold_00" / CHECKPOINTS
    other = shutil.copytree(folder, workdir / "alone")
    assert systems.load_config([other]).system == system
    for field in ("trim", "channel", "raw_rate", "adapt"):  # which earlier versions did not have
        tiny.tamper(other / CARD, lambda card, field=field: card["config"].pop(field))
    assert systems.load_config([folder, other]).channel == "mix"
    tiny.tamper(other / CARD, lambda card: card["config"].update(seed=5))
    with pytest.raises(ValueError, match="two experiments: seed is 0"):
        systems.load_config([folder, other])
    tiny.tamper(other / CARD, lambda card: card["config"].update(system="svm"))
    with pytest.raises(ValueError, match="system='svm'"):
        systems.load_config([other])
    (other / CARD).unlink()
    with pytest.raises(FileNotFoundError, match=str(other)):
        systems.load_config([other])


@pytest.mark.parametrize("variants", [0, 2])
def test_c_is_chosen_by_folds_of_the_speakers_that_are_fitted(monkeypatch, tmp_path, variants):
    """Variants are fitted with their recordings, and choose nothing."""
    config, recorded = tiny.make("svc")
    corpus, calls = with_variants(recorded, [recorded] * variants), []

    def fit(kind, model, inputs, labels, inner, seed, weights):
        assert weights is None
        calls.append((kind, inputs, inner))
        raise KeyboardInterrupt

    monkeypatch.setattr(classifiers, "fit", fit)
    fold = make_folds(corpus.utterances, "speakers", 3, 0)[0]
    fit_folds = classifier_system.fit(config, corpus, "speakers")
    with pytest.raises(KeyboardInterrupt):
        next(fit_folds({0: fold}, tmp_path))
    rows = corpus.training_rows(fold.train + fold.dev)
    [(kind, inputs, inner)] = calls
    assert kind is classifiers.SVC
    np.testing.assert_array_equal(inputs, corpus.inputs[rows])
    assert len(rows) == (1 + variants) * len(fold.train + fold.dev)
    speaker = np.asarray([corpus.utterances[owner].speaker for owner in corpus.owners[rows]])
    assert len(inner) == len(set(speaker)) == 2
    for fitted, held_out in inner:
        assert (rows[held_out] < len(recorded.inputs)).all()
        assert len(fitted) + (1 + variants) * len(held_out) == len(rows)
        assert not set(speaker[fitted]) & set(speaker[held_out])


def test_the_test_split_changes_no_fit(tmp_path):
    config, corpus = tiny.make("svc")
    fold = make_folds(corpus.utterances, "speakers", 3, 0)[0]
    changed = corpus.inputs.copy()
    changed[corpus.rows_of(fold.test)] = 1e6
    saved = []
    for number, inputs in enumerate((corpus.inputs, changed)):
        directory, given = tmp_path / str(number), dataclasses.replace(corpus, inputs=inputs)
        list(classifier_system.fit(config, given, "speakers")({0: fold}, directory))
        saved.append(classifiers.load(classifiers.SVC, directory / "fold_00" / CHECKPOINTS))
    assert saved[0].settings == saved[1].settings
    assert saved[0].tried == saved[1].tried
    fitted = corpus.inputs[corpus.rows_of(fold.train)]
    np.testing.assert_array_equal(
        saved[0].probabilities(fitted, 7), saved[1].probabilities(fitted, 7)
    )


@pytest.mark.usefixtures("tiny_weights")
def test_features_are_computed_once_for_all_folds_and_windows_are_averaged(monkeypatch, tmp_path):
    calls, compute = [], LayerFeatures.compute

    def counted(*arguments):
        calls.append(arguments)
        return compute(*arguments)

    monkeypatch.setattr(LayerFeatures, "compute", counted)
    config, _ = tiny.make("ds_svc")
    assert train.run(config, tiny.corpus(21, windows=2), tmp_path)
    assert len(calls) == 1
    assert json.loads((tmp_path / "report.json").read_text())["n"] == 21


@pytest.mark.parametrize(
    ("system", "name", "values", "field"),
    [
        ("svc", "system", ["ds_am"], "picture"),
        ("ds_am", "system", ["svc"], "features"),
        ("ds_am", "system", ["ds_fc"], "model.head"),
        ("ds_fc", "system", ["ds_am"], "model.gates"),
        ("svc", "select_on", ["test"], ""),
        ("svc", "features", ["mfcc_frames"], ""),
        ("ffnn", "features", ["mfcc_frames"], ""),
        ("svc", "model.kernel", ["cubic"], ""),
        ("svc", "model.scaling", ["minmax"], ""),
        ("svc", "model.costs", [(), (1.0, 0.0), (float("inf"),)], ""),
        ("xgboost", "model.trees", [0, 2.5], ""),
        ("xgboost", "model.depth", [0, 2.5], ""),
        ("xgboost", "model.bins", [1], ""),
        ("xgboost", "model.learning_rate", [0.0, 1.5], ""),
        ("xgboost", "model.column_share", [0.0, 1.5], ""),
        ("lstm", "model.units", [(), (8, 0)], ""),
        ("lstm", "model.dense_units", [0], ""),
        ("ffnn", "model.dropout", [1.0, -0.1], ""),
        ("ds_fc", "model.head", ["mlp"], ""),
        ("ds_fc", "model.head", ["fc"], "picture.size"),
        ("ds_am", "model.freeze", ["block6", "block5"], ""),  # the latter above a gate
        ("ds_am", "model.gates", [("block4",), (), ("block5_pool", "block4_pool")], ""),
        ("ds_am", "model.gates", [("block4_pool", "block4_pool")], ""),
        ("ds_am", "model.loss_weights", [(1.0,), (1.0, -1.0), (0.0, 0.0)], ""),
        ("ds_am", "adapt", ["speaker"], ""),
        ("ds_fc", "adapt", ["speaker"], ""),
        ("ds_svc", "model.layers", [(), ("fc1",), ("block5_pool", "block5pool")], ""),
        ("ds_svc", "model.layers", [("block5_pool", "block5_pool")], ""),
        ("ds_svc", "model.layers", [("block5_pool", "fc2")], "picture.size"),
    ],
)
def test_impossible_fields_are_named_before_any_work(system, name, values, field):
    for value in values:
        config, _ = tiny.make(system)
        systems.check(config)
        with config.ignore_type():
            config.update_from_flattened_dict({name: value})
        assert refused_field(systems.check, config) == (field or name)


@every_system
def test_missing_fields_are_named_before_any_work(system):
    for name in systems.SYSTEMS[system].fields:
        config, _ = tiny.make(system)
        del config.model[name]
        with pytest.raises(ConfigError) as raised:
            systems.check(config)
        assert (raised.value.field, raised.value.value) == (f"model.{name}", None)


@pytest.mark.parametrize(
    ("system", "field", "value"),
    [("ds_svc", "layers", VGG16.feature_layers), ("ds_fc", "head", "fc")],
)
def test_top_layers_are_possible_at_their_size(system, field, value):
    config, _ = tiny.make(system)
    config.picture.size, config.model[field] = VGG16.size, value
    systems.check(config)


def test_a_config_is_checked_without_heavy_libraries():
    program = """
import sys
from configs import base
from ds_jax.systems import base as systems
for schema in base.SCHEMAS.values():
    systems.check(schema())
print({"jax", "flax", "orbax", "sklearn", "xgboost", "tensorflow_datasets"} & {*sys.modules})
"""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", program]
    assert subprocess.check_output(command, cwd=root, text=True) == "set()\n"
