"""An ensemble's probabilities are the mean of its members', on their folds and elsewhere."""

import dataclasses

import numpy as np
import pytest
import soundfile
import tiny

import ds_jax
from configs import base
from ds_jax import config as configuration
from ds_jax.commands import ensemble, predict
from ds_jax.evaluation import predictions, summary
from ds_jax.runtime.errors import ConfigError
from ds_jax.systems import base as systems
from ds_jax.training import loop

NAMES = ("first", "second", "trees")


def make():
    """Two networks that differ in their seed, and boosted trees."""
    config = tiny.config()
    config.corpus, config.folds.protocol, config.folds.count = "tiny", "speakers", 2
    kinds = zip(NAMES, ("ffnn", "ffnn", "xgboost"), strict=True)
    members = {name: tiny.make(system)[0] for name, system in kinds}
    for number, member in enumerate(members.values()):
        member.seed = config.get_oneway_ref("seed") + number
    base.use_ensemble(config, **members)
    return config


def load(config, name):
    return dataclasses.replace(tiny.make(config.system)[1], name=name)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("ensemble")
    config = make()
    systems.check(config)
    assert ensemble.run(config, load, workdir)
    return workdir


def mean_of(folders):
    parts = [predictions.read(folder / "predictions.csv") for folder in folders]
    return np.mean([part.probabilities for part in parts], axis=0)


def test_each_fold_is_the_mean_of_the_members(run):
    for fold in ("fold_00", "fold_01"):
        tested = predictions.read(run / fold / "predictions.csv")
        folders = [run / "members" / name / fold for name in NAMES]
        np.testing.assert_allclose(tested.probabilities, mean_of(folders), rtol=1e-12)
        heads = predictions.read_heads([run / fold])
        assert [*heads] == [*NAMES]
        alone = predictions.read(folders[1] / "predictions.csv")
        np.testing.assert_array_equal(heads["second"].probabilities, alone.probabilities)
    first, second = (
        predictions.read(run / "members" / n / fold / "predictions.csv") for n in NAMES[:2]
    )
    assert not np.allclose(first.probabilities, second.probabilities), "their seeds differ"


def test_the_report_is_of_all_and_each_member_has_its_own(run):
    result = summary.read(run / "report.json")
    assert result.system == "mean of 2 FFNN on MFCC, XGBoost on MFCC"
    assert (result.n, result.chosen, result.selected_on) == (42, "", "dev")
    assert {*result.heads} == {*NAMES}
    assert result.settings["members.second.seed"] == 1
    assert result.made["seconds"] == pytest.approx(
        sum(summary.read(run / "members" / name / "report.json").made["seconds"] for name in NAMES)
    )
    for name in NAMES:
        alone = summary.read(run / "members" / name / "report.json")
        assert alone.accuracy["value"] == pytest.approx(result.heads[name]["accuracy"])


def test_a_finished_run_is_not_run_again(run, monkeypatch):
    monkeypatch.setattr(loop, "create_setup", None)
    before = (run / "fold_00" / "predictions.csv").read_bytes()
    assert ensemble.run(make(), load, run)
    assert (run / "fold_00" / "predictions.csv").read_bytes() == before


