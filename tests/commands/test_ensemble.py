"""An ensemble's probabilities are the mean of its members', on their folds and elsewhere."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny
from refusals import refused_field

import ds_jax
from configs import base
from ds_jax import config as configuration
from ds_jax.commands import ensemble, predict
from ds_jax.data import recordings
from ds_jax.evaluation import predictions, summary
from ds_jax.features.audio import Windowing
from ds_jax.runtime import files
from ds_jax.systems import base as systems
from ds_jax.systems import ensemble as finished
from ds_jax.systems import model
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
    assert (result.n, result.chosen, result.selected_on) == (42, "epoch", "dev")
    assert {*result.heads} == {*NAMES}
    assert "The epoch was chosen on a development set" in (run / "report.html").read_text("utf-8")
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


@pytest.mark.slow
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
    assert not ensemble.run(config, load, tmp_path, [0])
    result = ensemble.report_finished(config, load, tmp_path)
    assert ([fold["fold"] for fold in result.folds], result.missing_folds) == ([0], [1])
    assert ensemble.run(config, load, tmp_path)
    result = summary.read(tmp_path / "report.json")
    parts = [summary.read(tmp_path / f"members/{name}/report.json") for name in ("alone", "pair")]
    assert result.made["seconds"] == pytest.approx(sum(part.made["seconds"] for part in parts))
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


class Part(model.Model):
    """Answers for the windows that it is given, the rest being too short for it."""

    def __init__(self, share, usable):
        self.share, self.usable, self.count = share, usable, 1
        self.settings, self.never_answered = None, ()

    def rows(self, found, windowing, unusable, quiet=False, say=None):
        for recording in found:
            for start in (0.0, 1.0, 2.0):
                window = recordings.Window(recording, 3.0, start, start + 1, 16_000, None)
                if (recording.title, start) in self.usable:
                    yield model.Row(window, np.array([self.share, start]), {})
                else:
                    unusable.append(recordings.Unusable(recording.title, f"at {start}"))
        say("note: they hiss")


def test_a_window_that_a_member_cannot_use_is_unusable_and_moves_no_other():
    found = [recordings.Recording(Path(name), Path(), name) for name in "ab"]
    every = [(one.title, start) for one in found for start in (0.0, 1.0, 2.0)]
    parts = [(0.5, Part(0, every)), (0.5, Part(1, [every[i] for i in (0, 1, 3, 5)]))]
    mean = finished.Ensemble(tiny.config(), parts, dict)
    unusable, said = [], []
    rows = [*mean.rows(found, Windowing(1.0), unusable, True, said.append)]
    assert [(row.window.recording.title, row.window.start) for row in rows] == parts[1][1].usable
    assert all(row.probabilities.tolist() == [0.5, row.window.start] for row in rows)
    assert [item.title for item in unusable] == ["a", "b"]
    assert said == ["note: they hiss"]


def test_files_of_members_may_move_and_epochs_that_are_chosen_may_grow(tmp_path):
    config, pair = tiny.config(), tiny.config()
    scheduled = tiny.make("ds_am_statistics")[0]
    base.use_ensemble(pair, ffnn=tiny.make("ffnn")[0], scheduled=scheduled)
    base.use_ensemble(config, pair=pair)
    before = config.copy_and_resolve_references()
    config.weights = "/home/ana/weights.h5"
    config.members.pair.members.ffnn.train.epochs += 1
    assert not configuration.difference(before, config)
    files.write_json(tmp_path / "config.json", config.to_dict())
    with pytest.raises(ValueError, match="ffnn"):
        configuration.check_same(before, tmp_path)
    described = configuration.describe(config)
    assert described["members.pair.members.scheduled.weights"] == "weights.h5"
    scheduled.train.epochs += 1
    assert "scheduled.train.epochs" in configuration.difference(before, config)


def test_another_corpus_is_tested_by_the_mean(run):
    result = ensemble.evaluate_on(configuration.read(run), load, run, "other")
    directory = run / "evaluations" / "other"
    tested = predictions.read(directory / "predictions.csv")
    folders = [run / "members" / name / "evaluations" / "other" for name in NAMES]
    np.testing.assert_allclose(tested.probabilities, mean_of(folders), rtol=1e-12)
    assert summary.read(directory / "report.json") == result
    assert (result.trained_on, result.corpus) == ("tiny", "other")
    assert result.untrained == {}


def test_members_of_a_whole_corpus_never_answer_with_a_class_that_it_lacks(tmp_path, capsys):
    config = tiny.config()
    config.corpus, config.folds.protocol = "tiny", "whole_corpus"
    config.classes = (*config.classes, "CALM")
    base.use_ensemble(config, mlr=tiny.make("mlr")[0], trees=tiny.make("xgboost")[0])

    def with_calm(member, name):
        return dataclasses.replace(load(member, name), classes=tuple(config.classes))

    systems.check(config)
    assert ensemble.run(config, with_calm, tmp_path)
    assert not (tmp_path / "report.json").exists()  # nothing was tested
    result = ensemble.evaluate_on(config, with_calm, tmp_path, "other")
    assert (result.n, result.protocol, result.untrained) == (42, "whole_corpus", {"CALM": 2})
    soundfile.write(tmp_path / "a.wav", np.sin(np.arange(16_000) / 9), 16_000)
    predict.run(tmp_path, [tmp_path / "a.wav"])
    said = capsys.readouterr().err
    assert said.count("CALM is never answered") == 1
    assert ds_jax.load(tmp_path / "members/mlr").never_answered == ("CALM",)


def test_the_mean_answers_in_python_and_on_the_command_line(run, tmp_path, capsys):
    time = np.arange(16_000) / 16_000
    speech = (np.sin(2 * np.pi * 200 * time) * np.exp(-time)).astype(np.float32)
    path = tmp_path / "a.wav"
    soundfile.write(path, speech, 16_000, subtype="FLOAT")
    members = [ds_jax.load(run / "members" / name)(speech, 16_000) for name in NAMES]
    model = ds_jax.load(run)
    assert model.count == len(model.card["models"]) == 6
    assert model.card["system"] == summary.read(run / "report.json").system
    assert [member["system"] for member in model.card["members"]][2] == "XGBoost on MFCC"
    assert not model.card["synthetic"]
    assert model.card["scores"][0]["n"] == 42
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
    assert refused_field(systems.check, config) == wrong


def test_all_members_choose_their_epochs_alike():
    config = tiny.config()
    base.use_ds_am_fused(config)
    assert config.select_on == "none"
    systems.check(config)
    config, pair = tiny.config(), tiny.config()
    base.use_ensemble(pair, ffnn=tiny.make("ffnn")[0])
    pair.select_on = pair.members.ffnn.select_on = "test"
    base.use_ensemble(config, pair=pair)
    config.select_on = "dev"
    assert refused_field(systems.check, config) == "members.pair.select_on"
    base.use_ensemble(config := tiny.config(), mlr=tiny.make("mlr")[0])
    config.select_on = "test"
    assert refused_field(systems.check, config) == "select_on"


def test_an_unknown_field_of_a_member_is_named():
    config = make()
    with config.members.first.unlocked():
        config.members.first.nonsense = 1
    assert (
        refused_field(configuration.check_fields, config, base.SCHEMAS) == "members.first.nonsense"
    )


def test_members_with_other_folds_are_refused():
    config = make()
    config.members.trees.folds = config.folds.copy_and_resolve_references()
    config.members.trees.folds.count = 3
    assert refused_field(systems.check, config) == "members.trees.folds"
