"""A finished run that is given more epochs ends as if they had been wanted first."""

import shutil
from unittest import mock

import pytest
import tiny

from ds_jax import config as configuration
from ds_jax.commands import report, train
from ds_jax.evaluation import summary
from ds_jax.training.checkpoints import read_card
from ds_jax.training.fold import FoldState

pytestmark = pytest.mark.usefixtures("tiny_weights")


def grown(workdir, epochs, **fields):
    """Gives a run of `tiny.run_config` more epochs."""
    config = tiny.run_config(**{"train.epochs": epochs, **fields})
    assert train.run(config, tiny.corpus(21), workdir)


def results(workdir):
    tables = [path.read_bytes() for path in sorted(workdir.glob("fold_*/predictions*.csv"))]
    return tables, summary.read(workdir / "report.json")


def kept_epochs(workdir):
    return [
        sorted(path.name for path in folder.glob("[0-9]*"))
        for folder in sorted(workdir.glob("fold_*/checkpoints"))
    ]


@pytest.fixture(scope="module")
def three_epochs(narrow, tmp_path_factory):
    """A run that was given three epochs from the first."""
    workdir = tmp_path_factory.mktemp("three_epochs")
    with tiny.given_weights():
        grown(workdir, 3)
    return workdir


@pytest.mark.parametrize(
    "kept",
    [
        pytest.param(True, id="goes_on"),
        pytest.param(False, id="anew", marks=pytest.mark.slow),
    ],
)
def test_more_epochs_end_as_if_they_had_been_wanted_first(
    run_copy, three_epochs, capsys, monkeypatch, kept
):
    assert kept_epochs(run_copy) == [["1"]] * 3
    record = configuration.recorded(run_copy)
    monkeypatch.setattr("sys.argv", ["launch.py", "--config.train.epochs=3"])
    if not kept:
        for folder in run_copy.glob("fold_*/checkpoints/1"):
            shutil.rmtree(folder)
    capsys.readouterr()
    grown(run_copy, 3)
    printed = capsys.readouterr().out
    assert ("going on after epoch 1" in printed) == kept
    assert ("trained anew" in printed) != kept
    assert results(run_copy) == results(three_epochs)
    assert configuration.read(run_copy).train.epochs == 3
    command = "python launch.py --config.train.epochs=3"
    assert configuration.recorded(run_copy) == record | {"command": command}
    before = tiny.fold_times(run_copy)
    grown(run_copy, 3)
    assert tiny.fold_times(run_copy) == before


@pytest.mark.slow
def test_the_model_of_a_finished_fold_stays_the_best_until_a_later_epoch_is_better(
    tmp_path, monkeypatch
):
    config = tiny.run_config(**{"train.epochs": 3, "train.new_learning_rate": 0.1})
    corpus, more = tiny.corpus(21), config.copy_and_resolve_references()
    more.train.epochs = 5
    train.run(config, corpus, tmp_path / "grown", [1])
    model = tmp_path / "grown" / "fold_01" / "checkpoints" / "model.safetensors"
    best = read_card(model.parent)["epoch"]
    assert best < 3
    assert kept_epochs(tmp_path / "grown") == [["3"]]
    before = model.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(FoldState, "batches", mock.Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train.run(more, corpus, tmp_path / "grown", [1])
    assert (model.parent / "best.json").exists()
    train.run(more, corpus, tmp_path / "grown", [1])
    train.run(more, corpus, tmp_path / "straight", [1])
    folders = [tmp_path / name / "fold_01" for name in ("grown", "straight")]
    assert len({(folder / "predictions.csv").read_bytes() for folder in folders}) == 1
    assert read_card(model.parent)["epoch"] == best
    assert model.read_bytes() == before
    assert not (model.parent / "best.json").exists()


@pytest.mark.slow
def test_folds_that_await_more_epochs_are_not_done(run_copy, capsys):
    config, corpus = tiny.run_config(**{"train.epochs": 2}), tiny.corpus(21)
    before = tiny.fold_times(run_copy)
    assert not train.run(config, corpus, run_copy, [1])
    assert "folds still to run: 0, 2" in capsys.readouterr().out
    changed = {
        path.parent.name for path, time in tiny.fold_times(run_copy).items() if time != before[path]
    }
    assert changed == {"fold_01"}
    assert report.run(configuration.read(run_copy), corpus, run_copy).missing_folds == [0, 2]
    assert train.run(config, corpus, run_copy)


@pytest.mark.slow
def test_more_epochs_change_nothing_where_patience_has_ended_a_fold(tmp_path):
    fields = {"train.stop_patience": 1, "train.new_learning_rate": 0.1}
    grown(tmp_path, 12, **fields)
    assert kept_epochs(tmp_path) == [[], [], []]
    before = tiny.fold_times(tmp_path)
    grown(tmp_path, 13, **fields)
    assert tiny.fold_times(tmp_path) == before
    assert configuration.read(tmp_path).train.epochs == 13


def test_fewer_epochs_are_refused(three_epochs):
    with pytest.raises(ValueError, match=r"config\.json has train\.epochs=3, and now it is 2:"):
        grown(three_epochs, 2)


@pytest.mark.parametrize(
    "lost",
    [
        ["predictions.csv", "checkpoints/card.json"],
        pytest.param(["predictions.csv"], marks=pytest.mark.slow),
    ],
)
def test_killed_as_it_is_given_more_epochs_it_goes_on(run_copy, three_epochs, lost):
    configuration.write(tiny.run_config(**{"train.epochs": 3}), run_copy)
    for name in lost:
        (run_copy / "fold_01" / name).unlink()
    grown(run_copy, 3)
    assert results(run_copy) == results(three_epochs)
