"""A run tells any classes apart, and never answers with one that no training utterance has."""

import dataclasses

import numpy as np
import pytest
import tiny

from ds_jax.commands import evaluate, train
from ds_jax.evaluation import predictions, summary
from ds_jax.systems import base as systems

CLASSES = ("happy", "Bored, or calm", "never")


def speaking(made, classes):
    """A corpus whose utterances have some classes in turn."""
    utterances = tuple(
        dataclasses.replace(utterance, label=classes[number % len(classes)])
        for number, utterance in enumerate(made.utterances)
    )
    return dataclasses.replace(made, utterances=utterances, classes=CLASSES)


@pytest.mark.usefixtures("tiny_weights")
@pytest.mark.parametrize(
    "system", [pytest.param("ds_am", marks=pytest.mark.slow), "ffnn", "mlr", "svc", "xgboost"]
)
def test_a_system_of_each_kind_follows_the_classes_of_the_run(system, tmp_path):
    config, corpus = tiny.make(system)
    config.classes, config.folds.count = CLASSES, 2
    if "train" in config:
        config.train.epochs = 1
    assert train.run(config, speaking(corpus, CLASSES[:2]), tmp_path)
    result = summary.read(tmp_path / "report.json")
    assert tuple(result.labels) == CLASSES
    assert (result.untrained, result.uar_answerable) == ({"never": 2}, None)
    tested = predictions.read(tmp_path / "fold_00" / "predictions.csv")
    assert tested.classes == CLASSES
    assert not tested.probabilities[:, 2].any()

    left_out = dict.fromkeys("abc", "sad")
    other = dataclasses.replace(speaking(corpus, CLASSES), name="other", left_out=left_out)
    result = evaluate.run(tmp_path, other)
    assert (result.untrained, result.other_labels) == ({"never": 2}, {"sad": 3})
    assert result.per_class["never"]["recall"] == 0
    assert [row[2] for row in result.confusion] == [0, 0, 0]
    assert result.uar_answerable["value"] == pytest.approx(result.uar["value"] * 3 / 2)
    page = (tmp_path / "evaluations" / "other" / "report.html").read_text()
    assert 'id="untrained"' in page

    start = systems.implementation(config).load_ensemble(
        [tmp_path / f"fold_{number:02}" / "checkpoints" for number in range(2)]
    )
    shares = start(corpus.inputs[:3], 3)().probabilities
    assert shares.shape == (3, 3)
    assert not shares[:, 2].any()
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-6)
