"""Folds are run once, continue where they were stopped, and are reported together."""

import dataclasses
import datetime
import hashlib
import json
import shutil

import numpy as np
import pytest
import tiny
from sklearn import metrics as reference

from ds_jax import config as configuration
from ds_jax.commands import evaluate, report, train
from ds_jax.data.labels import LABELS
from ds_jax.evaluation import predictions, summary
from ds_jax.evaluation.predictions import Predicted
from ds_jax.runtime import files, locks, processes
from ds_jax.systems import classifiers
from ds_jax.training import loop
from ds_jax.training.checkpoints import read_card

pytestmark = pytest.mark.usefixtures("tiny_weights")


def quick(**fields):
    """A classifier, which is fitted at once, and its corpus."""
    config, corpus = tiny.make("mlr")
    config.update_from_flattened_dict(fields)
    return config, corpus


def test_a_run_leaves_what_the_design_promises(run):
    corpus = tiny.corpus(21)
    names = {path.name for path in run.iterdir()}
    assert {"config.json", "folds.json", "report.json", "report.html"} <= names
    folders = [run / f"fold_{number:02}" for number in range(3)]
    for folder in folders:
        names = {path.name for path in folder.iterdir()}
        assert {"checkpoints", "metrics.jsonl", "predictions.csv"} <= names
    result = summary.read(run / "report.json")
    assert result.n == 21
    assert result.shared == {"speakers": 0, "sentences": None, "recordings": 0}
    assert (result.system, result.selected_on, result.chosen) == ("DS-AM", "dev", "epoch")
    assert (result.missing_folds, result.trained_on, result.left_out) == ([], "", 0)
    assert result.settings["model.freeze"] == "block4"
    assert set(result.heads) == {"block4_pool", "block5_pool"}
    pooled = predictions.read_pooled(folders)
    assert sorted(pooled.utterances) == [utterance.name for utterance in corpus.utterances]
    expected = reference.accuracy_score(pooled.labels, pooled.predictions)
    assert result.accuracy["value"] == pytest.approx(expected)
    stored = files.read_json(run / "folds.json")["folds"]
    for number, record in enumerate(result.folds):
        assert (record["fold"], record["epoch"]) == (number, 1)
        assert [record[split] for split in ("train", "dev")] == [
            len(stored[number][split]) for split in ("train", "dev")
        ]


def test_only_folds_that_are_missing_are_run(run_copy, monkeypatch, capsys):
    shutil.rmtree(run_copy / "fold_01")
    before, working, numbers = tiny.fold_times(run_copy), loop.train_folds, []
    monkeypatch.setattr(
        loop,
        "train_folds",
        lambda e, folds, workdir: numbers.extend(folds) or working(e, folds, workdir),
    )
    config, corpus = configuration.read(run_copy), tiny.corpus(21)
    assert not train.run(config, corpus, run_copy, [0, 2])
    said = capsys.readouterr().out
    assert "folds still to run: 1;" in said
    assert f"--mode=report --workdir={run_copy}" in said
    assert numbers == []
    assert train.run(config, corpus, run_copy)
    assert numbers == [1]
    assert tiny.fold_times(run_copy).items() > before.items()


def test_finished_folds_are_pooled_and_the_missing_named(run_copy, tmp_path, capsys):
    config, corpus = configuration.read(run_copy), tiny.corpus(21)
    whole = summary.read(run_copy / "report.json")
    (run_copy / "fold_01" / "predictions.csv").unlink()
    part = report.run(config, corpus, run_copy)
    assert part == summary.read(run_copy / "report.json")
    assert part.missing_folds == [1]
    assert [record["fold"] for record in part.folds] == [0, 2]
    tested = [predictions.read(run_copy / f"fold_{k:02}" / "predictions.csv") for k in (0, 2)]
    assert part.n == sum(len(fold.labels) for fold in tested) < whole.n
    assert "MISSING FOLDS: 1" in capsys.readouterr().out
    assert 'id="missing"' in (run_copy / "report.html").read_text()
    for number in (0, 2):
        (run_copy / f"fold_{number:02}" / "predictions.csv").unlink()
    for workdir in (run_copy, tmp_path):  # without a finished fold there is nothing to report
        with pytest.raises(FileNotFoundError, match=str(workdir)):
            report.run(config, corpus, workdir)


