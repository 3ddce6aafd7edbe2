"""Every field of report.json follows from the predictions, and older files can be read."""

import dataclasses

import numpy as np
import pytest

from ds_jax.data.labels import LABELS
from ds_jax.evaluation import metrics, summary
from ds_jax.evaluation.predictions import Predictions
from ds_jax.runtime.files import read_json, write_json


def some(count=60, speakers=12, present=6):
    generator = np.random.default_rng(0)
    rows = np.arange(count)
    return Predictions(
        utterances=rows.astype(str),
        speakers=np.char.add("s", (rows % speakers).astype(str)),
        sentences=(rows % 7).astype(str),
        styles=np.where(rows % 5 == 0, "loud", "normal"),
        labels=rows // 3 % present,
        probabilities=generator.dirichlet(np.ones(7) / 3, count),
        classes=LABELS,
    )


def fold_record(predictions):
    return summary.fold_record(0, predictions.confusion)


def summarise(predictions, **changes):
    fields = {
        "corpus": "emodb",
        "system": "DS-AM",
        "protocol": "speakers",
        "selected_on": "dev",
        "shared": {"speakers": 0, "sentences": 21},
        "folds": [fold_record(predictions)],
    }
    return summary.RunSummary(
        **summary.measure(predictions, {"head": predictions}), **fields | changes
    )


def test_the_numbers_agree_with_each_other():
    predictions = some()
    result = summarise(predictions)
    matrix = np.array(result.confusion)
    np.testing.assert_array_equal(matrix.sum(1), np.bincount(predictions.labels, minlength=7))
    assert (result.n, result.utterances, matrix.sum()) == (60, 60, 60)
    assert result.labels == list(LABELS)
    assert result.classes_present == list(LABELS[:6])
    assert result.accuracy["value"] == np.trace(matrix) / 60
    recalls = [result.per_class[label]["recall"] for label in result.classes_present]
    assert result.uar["value"] == pytest.approx(np.mean(recalls))
    assert result.per_class["SURPRISE"]["support"] == 0
    assert np.mean(list(result.speakers.values())) == pytest.approx(result.accuracy["value"])
    assert result.speaker_n == {f"s{index}": 5 for index in range(12)}
    gaps = [
        row["n"] * abs(row["confidence"] - row["accuracy"])
        for row in result.calibration
        if row["n"]
    ]
    assert result.calibration_error == pytest.approx(sum(gaps) / 60)
    for name in metrics.SCORES:
        score = getattr(result, name)
        assert 0 <= score["low"] <= score["value"] <= score["high"] <= 1
        assert result.heads["head"][name] == result.folds[0][name] == score["value"]
    assert "12 speakers" in result.interval


def test_the_result_does_not_depend_on_the_order_of_rows():
    result, mixed = (
        dataclasses.asdict(summarise(some().keep(rows)))
        for rows in (np.arange(60), np.random.default_rng(1).permutation(60))
    )
    assert mixed.pop("calibration_error") == pytest.approx(result.pop("calibration_error"))
    for row, other in zip(mixed.pop("calibration"), result.pop("calibration"), strict=True):
        assert row == pytest.approx(other)
    assert mixed == result


def test_a_single_utterance_has_scores_without_limits():
    result = summarise(some(1))
    assert result.accuracy["low"] is result.accuracy["high"] is None


def test_an_utterance_tested_in_two_splits_is_two_rows_and_one_utterance():
    rows = np.arange(60)
    result = summarise(some().keep(np.r_[rows, rows[:10]]))
    assert (result.n, result.utterances) == (70, 60)


def test_unknown_speakers_have_no_score():
    some_unknown = np.where(np.arange(60) < 20, some().speakers, "")
    for speakers, known in ((np.full(60, ""), 0), (some_unknown, 12)):
        result = summarise(dataclasses.replace(some(), speakers=speakers))
        assert len(result.speakers) == len(result.speaker_n) == known
        assert "" not in result.speakers


def test_an_empty_test_split_is_an_error():
    with pytest.raises(ValueError, match="empty"):
        summary.measure(some().keep(np.zeros(60, bool)))


def test_a_class_that_no_model_answers_is_left_out_of_a_second_uar():
    predictions = some()
    assert summary.measure(predictions)["uar_answerable"] is None
    assert summary.measure(predictions, {}, ["SURPRISE"])["uar_answerable"] is None  # not present
    found = summary.measure(predictions, {}, ["ANGER", "SURPRISE"])["uar_answerable"]
    rows = predictions.labels > 0
    recalls = [
        (predictions.predictions[predictions.labels == label] == label).mean()
        for label in np.unique(predictions.labels[rows])
    ]
    assert found["value"] == pytest.approx(np.mean(recalls))
    assert found["low"] < found["value"] < found["high"]


def test_what_was_written_is_read(tmp_path):
    result = summarise(some(), paper={"tables": [4]}, missing_folds=[1])
    summary.write(tmp_path / "report.json", result)
    assert summary.read(tmp_path / "report.json") == result


@pytest.mark.parametrize(("chosen", "expected"), [("epoch", "dev"), ("C", "none"), ("", "none")])
def test_earlier_reports_of_systems_without_epochs_said_that_dev_had_chosen(
    tmp_path, chosen, expected
):
    summary.write(tmp_path / "report.json", summarise(some(), chosen=chosen, selected_on="dev"))
    assert summary.read(tmp_path / "report.json").selected_on == expected


def test_a_report_of_an_earlier_version_is_read_with_defaults(tmp_path):
    path, result = tmp_path / "report.json", summarise(some())
    summary.write(path, result)
    fields = dataclasses.fields(summary.RunSummary)
    optional = {
        f.name: f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
        for f in fields
        if (f.default, f.default_factory) != (dataclasses.MISSING,) * 2
    }
    content = {name: x for name, x in read_json(path).items() if name not in optional}
    write_json(path, content | {"a_field_of_a_later_version": 1})
    assert summary.read(path) == dataclasses.replace(result, **optional)
    for name in content:
        write_json(path, {other: value for other, value in content.items() if other != name})
        with pytest.raises(ValueError, match=rf"report\.json.*'{name}'"):
            summary.read(path)
