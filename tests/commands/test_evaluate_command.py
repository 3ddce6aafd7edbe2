"""Checkpoints evaluate again: on their own test sides as before, and on another corpus."""

import dataclasses
import json

import numpy as np
import pytest
import tiny

from ds_jax.commands import evaluate
from ds_jax.evaluation import predictions

pytestmark = pytest.mark.usefixtures("narrow")


def other(seed=5):
    corpus = tiny.corpus(14, seed=seed)
    utterances = tuple(
        dataclasses.replace(u, style={"u04": "loud", "u05": "loud"}.get(u.name, "spontaneous"))
        for u in corpus.utterances
    )
    return dataclasses.replace(corpus, name="other", utterances=utterances)


def test_its_own_corpus_gives_the_predictions_of_training(run):
    report = evaluate.run(run, tiny.corpus(21))
    again = predictions.read(run / "evaluations" / "tiny" / "predictions.csv")
    before = predictions.concatenate(
        [predictions.read(run / f"fold_{number:02}" / "predictions.csv") for number in range(3)]
    )
    order = np.argsort(before.utterances)
    np.testing.assert_allclose(again.probabilities, before.probabilities[order], atol=1e-6)
    assert report["accuracy"] == json.loads((run / "report.json").read_text())["accuracy"]


def test_another_corpus_is_judged_by_all_models(run):
    report = evaluate.run(run, other())
    assert "3 models" in report["evaluated_by"]
    assert (report["corpus"], report["trained_on"]) == ("other", "tiny")
    assert report["shared"] == {"speakers": None, "sentences": None, "recordings": None}
    assert len(report["folds"]) == 3
    files = {path.name for path in (run / "evaluations" / "other").iterdir()}
    assert {"predictions.csv", "report.json", "report.html"} <= files


def test_neutral_of_another_style_is_left_out_of_another_corpus(run):
    report = evaluate.run(run, other())
    assert other().utterances[4].label == "NEUTRAL"
    assert (report["n"], report["left_out"]) == (13, 1)
    assert report["per_class"]["NEUTRAL"]["support"] == 1
    assert all(fold["n"] == 13 for fold in report["folds"])


def test_without_checkpoints_it_says_what_to_do(run, tmp_path):
    (tmp_path / "config.json").write_bytes((run / "config.json").read_bytes())
    with pytest.raises(FileNotFoundError, match="no finished fold"):
        evaluate.run(tmp_path, other())