@pytest.mark.parametrize(
    ("fields", "numbers"), [({"folds.protocol": "speaker"}, None), ({}, [5])], ids=["rule", "fold"]
)
def test_impossible_folds_leave_the_workdir_empty(tmp_path, fields, numbers):
    with pytest.raises(ValueError, match="folds"):
        train.run(tiny.run_config(**fields), tiny.corpus(21), tmp_path, numbers)
    assert not list(tmp_path.iterdir())


def test_a_process_on_another_disk_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "is_first_process", lambda: False)
    with pytest.raises(FileNotFoundError, match="--workdir"):
        train.run(tiny.run_config(), tiny.corpus(21), tmp_path / "run")


def test_a_fold_file_is_used_as_it_is(tmp_path):
    config, corpus = quick(**{"folds.file": str(tmp_path / "given.json")})
    names = [utterance.name for utterance in corpus.utterances]
    given = {"folds": [{"train": names[:28], "dev": names[28:35], "test": names[35:]}]}
    (tmp_path / "given.json").write_text(json.dumps(given))
    assert train.run(config, corpus, tmp_path / "run")
    result = summary.read(tmp_path / "run" / "report.json")
    assert (result.protocol, result.n, result.shared["speakers"]) == ("custom", 7, 3)
    kept = files.read_json(tmp_path / "run" / "folds.json")["folds"][0]
    assert {split: kept[split] for split in ("train", "dev", "test")} == given["folds"][0]


def with_folds(corpus, fold_of):
    given = [dataclasses.replace(u, fold=fold_of(u)) for u in corpus.utterances]
    return dataclasses.replace(corpus, utterances=tuple(given))


@pytest.mark.parametrize("system", ["mlr", "ffnn"])
@pytest.mark.parametrize("by", ["file", "corpus"])
def test_folds_without_dev_are_enough(tmp_path, capsys, system, by):
    config, corpus = tiny.make(system)
    named = {utterance.name: utterance.speaker for utterance in corpus.utterances}
    last = max(named.values())
    if by == "file":
        train_names = [name for name, speaker in named.items() if speaker != last]
        tested = [name for name, speaker in named.items() if speaker == last]
        config.folds.file = str(tmp_path / "mine.json")
        content = {"folds": [{"train": train_names, "test": tested}]}
        (tmp_path / "mine.json").write_text(json.dumps(content))
    else:
        corpus = with_folds(corpus, lambda u: "test" if u.speaker == last else "train")
    train.check(config)
    assert train.run(config, corpus, tmp_path / "run")
    result = summary.read(tmp_path / "run" / "report.json")
    assert (result.protocol, result.shared["speakers"]) == ("custom", 0)
    assert result.n == sum(speaker == last for speaker in named.values())
    printed = capsys.readouterr().out
    assert "dev was taken from train" in printed
    assert ("in place of folds.protocol" in printed) == (by == "corpus")


def test_folds_that_a_corpus_gives_are_not_ignored_in_silence(tmp_path, capsys):
    config, corpus = tiny.make("mlr")
    corpus = with_folds(corpus, lambda utterance: utterance.speaker)
    config.folds.protocol = "whole_corpus"
    assert train.run(config, corpus, tmp_path)
    assert "are not used, since folds.protocol is 'whole_corpus'" in capsys.readouterr().out


def test_a_test_fold_that_chooses_the_epoch_is_reported(tmp_path):
    config = tiny.run_config(select_on="test")
    assert train.run(config, tiny.corpus(21, windows=2), tmp_path)
    result = summary.read(tmp_path / "report.json")
    assert (result.selected_on, result.n) == ("test", 21)  # windows of an utterance count once
    assert "test_loss" in predictions.read_metrics(tmp_path / "fold_00")[0]
    assert 'id="optimistic"' in (tmp_path / "report.html").read_text()


