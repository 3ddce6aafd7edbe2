"""Every system is fitted on a fold, writes the same files, and judges from them."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import tiny

from ds_jax.commands import evaluate, train
from ds_jax.data.folds import make_folds
from ds_jax.evaluation import predictions
from ds_jax.models import pretrained
from ds_jax.runtime.files import read_json, write_json
from ds_jax.systems import base as systems


@pytest.fixture(scope="module")
def runs(tmp_path_factory, narrow):
    """A finished run of each system, made when it is first asked for."""
    made = {}

    def of(system):
        if system not in made:
            workdir = tmp_path_factory.mktemp(system)
            config, corpus = tiny.make(system)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(pretrained, "load", lambda path, full: tiny.pretrained())
                assert train.run(config, corpus, workdir)
            made[system] = workdir, corpus
        return made[system]

    return of


@pytest.mark.parametrize("system", tiny.USES)
def test_a_run_leaves_the_same_files_whatever_the_system(runs, system):
    workdir, corpus = runs(system)
    report = json.loads((workdir / "report.json").read_text())
    assert report["n"] == len(corpus.utterances)
    assert report["system"].startswith(systems.SYSTEMS[system])
    assert ("MFCC" in report["system"]) == (system not in ("ds_svc", "ds_fc", "ds_am"))
    assert report["selected_on"] == "dev"
    assert report["shared"]["speakers"] == 0
    for number in range(3):
        fold = workdir / f"fold_{number:02}"
        assert (fold / "metrics.jsonl").is_file()
        assert len(predictions.read(fold / "predictions.csv").labels) == 14
        assert systems.load_config([fold / "checkpoints"]).system == system
    assert "<svg" in (workdir / "report.html").read_text() or report["chosen"] != "epoch"


@pytest.mark.parametrize("system", ["mlr", "svc", "xgboost"])
def test_what_can_be_learnt_is_learnt(runs, system):
    report = json.loads((runs(system)[0] / "report.json").read_text())
    assert report["uar"]["value"] > (0.35 if system == "xgboost" else 0.9)


@pytest.mark.parametrize("system", tiny.USES)
def test_models_judge_from_disk_as_they_did_when_fitted(runs, system, monkeypatch):
    monkeypatch.setattr(pretrained, "load", lambda path, full: tiny.pretrained())
    workdir, corpus = runs(system)
    evaluate.run(workdir, corpus)
    again = predictions.read(workdir / "evaluations" / "tiny" / "predictions.csv")
    first = predictions.concatenate(
        [predictions.read(path) for path in sorted(workdir.glob("fold_*/predictions.csv"))]
    )
    order = np.argsort(first.utterances)
    np.testing.assert_array_equal(first.utterances[order], again.utterances)
    np.testing.assert_allclose(first.probabilities[order], again.probabilities, atol=1e-12)


@pytest.mark.parametrize("system", ["mlr", "svc", "xgboost", "ds_svc", "lstm"])
def test_systems_judge_another_corpus(runs, system, monkeypatch):
    monkeypatch.setattr(pretrained, "load", lambda path, full: tiny.pretrained())
    workdir, corpus = runs(system)
    other = dataclasses.replace(corpus, name="other", inputs=corpus.inputs[::-1].copy())
    report = evaluate.run(workdir, other)
    assert report.trained_on == "tiny"
    assert report.n == len(other.utterances)


@pytest.mark.parametrize("system", ["svc", "lstm"])
@pytest.mark.parametrize("own", [True, False])
def test_models_of_another_fold_judge_nothing(runs, system, own, tmp_path):
    """Whether they were copied, or their folds changed by hand."""
    made, corpus = runs(system)
    workdir = tmp_path / "run"
    corpus = corpus if own else dataclasses.replace(corpus, name="other")
    refused = pytest.raises(ValueError, match="fold_01/checkpoints is of another fold")
    shutil.copytree(made, workdir)
    shutil.rmtree(workdir / "fold_01" / "checkpoints")
    shutil.copytree(made / "fold_00" / "checkpoints", workdir / "fold_01" / "checkpoints")
    with refused:
        evaluate.run(workdir, corpus)
    shutil.rmtree(workdir)
    shutil.copytree(made, workdir)
    content = read_json(workdir / "folds.json")
    content["folds"][1]["train"].pop()
    write_json(workdir / "folds.json", content)
    with refused:
        evaluate.run(workdir, corpus)


def test_c_is_chosen_by_folds_of_the_training_side_s_speakers(monkeypatch, tmp_path):
    config, corpus = tiny.make("svc")
    seen = []

    def fit(system, model, inputs, labels, inner, seed):
        seen.append((inputs, inner))
        raise KeyboardInterrupt

    monkeypatch.setattr(systems.classical, "fit", fit)
    fold = make_folds(corpus.utterances, "speakers", 3, 0)[0]
    fit_folds = systems.create(config, corpus, "speakers")
    with pytest.raises(KeyboardInterrupt):
        next(fit_folds({0: fold}, tmp_path))
    rows = corpus.rows_of(fold.train + fold.dev)
    [(inputs, inner)] = seen
    np.testing.assert_array_equal(inputs, corpus.inputs[rows])
    speaker = np.asarray([corpus.utterances[row].speaker for row in rows])
    assert len(inner) == len(set(speaker)) == 2
    for fitted, held_out in inner:
        assert sorted([*fitted, *held_out]) == list(range(len(rows)))
        assert not set(speaker[fitted]) & set(speaker[held_out])


def test_the_test_side_touches_no_fit(tmp_path):
    """Whatever stands in the test rows, the fitted classifier is the same."""
    config, corpus = tiny.make("svc")
    fold = make_folds(corpus.utterances, "speakers", 3, 0)[0]
    changed = corpus.inputs.copy()
    changed[corpus.rows_of(fold.test)] = 1e6
    saved = []
    for number, inputs in enumerate((corpus.inputs, changed)):
        of = dataclasses.replace(corpus, inputs=inputs)
        directory = tmp_path / str(number)
        list(systems.create(config, of, "speakers")({0: fold}, directory))
        saved.append(systems.classical.load(directory / "fold_00" / "checkpoints")[1])
    assert saved[0].settings == saved[1].settings
    assert saved[0].tried == saved[1].tried
    seen = corpus.inputs[corpus.rows_of(fold.train)]
    np.testing.assert_array_equal(saved[0].probabilities(seen), saved[1].probabilities(seen))


def test_vgg_features_are_computed_once_for_all_folds(monkeypatch, tmp_path, narrow):
    monkeypatch.setattr(pretrained, "load", lambda path, full: tiny.pretrained())
    calls, compute = [], systems.vgg_features.compute

    def counted(*arguments):
        calls.append(arguments)
        return compute(*arguments)

    monkeypatch.setattr(systems.vgg_features, "compute", counted)
    config, corpus = tiny.make("ds_svc")
    train.run(config, corpus, tmp_path)
    assert len(calls) == 1


def test_a_single_cost_is_reported_too(tmp_path):
    config, corpus = tiny.make("svc")
    config.model.costs = (1.0,)
    assert train.run(config, corpus, tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert [fold["C"] for fold in report["folds"]] == [1.0] * 3


def test_a_classifier_s_windows_are_averaged(monkeypatch, tmp_path, narrow):
    monkeypatch.setattr(pretrained, "load", lambda path, full: tiny.pretrained())
    config, _ = tiny.make("ds_svc")
    corpus = tiny.corpus(21, windows=2)
    assert train.run(config, corpus, tmp_path)
    assert json.loads((tmp_path / "report.json").read_text())["n"] == 21


@pytest.mark.parametrize(
    ("system", "field", "value", "message"),
    [
        ("svc", "system", "svm", "system='svm' is not one of"),
        ("svc", "system", "ds_am", "system='ds_am' needs the field picture"),
        ("ds_am", "system", "svc", "system='svc' needs the field features"),
        ("svc", "select_on", "test", "select_on='test' lets the test fold choose the epoch"),
        ("svc", "features", "mfcc_frames", "features='mfcc_frames' are sequences"),
        ("svc", "features", "mfc", "features='mfc'"),
        ("svc", "model.kernel", "cubic", r"model\.kernel='cubic'"),
        ("ds_svc", "model.layers", ("fc2",), "picture.size=224"),
        ("ds_svc", "picture.preprocessing", "torch", "preprocessing='torch'"),
        ("ffnn", "features", "mfcc_frames", "are sequences"),
    ],
)
def test_impossible_fields_are_named_before_any_work(system, field, value, message):
    config, _ = tiny.make(system)
    config.update_from_flattened_dict({field: value})
    with pytest.raises(ValueError, match=message):
        systems.check(config)


@pytest.mark.parametrize("system", tiny.USES)
def test_titles_name_system_and_features(system):
    config, _ = tiny.make(system)
    systems.check(config)
    assert systems.title(config).startswith(systems.SYSTEMS[system])


def test_the_epoch_or_c_of_a_fold_is_reported(runs):
    for system, field in (("svc", "C"), ("ds_svc", "C"), ("ffnn", "epoch")):
        report = json.loads((runs(system)[0] / "report.json").read_text())
        assert report["chosen"] == field
        assert all(fold[field] > 0 for fold in report["folds"])
    report = json.loads((runs("mlr")[0] / "report.json").read_text())
    assert report["chosen"] == ""
