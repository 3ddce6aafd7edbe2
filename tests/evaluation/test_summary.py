import json

import numpy as np
import pytest

from ds_jax.data.corpus import LABELS
from ds_jax.evaluation import metrics
from ds_jax.evaluation.predictions import Predictions
from ds_jax.evaluation.summary import evaluate, fold_record


def some(count=60, speakers=12, present=6):
    generator = np.random.default_rng(0)
    rows = np.arange(count)
    styles = np.where(rows % 5 == 0, "loud", "normal")
    return Predictions(
        utterances=rows.astype(str),
        speakers=np.char.add("s", (rows % speakers).astype(str)),
        sentences=(rows % 7).astype(str),
        styles=styles,
        labels=rows // 3 % present,
        probabilities=generator.dirichlet(np.ones(7) / 3, count),
    )


def report_of(predictions, **changes):
    arguments = {
        "corpus": "emodb",
        "system": "DS-AM",
        "protocol": "speakers",
        "selected_on": "dev",
        "shared": {"speakers": 0, "sentences": 21},
        "folds": [fold_record(0, predictions)],
    }
    return evaluate(predictions, **(arguments | changes))


def test_the_report_has_the_agreed_fields():
    report = report_of(some())
    assert report["corpus"] == "emodb"
    assert report["system"] == "DS-AM"
    assert report["protocol"] == "speakers"
    assert "whole speakers" in report["protocol_text"]
    assert report["selected_on"] == "dev"
    assert report["n"] == report["utterances"] == 60
    assert report["labels"] == list(LABELS)
    assert report["classes_present"] == list(LABELS[:6])
    assert report["shared"] == {"speakers": 0, "sentences": 21}
    assert "12 speakers" in report["interval"]
    assert np.sum(report["confusion"]) == 60
    assert report["per_class"]["SURPRISE"]["support"] == 0
    for name in ("accuracy", "uar", "macro_f1"):
        assert set(report[name]) == {"value", "low", "high"}
        assert 0 <= report[name]["low"] <= report[name]["value"] <= report[name]["high"] <= 1


def test_the_numbers_agree_with_each_other():
    predictions = some()
    report = report_of(predictions)
    matrix = np.array(report["confusion"])
    np.testing.assert_array_equal(matrix.sum(1), np.bincount(predictions.labels, minlength=7))
    assert report["accuracy"]["value"] == np.trace(matrix) / 60
    recalls = [report["per_class"][label]["recall"] for label in report["classes_present"]]
    assert report["uar"]["value"] == pytest.approx(np.mean(recalls))
    assert np.mean(list(report["speakers"].values())) == pytest.approx(report["accuracy"]["value"])
    assert report["calibration_error"] == metrics.calibration_error(
        predictions.labels, predictions.probabilities
    )
    gaps = [
        bin["n"] * abs(bin["confidence"] - bin["accuracy"])
        for bin in report["calibration"]
        if bin["n"]
    ]
    assert report["calibration_error"] == pytest.approx(sum(gaps) / 60)
    assert report["speaker_n"] == {f"s{index}": 5 for index in range(12)}


def test_the_report_is_json_and_does_not_depend_on_the_order_of_rows():
    predictions = some()
    report = report_of(predictions)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    mixed = report_of(predictions.keep(np.random.default_rng(1).permutation(60)))
    assert mixed.pop("calibration_error") == pytest.approx(report.pop("calibration_error"))
    for row, other in zip(mixed.pop("calibration"), report.pop("calibration"), strict=True):
        assert row == pytest.approx(other)
    assert [mixed.pop("folds")] == [report.pop("folds")]
    assert mixed == report


def test_a_single_utterance_has_scores_without_limits():
    report = report_of(some(1))
    assert report["accuracy"]["low"] is report["accuracy"]["high"] is None
    json.dumps(report, allow_nan=False)


def test_a_fold_is_a_short_record():
    predictions = some()
    record = fold_record(3, predictions)
    report = report_of(predictions)
    scores = {name: report[name]["value"] for name in ("accuracy", "uar", "macro_f1")}
    assert record == {"fold": 3, "n": 60, **scores}


def test_an_utterance_tested_in_two_splits_is_two_rows_and_one_utterance():
    rows = np.arange(60)
    report = report_of(some().keep(np.r_[rows, rows[:10]]))
    assert (report["n"], report["utterances"]) == (70, 60)


def test_nothing_to_evaluate_is_an_error():
    nothing = some().keep(np.zeros(60, bool))
    with pytest.raises(ValueError, match="no prediction to evaluate"):
        report_of(nothing, folds=[])
    with pytest.raises(ValueError, match="no prediction to evaluate"):
        fold_record(0, nothing)


@pytest.mark.parametrize("field", ["protocol", "selected_on"])
def test_an_unknown_value_is_an_error_that_names_its_field(field):
    with pytest.raises(ValueError, match=f"{field} is 'x' and must be"):
        report_of(some(), **{field: "x"})