def test_a_whole_corpus_has_a_model_and_nothing_to_test(tmp_path, capsys):
    config, corpus = quick(**{"folds.protocol": "whole_corpus"})
    assert train.run(config, corpus, tmp_path)
    assert "--eval_on" in capsys.readouterr().out
    assert not len(predictions.read(tmp_path / "fold_00" / "predictions.csv").labels)
    assert not (tmp_path / "report.json").exists()
    for action in (
        lambda: report.run(config, corpus, tmp_path),
        lambda: evaluate.run(tmp_path, corpus),
    ):
        with pytest.raises(ValueError, match="--eval_on"):
            action()


def test_what_another_process_has_made_meanwhile_is_not_made_again(tmp_path, monkeypatch):
    """Another process writes folds.json, or a fold, just before this one holds the lock."""
    (config, corpus), made = quick(), {}

    def let_another_run_first(module, name, numbers):
        hold = getattr(module, name)

        def hold_after_another(*arguments):
            monkeypatch.setattr(module, name, hold)
            train.run(config, corpus, tmp_path, numbers)
            paths = [*tmp_path.glob("*.json"), *tmp_path.glob("fold_*/predictions.csv")]
            made.update({path: path.stat().st_mtime_ns for path in paths})
            return hold(*arguments)

        monkeypatch.setattr(module, name, hold_after_another)

    let_another_run_first(locks, "hold_folder", [])
    assert not train.run(config, corpus, tmp_path, [])
    assert {path.name for path in made} == {"config.json", "folds.json"}
    assert {path: path.stat().st_mtime_ns for path in made} == made
    let_another_run_first(train, "_hold_folds", [1])
    assert not train.run(config, corpus, tmp_path, [0, 1])
    assert tmp_path / "fold_01" / "predictions.csv" in made
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert (tmp_path / "fold_00" / "predictions.csv").is_file()


def test_a_fold_that_was_copied_over_another_is_not_reported(run, run_copy):
    shutil.rmtree(run_copy / "fold_01")
    shutil.copytree(run / "fold_00", run_copy / "fold_01")
    for action in (train.run, report.run):
        with pytest.raises(ValueError, match=r"fold_01/predictions\.csv"):
            action(configuration.read(run), tiny.corpus(21), run_copy)


def test_other_recordings_under_the_same_names_are_refused(tmp_path):
    other = tiny.with_digests(tiny.corpus(21), "u20")
    train.run(tiny.run_config(), tiny.with_digests(tiny.corpus(21)), tmp_path, [])
    predictions.write(tmp_path / "fold_00", [], Predicted(np.empty((0, 7)), {}, {}), LABELS)
    for action in (train.run, report.run):
        for changed in (other, tiny.corpus(14)):
            with pytest.raises(ValueError, match=r"folds\.json.*u"):
                action(tiny.run_config(), changed, tmp_path)
    with pytest.raises(ValueError, match=r"folds\.json.*u20"):
        evaluate.run(tmp_path, other)


def test_a_run_goes_on_with_the_weights_that_it_began_with(tmp_path):
    weights, corpus, workdir = tmp_path / "own.h5", tiny.corpus(21), tmp_path / "run"
    weights.write_bytes(b"one")
    config = tiny.run_config(weights=str(weights))
    train.run(config, corpus, workdir, [])
    digests = [hashlib.sha256(content).hexdigest() for content in (b"one", b"other")]
    assert files.read_json(workdir / "config.json")["weights_sha256"] == digests[0]
    assert configuration.read(workdir).weights == str(weights)
    weights.write_bytes(b"other")
    with pytest.raises(ValueError, match=".*".join(["own.h5", *digests])):
        train.run(config, corpus, workdir, [])
    weights.unlink()
    config.weights = str(tmp_path / "moved.h5")
    (tmp_path / "moved.h5").write_bytes(b"one")
    assert not train.run(config, corpus, workdir, [])
    config.weights = ""
    with pytest.raises(ValueError, match=f"weights='' .*{digests[0]} .* of no file now"):
        train.run(config, corpus, workdir, [])


