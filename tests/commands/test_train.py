"""Folds are run once, go on where they were stopped, and are reported together."""

import dataclasses
import hashlib
import json
import re
import shutil

import numpy as np
import pytest
import tiny
from sklearn import metrics as reference

from ds_jax import config as configuration
from ds_jax.commands import evaluate, train
from ds_jax.data.corpus import LABELS
from ds_jax.evaluation import predictions
from ds_jax.models import pretrained
from ds_jax.runtime import files
from ds_jax.training import loop, parallel

pytestmark = pytest.mark.usefixtures("narrow")


@pytest.fixture(autouse=True)
def given_weights(monkeypatch):
    monkeypatch.setattr(pretrained, "load", lambda backbone, path, full: tiny.pretrained())


def experiment(**fields):
    config = tiny.config()
    config.corpus = "tiny"
    config.folds.protocol, config.folds.count = "speakers", 3
    config.update_from_flattened_dict({"model.freeze": "block4", "train.epochs": 1} | fields)
    return config


def report_of(config, corpus, workdir):
    assert train.run(config, corpus, workdir)
    return json.loads((workdir / "report.json").read_text())


def test_leaves_what_the_design_promises(tmp_path, capsys):
    corpus = tiny.corpus(21)
    report = report_of(experiment(), corpus, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"config.json", "folds.json", "report.json", "report.html"} <= names
    for number in range(3):
        fold = tmp_path / f"fold_{number:02}"
        assert {"checkpoints", "metrics.jsonl", "predictions.csv"} <= {
            p.name for p in fold.iterdir()
        }
    assert report["n"] == 21
    assert report["shared"] == {"speakers": 0, "sentences": 0, "recordings": 0}
    assert (report["system"], report["selected_on"]) == ("DS-AM", "dev")
    assert set(report["heads"]) == {"block4_pool", "block5_pool"}
    pooled = predictions.concatenate(
        [predictions.read(tmp_path / f"fold_{k:02}" / "predictions.csv") for k in range(3)]
    )
    assert sorted(pooled.utterances) == [utterance.name for utterance in corpus.utterances]
    expected = reference.accuracy_score(pooled.labels, pooled.predictions)
    assert report["accuracy"]["value"] == pytest.approx(expected)
    assert "accuracy" in capsys.readouterr().out


def test_finished_folds_are_not_run_again(tmp_path, monkeypatch):
    corpus = tiny.corpus(21)
    assert not train.run(experiment(), corpus, tmp_path, [0, 2])
    before = (tmp_path / "fold_00" / "predictions.csv").stat().st_mtime_ns
    run, numbers = loop.train_folds, []
    monkeypatch.setattr(
        loop,
        "train_folds",
        lambda e, folds, workdir: numbers.extend(folds) or run(e, folds, workdir),
    )
    assert train.run(experiment(), corpus, tmp_path)
    assert numbers == [1]
    assert (tmp_path / "fold_00" / "predictions.csv").stat().st_mtime_ns == before


def test_missing_folds_are_named(tmp_path, capsys):
    assert not train.run(experiment(), tiny.corpus(21), tmp_path, [1])
    assert "folds still to run: 0, 2" in capsys.readouterr().out


def test_whatever_folds_are_there_are_pooled_and_the_missing_named(tmp_path, capsys):
    corpus, config = tiny.corpus(21), experiment()
    with pytest.raises(FileNotFoundError, match=r"folds\.json"):
        train.report(config, corpus, tmp_path)
    assert not train.run(config, corpus, tmp_path, [2])
    assert not train.run(config, corpus, tmp_path, [0])
    assert not (tmp_path / "report.json").exists()
    part = train.report(config, corpus, tmp_path)
    assert part == files.read_json(tmp_path / "report.json")
    assert part["missing_folds"] == [1]
    assert [record["fold"] for record in part["folds"]] == [0, 2]
    tested = [predictions.read(tmp_path / f"fold_{k:02}" / "predictions.csv") for k in (0, 2)]
    assert part["n"] == sum(len(one.labels) for one in tested) < 21
    assert "MISSING FOLDS: 1" in capsys.readouterr().out
    assert 'id="missing"' in (tmp_path / "report.html").read_text()
    whole = report_of(config, corpus, tmp_path)
    assert (whole["missing_folds"], whole["n"]) == ([], 21)
    assert 'id="missing"' not in (tmp_path / "report.html").read_text()


def test_without_a_finished_fold_there_is_nothing_to_report(tmp_path):
    corpus, config = tiny.corpus(21), experiment()
    train.run(config, corpus, tmp_path, [])
    with pytest.raises(FileNotFoundError, match="no finished fold"):
        train.report(config, corpus, tmp_path)


def test_a_fold_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(ValueError, match="--fold=5: the folds are numbered 0 to 2"):
        train.run(experiment(), tiny.corpus(21), tmp_path, [5])


def test_impossible_folds_leave_the_workdir_to_the_corrected_command(tmp_path):
    with pytest.raises(ValueError, match="speakers"):
        train.run(experiment(**{"folds.protocol": "speaker"}), tiny.corpus(21), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_process_on_a_disk_of_its_own_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "is_first_process", lambda: False)
    with pytest.raises(FileNotFoundError, match="one --workdir and one --data_dir, on a disk that"):
        train.run(experiment(), tiny.corpus(21), tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "wanted"), [("none.h5", FileNotFoundError), ("README.md", ValueError)]
)
def test_a_wrong_path_of_weights_is_told_before_any_work(name, wanted):
    with pytest.raises(wanted, match=name):
        train.check(experiment(weights=name))


