"""Ridges that are joined as kernels are one ridge on all that they read."""

import dataclasses

import numpy as np
import pytest
import tiny
from refusals import refused_field
from sklearn.kernel_ridge import KernelRidge
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight

import ds_jax
from configs import base
from ds_jax import config as configuration
from ds_jax.commands import ensemble
from ds_jax.data import folds
from ds_jax.evaluation import predictions, summary
from ds_jax.systems import base as systems
from ds_jax.systems import classifiers

WIDTHS = {"mfcc": 60, "wu": 46}


def make():
    """Ridges on MFCC and on Wu's measures, whose vectors `load` makes up."""
    config = tiny.config()
    config.corpus, config.folds.protocol, config.folds.count = "tiny", "speakers", 3
    members = {}
    for name in WIDTHS:
        members[name] = tiny.make("ridge")[0]
        members[name].features, members[name].model.costs = name, (3.0,)
    base.use_ensemble(config, **members)
    config.merging = "kernels"
    return config


def load(config, name):
    """Wu's measures say nothing of the first half of the classes, and MFCC nothing of the rest."""
    corpus = dataclasses.replace(tiny.make("ridge")[1], name=name)
    labels, width = corpus.labels, WIDTHS[config.features]
    rng = np.random.default_rng(width)
    places = rng.normal(0, 3, (7, width))
    places[:4] = places[4:].mean(axis=0) if config.features == "wu" else places[:4]
    places[4:] = places[:4].mean(axis=0) if config.features == "mfcc" else places[4:]
    noise = rng.normal(0, 3, (len(labels), width))
    return dataclasses.replace(corpus, inputs=(places[labels] + noise).astype(np.float32))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir, config = tmp_path_factory.mktemp("joined"), make()
    configuration.check_fields(config, base.SCHEMAS)
    systems.check(config)
    assert ensemble.run(config, load, workdir)
    return workdir


@pytest.mark.parametrize("emphasis", ["", "wu"])
def test_the_decisions_are_scikit_learns_on_the_mean_of_the_kernels(run, tmp_path, emphasis):
    config = make()
    if emphasis:
        run, config.emphasis = tmp_path, emphasis
        assert ensemble.run(config, load, run)
        page = " ".join((run / "report.html").read_text().split())
        chosen = [fold["weight"] for fold in summary.read(run / "report.json").folds]
        listed = ", ".join(f"{weight:g}" for weight in chosen)
        assert f"member wu, where each other member has the weight 1: {listed} in the folds" in page
    parts = {name: load(member, "tiny") for name, member in config.members.items()}
    corpus = parts["mfcc"]
    for number, fold in enumerate(folds.make_folds(corpus.utterances, "speakers", 3, 0)):
        saved = classifiers.load(classifiers.Ridge, run / f"fold_{number:02}" / "checkpoints")
        assert ("weight" in saved.settings) == bool(emphasis)
        weights = {name: saved.settings["weight"] if name == emphasis else 1 for name in parts}
        train, test = corpus.rows_of(fold.train + fold.dev), corpus.rows_of(fold.test)
        within, across = 0.0, 0.0
        for name, part in parts.items():
            scaler = StandardScaler().fit(part.inputs[train].astype(float))
            fitted, tested = (scaler.transform(part.inputs[rows]) for rows in (train, test))
            share = weights[name] / sum(weights.values()) / fitted.shape[1]
            within = within + share * fitted @ fitted.T
            across = across + share * tested @ fitted.T
        labels = corpus.labels[train]
        ridge = KernelRidge(alpha=np.trace(within) / len(train) / 3.0, kernel="precomputed")
        balanced = compute_sample_weight("balanced", labels)
        ridge.fit(within, np.eye(7)[labels] - 1 / 7, balanced)
        found = predictions.read(run / f"fold_{number:02}" / "predictions.csv")
        logits = ridge.predict(across) / saved.settings["temperature"]
        wanted = np.exp(logits - logits.max(axis=1, keepdims=True))
        wanted /= wanted.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(found.probabilities, wanted, atol=1e-5)


def test_the_report_sets_each_member_beside_what_all_know_together(run):
    result = summary.read(run / "report.json")
    assert result.system == "one ridge of Ridge on MFCC, Ridge on Wu's measures"
    assert {*result.heads} == {*WIDTHS}
    assert (result.chosen, result.n) == ("C", 42)
    assert result.uar["value"] > max(head["uar"] for head in result.heads.values())
    seconds = [
        summary.read(run / "members" / name / "report.json").made["seconds"] for name in WIDTHS
    ]
    assert result.made["seconds"] > sum(seconds)
    assert ensemble.report_finished(make(), load, run) == result


