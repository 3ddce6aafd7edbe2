import numpy as np
import pytest
import sklearn.metrics
from sklearn.calibration import calibration_curve

from ds_jax.data.labels import LABELS
from ds_jax.evaluation import metrics


def draw(seed, present=7, count=60, predicted=7):
    """Labels among the first `present`, predictions among the first `predicted`."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(present, size=count)
    guesses = generator.integers(predicted, size=count)
    return labels, np.where(generator.random(count) < 0.5, labels, guesses)


CASES = [
    draw(0),
    draw(1, present=5),
    draw(2, present=5, predicted=3),
    draw(3, present=3, count=4),
    (np.array([2]), np.array([2])),
    (np.array([2, 2]), np.array([6, 6])),
    (np.array([0, 1, 1, 6]), np.array([1, 0, 6, 1])),
]


@pytest.mark.parametrize(("labels", "predictions"), CASES)
def test_scores_are_those_of_scikit_learn(labels, predictions):
    matrix = metrics.confusion(labels, predictions, 7)
    present = np.unique(labels)
    options = {"labels": present, "average": "macro", "zero_division": 0}
    expected = sklearn.metrics.confusion_matrix(labels, predictions, labels=range(7))
    np.testing.assert_array_equal(matrix, expected)
    assert metrics.accuracy(matrix) == pytest.approx(
        sklearn.metrics.accuracy_score(labels, predictions)
    )
    assert metrics.uar(matrix) == pytest.approx(
        sklearn.metrics.recall_score(labels, predictions, **options)
    )
    assert metrics.macro_f1(matrix) == pytest.approx(
        sklearn.metrics.f1_score(labels, predictions, **options)
    )


@pytest.mark.parametrize(("labels", "predictions"), CASES)
def test_the_scores_of_each_class_are_those_of_scikit_learn(labels, predictions):
    found = metrics.per_class(metrics.confusion(labels, predictions, 7), LABELS)
    expected = sklearn.metrics.precision_recall_fscore_support(
        labels, predictions, labels=range(7), zero_division=0
    )
    assert tuple(found) == LABELS
    for row, values in zip(found.values(), zip(*expected, strict=True), strict=True):
        assert tuple(row) == ("precision", "recall", "f1", "support")
        assert tuple(row.values()) == pytest.approx(values)


@pytest.mark.parametrize("score", metrics.SCORES.values())
def test_many_matrices_are_scored_as_one_by_one(score):
    stack = np.stack([metrics.confusion(*case, 7) for case in CASES[:6]])
    one_by_one = np.array([score(matrix) for matrix in stack])
    np.testing.assert_array_equal(score(stack), one_by_one)
    np.testing.assert_array_equal(
        score(stack.reshape(2, 3, 7, 7).astype(float)).ravel(), one_by_one
    )


@pytest.mark.parametrize("score", metrics.SCORES.values())
def test_a_score_of_nothing_is_zero(score):
    assert score(np.zeros((7, 7), int)) == 0


def test_calibration_by_hand():
    probabilities = np.full((4, 7), 0.0)
    probabilities[:, 0] = [1.0, 0.95, 0.62, 0.68]
    probabilities[:, 1] = 1 - probabilities[:, 0]
    bins = metrics.calibration(np.array([0, 1, 0, 0]), probabilities)
    assert [(row["low"], row["high"]) for row in bins] == [
        (k / 10, (k + 1) / 10) for k in range(10)
    ]
    assert [row["n"] for row in bins] == [0, 0, 0, 0, 0, 0, 2, 0, 0, 2]
    assert (bins[6]["confidence"], bins[6]["accuracy"]) == (pytest.approx(0.65), 1.0)
    assert (bins[9]["confidence"], bins[9]["accuracy"]) == (pytest.approx(0.975), 0.5)
    assert (bins[0]["confidence"], bins[0]["accuracy"]) == (None, None)
    # The range above .9 holds a right and a wrong one at .975, that of .6 two right at .65.
    expected = (abs(0.975 - 0.5) * 2 + abs(0.65 - 1) * 2) / 4
    assert metrics.calibration_error(bins) == pytest.approx(expected)


def test_the_bins_of_calibration_are_those_of_scikit_learn():
    generator = np.random.default_rng(0)
    labels, probabilities = generator.integers(0, 7, 500), generator.dirichlet(np.ones(7) / 4, 500)
    bins = [row for row in metrics.calibration(labels, probabilities) if row["n"]]
    right = probabilities.argmax(1) == labels
    accuracy, confidence = calibration_curve(right, probabilities.max(1), n_bins=10)
    assert [row["accuracy"] for row in bins] == pytest.approx(accuracy)
    assert [row["confidence"] for row in bins] == pytest.approx(confidence)
    assert sum(row["n"] for row in bins) == 500