def test_a_fold_file_is_used_as_it_is(tmp_path):
    names = [utterance.name for utterance in tiny.corpus(21).utterances]
    given = {"folds": [{"train": names[:10], "dev": names[10:14], "test": names[14:]}]}
    (tmp_path / "given.json").write_text(json.dumps(given))
    config = experiment(**{"folds.file": str(tmp_path / "given.json")})
    report = report_of(config, tiny.corpus(21), tmp_path / "run")
    assert (report["protocol"], report["n"], report["shared"]["speakers"]) == ("custom", 7, 3)
    kept = json.loads((tmp_path / "run" / "folds.json").read_text())["folds"][0]
    assert {side: kept[side] for side in ("train", "dev", "test")} == given["folds"][0]


def test_the_papers_choice_of_the_epoch_is_told(tmp_path):
    report = report_of(experiment(select_on="test"), tiny.corpus(21), tmp_path)
    assert report["selected_on"] == "test"
    rows = (tmp_path / "fold_00" / "metrics.jsonl").read_text().splitlines()
    assert "test_loss" in json.loads(rows[0])
    assert re.search(r"test (fold|side) chose", (tmp_path / "report.html").read_text())


def test_a_whole_corpus_has_a_model_and_nothing_to_test(tmp_path, capsys):
    config = experiment(**{"folds.protocol": "whole_corpus"})
    assert train.run(config, tiny.corpus(21), tmp_path)
    assert "--eval_on" in capsys.readouterr().out
    assert not len(predictions.read(tmp_path / "fold_00" / "predictions.csv").labels)
    assert not (tmp_path / "report.json").exists()


def test_windows_of_an_utterance_are_judged_together(tmp_path):
    report = report_of(experiment(), tiny.corpus(21, windows=2), tmp_path)
    assert report["n"] == 21


def test_folds_of_another_corpus_are_refused(tmp_path):
    train.run(experiment(), tiny.corpus(21), tmp_path, [0])
    with pytest.raises(ValueError, match=r"folds\.json.*u"):
        train.run(experiment(), tiny.corpus(14), tmp_path)


def test_what_another_process_has_made_meanwhile_is_not_made_again(tmp_path, monkeypatch):
    """Its folds.json, and its fold: both when this one has just come to hold the lock."""
    corpus, made = tiny.corpus(21), {}

    def another(name, chosen):
        """Has another process be the first whenever a lock is wanted."""
        hold = getattr(train, name)

        def hold_after_another(*arguments):
            monkeypatch.setattr(train, name, hold)
            train.run(experiment(), corpus, tmp_path, chosen)
            paths = [*tmp_path.glob("*.json"), *tmp_path.glob("fold_*/predictions.csv")]
            made.update({path: path.stat().st_mtime_ns for path in paths})
            return hold(*arguments)

        monkeypatch.setattr(train, name, hold_after_another)

    another("_hold_reports", [])
    assert not train.run(experiment(), corpus, tmp_path, [])
    assert {path.name for path in made} == {"config.json", "folds.json"}
    assert {path: path.stat().st_mtime_ns for path in made} == made
    another("_hold", [1])
    assert not train.run(experiment(), corpus, tmp_path, [0, 1])
    assert tmp_path / "fold_01" / "predictions.csv" in made
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert (tmp_path / "fold_00" / "predictions.csv").is_file()


def test_a_fold_that_was_copied_over_another_is_not_reported(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "fold_01")
    shutil.copytree(run / "fold_00", tmp_path / "run" / "fold_01")
    for action in (train.run, train.report):
        with pytest.raises(
            ValueError, match=r"fold_01/predictions\.csv tests other utterances than"
        ):
            action(configuration.read(run), tiny.corpus(21), tmp_path / "run")


def test_other_recordings_under_the_same_names_are_refused(tmp_path):
    def corpus(*others):
        known = tiny.corpus(21)
        utterances = [
            dataclasses.replace(u, digest=u.name + "!" * (u.name in others))
            for u in known.utterances
        ]
        return dataclasses.replace(known, utterances=tuple(utterances))

    train.run(experiment(), corpus(), tmp_path, [0])
    refused = pytest.raises(ValueError, match=r"folds\.json: 'u20' is another recording now")
    for action in (train.run, train.report):
        with refused:
            action(experiment(), corpus("u20"), tmp_path)
    with refused:
        evaluate.run(tmp_path, corpus("u20"))
    assert train.run(experiment(), corpus(), tmp_path)


def test_a_run_goes_on_with_the_weights_that_it_began_with(tmp_path):
    own, corpus = tmp_path / "own.h5", tiny.corpus(21)
    own.write_bytes(b"one")
    config = experiment(weights=str(own))
    assert not train.run(config, corpus, tmp_path / "run", [0])
    one, other = (hashlib.sha256(content).hexdigest() for content in (b"one", b"other"))
    assert files.read_json(tmp_path / "run" / "config.json")["weights_sha256"] == one
    assert configuration.read(tmp_path / "run").weights == str(own)
    own.write_bytes(b"other")
    with pytest.raises(ValueError, match=f"own.h5' is another file .*{one} and is {other} now"):
        train.run(config, corpus, tmp_path / "run", [1])
    assert not (tmp_path / "run" / "fold_01").exists()
    own.write_bytes(b"one")
    assert not train.run(config, corpus, tmp_path / "run", [1])


def test_labels_are_in_alphabetical_order():
    assert list(LABELS) == sorted(LABELS)
    assert np.array_equal(tiny.corpus(7).labels, range(7))
