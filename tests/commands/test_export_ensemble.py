"""An exported ensemble gives the probabilities of --mode=predict, and shares what members share."""

import exports
import jax
import numpy as np
import pytest
import tiny
from exports import RATE, batch_of, load
from refusals import refused_field

import ds_jax
from configs import base
from ds_jax import config as configuration
from ds_jax.commands import export
from ds_jax.runtime import files

pytestmark = pytest.mark.usefixtures("narrow")


def member(seed, folds=1, **changes):
    """The config of a member, and the variables of each of its folds."""
    config, corpus = tiny.make("ds_am_statistics")
    config.update_from_flattened_dict(changes)
    setup = tiny.setup(config, corpus)
    return config, [tiny.state(setup, seed + number).variables for number in range(folds)]


def save(workdir, **members):
    """Writes an ensemble of finished members."""
    config = tiny.config()
    for number in range(min(len(of_folds) for _, of_folds in members.values())):
        (workdir / f"fold_{number:02}").mkdir(parents=True)
        (workdir / f"fold_{number:02}" / "predictions.csv").touch()
    base.use_ensemble(config, **{name: each for name, (each, _) in members.items()})
    configuration.write(config, workdir)
    for name, (each, of_folds) in members.items():
        for number, variables in enumerate(of_folds):
            fold = workdir / "members" / name / f"fold_{number:02}"
            tiny.save(fold / "checkpoints", variables, each)
            (fold / "predictions.csv").touch()
    return workdir


@pytest.fixture(scope="module")
def ensemble(narrow, tmp_path_factory):
    """Levels with two seeds, of which one has two folds, and differences to the bands' means."""
    deviations = {"picture.subtract_band_means": True, "picture.window": 0.7, "generate.share": 0.5}
    levels = {"first": member(0, folds=2), "second": member(7)}
    return save(tmp_path_factory.mktemp("ensemble"), **levels, third=member(3, **deviations))


@pytest.fixture(scope="module")
def expected(ensemble):
    model = ds_jax.load(ensemble)
    found = np.stack([model(samples, RATE) for samples in exports.waves()])
    assert found.std(axis=0).max() > 1e-4
    return found


@pytest.mark.parametrize("form", ["onnx", pytest.param("stablehlo", marks=pytest.mark.slow)])
def test_it_gives_the_mean_of_the_members(ensemble, expected, form, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "PLATFORMS", ("cpu",))
    export.run(ensemble, tmp_path, form)
    found = load(tmp_path)(*batch_of(exports.waves(), 50_001, 7.0))
    if form == "stablehlo":
        again = ds_jax.load(tmp_path)(exports.waves(), RATE)
        np.testing.assert_allclose(again, expected, atol=1e-5)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    facts = files.read_json(tmp_path / "model.json")
    assert [len(each["models"]) for each in facts["members"]] == [2, 1, 1]
    assert len(facts["models"]) == 4
    assert [each["generated"] for each in facts["members"]] == [False, False, True]
    assert facts["generated"] is True
    readme = (tmp_path / "README.md").read_text()
    assert readme.count("fold_00 at epoch 1") == 3
    assert "longer than 0.7 s" in readme
    assert "Generated pictures were part of the training" in readme


def test_one_fold_is_that_fold_of_each_member(ensemble):
    fold = ds_jax.load(ensemble / "fold_00")
    assert fold.card["models"] == [{"fold": "fold_00", "epoch": 1}] * 3
    np.testing.assert_allclose([weight for weight, _ in fold.weighted], [2 / 3, 1 / 3])
    runs = list(export._runs(ensemble / "fold_00"))
    folders = [ensemble / "members" / name / "fold_00" for name in ("first", "second", "third")]
    assert [run.checkpoints for run in runs] == [[folder / "checkpoints"] for folder in folders]
    np.testing.assert_allclose([run.weight for run in runs], 1 / 3)


def test_a_fold_that_a_member_has_not_finished_is_named(ensemble):
    with pytest.raises(FileNotFoundError, match="fold_01"):
        ds_jax.load(ensemble / "fold_01")


def test_members_share_pictures_and_frozen_blocks(ensemble):
    runs = list(export._runs(ensemble))
    parts = export._parts(runs)
    weights = [[weight for weight, _ in part.models] for part in parts]
    np.testing.assert_allclose(weights[0], [1 / 6, 1 / 6, 1 / 3])
    np.testing.assert_allclose(weights[1], [1 / 3])
    frozen = [jax.tree.leaves(export._frozen(part.network, part.models)) for part in parts]
    assert frozen[0]
    assert all(one is other for one, other in zip(*frozen, strict=True))


def test_what_cannot_be_exported_is_named_with_its_member(tmp_path):
    trees = export.Run("members.trees.", 0.5, tiny.make("xgboost")[0], [])
    assert refused_field(lambda: trees.settings) == "members.trees.system"
    other = member(1, **{"picture.sample_rate": 8000})
    folder = save(tmp_path, first=member(0), other=other)
    assert refused_field(export.run, folder) == "members.other.picture.sample_rate"