def test_a_finished_run_is_not_run_again_and_answers_on_another_corpus(run, monkeypatch):
    before = (run / "fold_00" / "predictions.csv").read_bytes()
    monkeypatch.setattr(classifiers, "fit", None)
    assert ensemble.run(make(), load, run)
    assert (run / "fold_00" / "predictions.csv").read_bytes() == before
    result = ensemble.evaluate_on(make(), load, run, "other")
    assert (result.corpus, result.n, len(result.folds)) == ("other", 42, 3)
    assert result.uar["value"] > 0.9  # the same vectors, which two of three folds have seen


def test_parts_add_up_to_the_answer_of_all_folds(run):
    model, rng = ds_jax.load(run), np.random.default_rng(0)
    assert [part.settings.set for part in model.parts] == [*WIDTHS]
    vectors = [rng.normal(0, 3, (4, width)).astype(np.float32) for width in WIDTHS.values()]
    outputs = [
        part.start(inputs, 4)().probabilities
        for part, inputs in zip(model.parts, vectors, strict=True)
    ]
    ridges = [
        classifiers.load(classifiers.Ridge, fold / "checkpoints")
        for fold in sorted(run.glob("fold_*"))
    ]
    whole = np.concatenate(vectors, axis=1)
    wanted = np.mean([ridge.probabilities(whole, 7) for ridge in ridges], axis=0)
    np.testing.assert_allclose(model.merge(outputs), wanted, atol=1e-6)
    one = ds_jax.load(run / "fold_01")
    outputs = [
        part.start(inputs, 4)().probabilities
        for part, inputs in zip(one.parts, vectors, strict=True)
    ]
    np.testing.assert_allclose(one.merge(outputs), ridges[1].probabilities(whole, 7), atol=1e-6)
    waveforms = rng.normal(0, 0.1, (2, 16_000))
    together = model(waveforms, 16_000)
    assert together.shape == (2, 7)
    np.testing.assert_allclose(together[1], model(waveforms[1], 16_000), atol=1e-6)


def test_ridges_have_no_gates_to_explain(run):
    with pytest.raises(ValueError, match="no attention gates"):
        ds_jax.load(run).check_gates()


def test_joined_ridges_can_be_a_member(run, tmp_path):
    config = tiny.config()
    config.corpus, config.folds.protocol, config.folds.count = "tiny", "speakers", 3
    alone = tiny.make("mlr")[0]
    base.use_ensemble(config, alone=alone, ridges=make())
    systems.check(config)
    assert config.members.ridges.merging == "kernels"
    assert ensemble.run(config, load_any, tmp_path)
    model, waveform = ds_jax.load(tmp_path), np.random.default_rng(0).normal(0, 0.1, 16_000)
    shares = [
        ds_jax.load(tmp_path / "members" / name)(waveform, 16_000) for name in ("alone", "ridges")
    ]
    np.testing.assert_allclose(model(waveform, 16_000), np.mean(shares, axis=0), atol=1e-6)
    tested = predictions.read(tmp_path / "fold_00" / "predictions.csv")
    parts = [
        predictions.read(tmp_path / "members" / name / "fold_00" / "predictions.csv").probabilities
        for name in ("alone", "ridges")
    ]
    np.testing.assert_allclose(tested.probabilities, np.mean(parts, axis=0), rtol=1e-12)


def load_any(config, name):
    return load(config, name) if config.system == "ridge" else tiny.make(config.system)[1]


def test_members_need_the_same_recordings(tmp_path):
    def load_some(config, name):
        corpus = load(config, name)
        if config.features == "mfcc":
            return corpus
        return dataclasses.replace(
            corpus,
            utterances=corpus.utterances[1:],
            inputs=corpus.inputs[1:],
            owners=corpus.owners[1:] - 1,
        )

    with pytest.raises(ValueError, match=r"'u00'.*'wu'"):
        ensemble.run(make(), load_some, tmp_path)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"members.wu.model.kernel": "rbf"}, "members.wu.model.kernel"),
        ({"members.wu.model.costs": (1.0,)}, "members"),
        ({"members.wu.model.scaling": "none"}, "members"),
        ({"adapt": "speaker"}, "merging"),
        ({"merging": "sum"}, "merging"),
        ({"emphasis": "compare"}, "emphasis"),
        ({"emphasis": "wu", "merging": "mean"}, "emphasis"),
    ],
)
def test_what_cannot_be_joined_is_refused_before_any_work(changes, field):
    config = make()
    config.update_from_flattened_dict(changes)
    assert refused_field(systems.check, config) == field


def test_networks_cannot_be_joined():
    config = base.get_config()
    base.use_ds_am_best(config)
    config.merging = "kernels"
    assert refused_field(systems.check, config) == "members.deviations_0.system"
