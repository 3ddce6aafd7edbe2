"""Models are tested again: on their test splits as before, and on another corpus."""

import dataclasses

import numpy as np
import pytest
import tiny

from ds_jax.commands import evaluate, train
from ds_jax.evaluation import predictions, summary
from ds_jax.features import spectrogram

pytestmark = pytest.mark.usefixtures("narrow")


def other():
    corpus = tiny.corpus(14, seed=5)
    utterances = tuple(
        dataclasses.replace(u, style={"u04": "loud", "u05": "loud"}.get(u.name, "spontaneous"))
        for u in corpus.utterances
    )
    return dataclasses.replace(
        corpus, name="other", utterances=utterances, title="The Other", licence="free"
    )


def test_the_same_corpus_gives_the_predictions_of_training(run):
    result = evaluate.run(run, dataclasses.replace(tiny.corpus(21), title="Tiny"))
    again = predictions.read(run / "evaluations" / "tiny" / "predictions.csv")
    before = predictions.read_pooled(sorted(run.glob("fold_*")))
    order = np.argsort(before.utterances)
    np.testing.assert_allclose(again.probabilities, before.probabilities[order], atol=1e-6)
    trained = summary.read(run / "report.json")
    changed = [
        "folds",
        "evaluated_by",
        "trained_on",
        "trained_on_title",
        "corpus_title",
        "interval",
        "made",
    ]
    for field in dataclasses.fields(result):
        if field.name not in changed and not field.name.startswith("calibration"):
            assert getattr(result, field.name) == getattr(trained, field.name), field.name
    assert (result.trained_on, result.trained_on_title) == ("tiny", "Tiny")


def test_another_corpus_is_tested_by_all_models_without_neutral_of_another_style(run_copy):
    trained = dataclasses.replace(summary.read(run_copy / "report.json"), corpus_title="Tiny")
    summary.write(run_copy / "report.json", trained)
    result = evaluate.run(run_copy, other())
    folder = run_copy / "evaluations" / "other"
    assert result == summary.read(folder / "report.json")
    assert (result.corpus, result.corpus_title, result.corpus_licence) == (
        *("other", "The Other", "free"),
    )
    assert (result.trained_on, result.trained_on_title) == ("tiny", "Tiny")
    assert result.shared == {"speakers": None, "sentences": None, "recordings": None}
    assert other().utterances[4].label == "NEUTRAL"
    assert (result.n, result.left_out) == (13, 1)
    assert result.per_class["NEUTRAL"]["support"] == 1
    assert [(fold["fold"], fold["n"]) for fold in result.folds] == [(0, 13), (1, 13), (2, 13)]
    assert "3 models" in result.evaluated_by
    assert {"predictions.csv", "report.html"} <= {path.name for path in folder.iterdir()}


def test_folds_that_another_corpus_gives_are_not_ignored_in_silence(run_copy, capsys):
    corpus = other()
    given = tuple(dataclasses.replace(u, fold="train") for u in corpus.utterances)
    corpus = dataclasses.replace(corpus, utterances=given)
    assert evaluate.run(run_copy, corpus).n == 13
    assert "the folds that other gives are not used" in capsys.readouterr().out


def test_without_a_finished_fold_there_is_nothing_to_evaluate(run, tmp_path):
    (tmp_path / "config.json").write_bytes((run / "config.json").read_bytes())
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        evaluate.run(tmp_path, other())


def test_models_that_test_recordings_of_different_lengths_are_averaged(tmp_path, tiny_weights):
    """Gates are as wide as the timelines of a batch, which differ from fold to fold."""
    config, _ = tiny.make("ds_am_statistics")
    config.train.epochs, config.folds.count = 1, 2
    corpus = tiny.timelines(tiny.corpus(16))
    inputs = corpus.inputs.copy()
    short = {u.name for u in corpus.utterances if u.speaker == corpus.utterances[0].speaker}
    inputs[corpus.rows_of(short), :, 64:] = 0
    corpus = dataclasses.replace(corpus, inputs=inputs)
    assert train.run(config, corpus, tmp_path)
    assert evaluate.run(tmp_path, corpus).n == 16
    gates = {
        name: predictions.read_gates(tmp_path / "evaluations" / corpus.name, name)
        for name in (u.name for u in corpus.utterances)
    }
    for row, (name, of_heads) in enumerate(gates.items()):
        width = spectrogram.unpadded(inputs[row]).shape[1]
        assert {head: gate.shape[1] for head, gate in of_heads.items()} == {
            "block3_pool": width // 8,
            "block4_pool": width // 16,
        }, name