def test_a_run_goes_on_with_the_folds_that_it_began_with(tmp_path):
    config, corpus = quick()
    speakers = {utterance.name: utterance.speaker for utterance in corpus.utterances}
    content = "".join(f"{name},{speaker}\n" for name, speaker in speakers.items())
    for folder, more in (("one", ""), ("moved", ""), ("other", "\n")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "folds.csv").write_text(f"name,fold\n{content}{more}")
    config.folds.file = str(tmp_path / "one" / "folds.csv")
    assert not train.run(config, corpus, tmp_path / "run", [0])
    shutil.rmtree(tmp_path / "one")
    config.folds.file = str(tmp_path / "moved" / "folds.csv")
    assert train.run(config, corpus, tmp_path / "run")
    config.folds.file = str(tmp_path / "other" / "folds.csv")
    with pytest.raises(ValueError, match=r"folds\.file='.*other/folds\.csv' is another file"):
        train.run(config, corpus, tmp_path / "run")


def test_the_report_says_how_the_run_was_made(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/home/me/launch.py", "--workdir=/home/me/my runs/one", "a=b"])
    weights = tmp_path / "own.h5"
    weights.write_bytes(b"one")
    assert train.run(tiny.run_config(weights=str(weights)), tiny.corpus(21), tmp_path / "run")
    made = summary.read(tmp_path / "run" / "report.json").made
    assert made["command"] == "python .../launch.py --workdir=.../one a=b"
    assert made["versions"] == files.read_json(tmp_path / "run" / "config.json")["versions"]
    assert datetime.datetime.fromisoformat(made["began"]).tzinfo
    assert made["devices"] == [{"kind": "cpu", "number": 1}]
    rows = [row for k in range(3) for row in predictions.read_metrics(tmp_path / f"run/fold_0{k}")]
    assert made["seconds"] == pytest.approx(sum(row["seconds"] for row in rows))
    assert made["weights"] == f"sha256:{hashlib.sha256(b'one').hexdigest()}"
    page = (tmp_path / "run" / "report.html").read_text()
    texts = made["command"], made["began"], made["weights"], made["versions"]["jax"], "1 cpu"
    assert all(text in page for text in texts)
    assert "/home/me" not in page
    evaluate.run(tmp_path / "run", tiny.corpus(21))
    again = summary.read(tmp_path / "run" / "evaluations" / "tiny" / "report.json").made
    assert set(again) == set(made)
    assert (again["weights"], again["command"]) == (made["weights"], made["command"])


def test_the_report_of_a_classifier_says_so_too(tmp_path):
    config, corpus = quick()
    assert train.run(config, corpus, tmp_path)
    made = summary.read(tmp_path / "report.json").made
    assert (made["devices"], made["weights"]) == ([{"kind": "cpu", "number": 1}], "")
    assert made["seconds"] > 0
    for folder in tmp_path.glob("fold_*/checkpoints"):
        shutil.rmtree(folder)  # the models of an older run, or none
    record = files.read_json(tmp_path / "config.json")
    for name in ("began", "command", "versions"):
        del record[name]
    files.write_json(tmp_path / "config.json", record)
    older = report.run(config, corpus, tmp_path)
    assert older.made == {
        "began": "",
        "command": "",
        "versions": {},
        "devices": [],
        "seconds": 0,
        "weights": "",
    }


@pytest.mark.parametrize("scaling", ["none", "standardised"])
def test_fits_that_stop_early_are_told_once_a_fold(scaling, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(classifiers, "STEPS", 3)
    config, corpus = tiny.make("svc")
    config.model.scaling, config.model.costs = scaling, (1.0, 2.0)
    assert train.run(config, corpus, tmp_path)
    cards = [read_card(folder) for folder in sorted(tmp_path.glob("fold_*/checkpoints"))]
    counts = [card["made"]["stopped_fits"] for card in cards]
    lines = [line for line in capsys.readouterr().out.splitlines() if "3 steps" in line]
    for number, (count, line) in enumerate(zip(counts, lines, strict=True)):
        assert line.startswith(f"fold {number}: {count} fits ")
        assert "config.model.costs" in line
        assert ("config.model.scaling" in line) == (scaling == "none")
    assert summary.read(tmp_path / "report.json").made["stopped_fits"] == sum(counts)
    assert 'id="stopped"' in (tmp_path / "report.html").read_text()