def test_an_ensemble_can_be_a_member(tmp_path):
    config = tiny.config()
    config.corpus, config.folds.protocol, config.folds.count = "tiny", "speakers", 2
    pair, alone = tiny.config(), tiny.make("mlr")[0]
    base.use_ensemble(pair, ridge=tiny.make("ridge")[0], trees=tiny.make("xgboost")[0])
    base.use_ensemble(config, alone=alone, pair=pair)
    config.folds.seed = 3
    assert pair.members.ridge.folds.seed == 3
    configuration.check_fields(config, base.SCHEMAS)
    systems.check(config)
    assert ensemble.run(config, load, tmp_path)
    result = ensemble.evaluate_on(config, load, tmp_path, "other")
    for place in ("fold_00", "evaluations/other"):
        parts = {
            name: predictions.read(tmp_path / "members" / name / place / "predictions.csv")
            for name in ("alone", "pair/members/ridge", "pair/members/trees")
        }
        shares = [part.probabilities for part in parts.values()]
        wanted = shares[0] / 2 + shares[1] / 4 + shares[2] / 4
        tested = predictions.read(tmp_path / place / "predictions.csv")
        np.testing.assert_allclose(tested.probabilities, wanted, rtol=1e-12)
    assert {*result.heads} == {"alone", "pair"}
    model, waveform = ds_jax.load(tmp_path), np.random.default_rng(0).normal(0, 0.1, 16_000)
    shares = [
        ds_jax.load(tmp_path / "members" / name)(waveform, 16_000)
        for name in ("alone", "pair/members/ridge", "pair/members/trees")
    ]
    wanted = shares[0] / 2 + shares[1] / 4 + shares[2] / 4
    np.testing.assert_allclose(model(waveform, 16_000), wanted, rtol=1e-5)


def test_another_corpus_is_tested_by_the_mean(run):
    result = ensemble.evaluate_on(configuration.read(run), load, run, "other")
    directory = run / "evaluations" / "other"
    tested = predictions.read(directory / "predictions.csv")
    folders = [run / "members" / name / "evaluations" / "other" for name in NAMES]
    np.testing.assert_allclose(tested.probabilities, mean_of(folders), rtol=1e-12)
    assert summary.read(directory / "report.json") == result
    assert (result.trained_on, result.corpus) == ("tiny", "other")


def test_the_mean_answers_in_python_and_on_the_command_line(run, tmp_path, capsys):
    time = np.arange(16_000) / 16_000
    speech = (np.sin(2 * np.pi * 200 * time) * np.exp(-time)).astype(np.float32)
    path = tmp_path / "a.wav"
    soundfile.write(path, speech, 16_000, subtype="FLOAT")
    members = [ds_jax.load(run / "members" / name)(speech, 16_000) for name in NAMES]
    model = ds_jax.load(run)
    assert model.count == 6
    np.testing.assert_allclose(model(speech, 16_000), np.mean(members, axis=0), rtol=1e-5)
    [record] = model.predict(path)
    shares = [record[name] for name in model.classes]
    np.testing.assert_allclose(shares, np.mean(members, axis=0), rtol=1e-4)
    predict.run(run, [path], "csv")
    line = capsys.readouterr().out.splitlines()[-1]
    assert [float(cell) for cell in line.split(",")[4:]] == shares
    with pytest.raises(ValueError, match="members"):
        ds_jax.explain(model, path)


def test_a_member_follows_the_fields_of_the_ensemble():
    config = make()
    config.corpus, config.folds.count, config.seed = "other", 3, 7
    for member in config.members.values():
        assert (member.corpus, member.folds.count) == ("other", 3)
    assert [config.members[name].seed for name in NAMES] == [7, 8, 9]
    assert config.members.second.seeds.order == 8


@pytest.mark.parametrize(
    ("field", "value", "wrong"),
    [
        ("members.trees.model.trees", 0, "members.trees.model.trees"),
        ("members.first.select_on", "test", "members.first.select_on"),
    ],
)
def test_a_wrong_field_of_a_member_is_named(field, value, wrong):
    config = make()
    config.update_from_flattened_dict({field: value})
    with pytest.raises(ConfigError) as caught:
        systems.check(config)
    assert caught.value.field == wrong


def test_an_unknown_field_of_a_member_is_named():
    config = make()
    with config.members.first.unlocked():
        config.members.first.nonsense = 1
    with pytest.raises(ConfigError) as caught:
        configuration.check_fields(config, base.SCHEMAS)
    assert caught.value.field == "members.first.nonsense"


def test_members_with_other_folds_are_refused(run, tmp_path):
    config = make()
    config.members.trees.folds = config.folds.copy_and_resolve_references()
    config.members.trees.folds.count = 3
    with pytest.raises(ConfigError) as caught:
        systems.check(config)
    assert caught.value.field == "members.trees.folds"
