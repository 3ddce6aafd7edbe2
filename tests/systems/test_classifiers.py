import os

import joblib
import numpy as np
import pytest
import scipy.special
import sklearn
from sklearn.linear_model import Ridge
from sklearn.metrics import balanced_accuracy_score, log_loss
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from xgboost import XGBClassifier

from ds_jax.data.labels import LABELS
from ds_jax.runtime import files
from ds_jax.runtime.errors import ConfigError
from ds_jax.runtime.files import read_json
from ds_jax.systems import classifiers
from ds_jax.training.checkpoints import CARD

KINDS = {
    "mlr": classifiers.MLR,
    "svc": classifiers.SVC,
    "ridge": classifiers.Ridge,
    "xgboost": classifiers.XGBoost,
}
VECTORS = {"kernel": "rbf", "costs": (0.01, 0.1, 1.0, 10.0), "scaling": "standardised"}
TREES = {"trees": 6, "depth": 3, "learning_rate": 0.3, "column_share": 0.5, "bins": 16}
MODELS = {"mlr": {}, "svc": VECTORS, "ridge": VECTORS, "xgboost": TREES}
every_kind = pytest.mark.parametrize("kind", KINDS)


def made(count=140, width=12, classes=range(7), spread=1.2, seed=0):
    """Features of unequal scales, and labels that they tell apart to some degree."""
    generator = np.random.default_rng(seed)
    labels = np.asarray(classes)[np.arange(count) % len(classes)]
    centres = generator.normal(size=(7, width))
    inputs = centres[labels] + generator.normal(0, spread, (count, width))
    return (inputs * generator.uniform(0.5, 20, width) + 3).astype(np.float32), labels


def folds(count, parts=4):
    part = np.arange(count) // 7 % parts
    return [(np.flatnonzero(part != i), np.flatnonzero(part == i)) for i in range(parts)]


def fitted(kind, inputs, labels, **fields):
    model = MODELS[kind] | fields
    return classifiers.fit(KINDS[kind], model, inputs, labels, folds(len(labels)), 3)


def pipeline(cost, kernel="rbf", scaling="standardised"):
    svc = SVC(C=cost, kernel=kernel, gamma="scale", break_ties=True)
    return make_pipeline(StandardScaler(), svc) if scaling == "standardised" else svc


def held_out(inputs, labels, cost, **kinds):
    """scikit-learn's decisions on all held-out rows, and their labels."""
    decisions = [
        pipeline(cost, **kinds).fit(inputs[train], labels[train]).decision_function(inputs[rows])
        for train, rows in folds(len(labels))
    ]
    return np.concatenate(decisions), np.concatenate([labels[r] for _, r in folds(len(labels))])


@every_kind
def test_rows_sum_to_one_and_training_is_learnt(kind):
    inputs, labels = made(spread=0.5)
    probabilities = fitted(kind, inputs, labels).probabilities(inputs, 7)
    assert probabilities.dtype == np.float64
    assert probabilities.shape == (140, 7)
    assert (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-12)
    assert (probabilities.argmax(1) == labels).mean() > 0.9


@every_kind
def test_labels_absent_from_training_have_no_probability(kind):
    inputs, labels = made(classes=(1, 4, 6))
    classifier = fitted(kind, inputs, labels)
    probabilities = classifier.probabilities(inputs, 7)
    assert classifier.classes.tolist() == [1, 4, 6]
    assert (probabilities[:, [0, 2, 3, 5]] == 0).all()
    assert (probabilities.argmax(1) == labels).mean() > 0.8


@every_kind
def test_two_labels_suffice_and_one_does_not(kind):
    inputs, labels = made(classes=(2, 5))
    probabilities = fitted(kind, inputs, labels).probabilities(inputs, 7)
    np.testing.assert_allclose(probabilities[:, [2, 5]].sum(1), 1, rtol=1e-12)
    assert (probabilities.argmax(1) == labels).mean() > 0.8
    with pytest.raises(ValueError, match="two classes or more, and has 1"):
        fitted(kind, inputs, np.full(140, 2))


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
@pytest.mark.parametrize("scaling", ["standardised", "none"])
def test_support_vectors_and_their_cost_are_scikit_learns(kernel, scaling):
    inputs, labels = made()
    kinds = {"kernel": kernel, "scaling": scaling}
    classifier = fitted("svc", inputs, labels, **kinds)
    scores = []
    for cost in VECTORS["costs"]:
        decisions, truth = held_out(inputs, labels, cost, **kinds)
        scores.append(balanced_accuracy_score(truth, decisions.argmax(1)))
    assert [entry["C"] for entry in classifier.tried] == list(VECTORS["costs"])
    assert [entry["uar"] for entry in classifier.tried] == pytest.approx(scores)
    chosen = VECTORS["costs"][np.argmax(scores)]
    assert classifier.settings["C"] == chosen
    others, _ = made(seed=1)
    direct = pipeline(chosen, **kinds).fit(inputs, labels)
    probabilities = classifier.probabilities(others, 7)
    assert (probabilities.argmax(1) == direct.predict(others)).all()
    expected = direct.decision_function(others) / classifier.settings["temperature"]
    np.testing.assert_allclose(probabilities, scipy.special.softmax(expected, axis=1), atol=2e-3)


def test_the_saved_machine_decides_for_the_most_probable_label_where_votes_are_tied():
    inputs, labels = made(spread=5)
    classifier = fitted("svc", inputs, labels, costs=(1.0,))
    others, _ = made(700, spread=5, seed=1)
    parts = classifier.fitted
    rows = parts["scaler"].transform(others)
    kernel = rbf_kernel(rows, parts["rows"], parts["gamma"])
    most_probable = classifier.probabilities(others, 7).argmax(1)
    assert (parts["svc"].predict(kernel) == most_probable).all()
    assert (parts["svc"].set_params(break_ties=False).predict(kernel) != most_probable).any()


def test_two_labels_are_decided_as_scikit_learn_does():
    inputs, labels = made(classes=(2, 5), spread=3)
    classifier = fitted("svc", inputs, labels)
    direct = pipeline(classifier.settings["C"]).fit(inputs, labels)
    others, _ = made(seed=1)
    assert (classifier.probabilities(others, 7).argmax(1) == direct.predict(others)).all()
    assert set(direct.predict(others)) == {2, 5}


def test_the_temperature_has_the_lowest_log_loss_of_the_held_out_decisions():
    inputs, labels = made(spread=0.8)
    settings = fitted("svc", inputs, labels).settings
    decisions, truth = held_out(inputs, labels, settings["C"])

    def loss(temperature):
        return log_loss(truth, scipy.special.softmax(decisions / temperature, axis=1))

    grid = np.geomspace(0.1, 100, 200)
    best = grid[np.argmin([loss(temperature) for temperature in grid])]
    assert settings["temperature"] == pytest.approx(best, rel=0.04)
    assert loss(settings["temperature"]) < loss(1) - 0.01


def test_of_equal_costs_the_smallest_is_chosen():
    inputs, labels = made(spread=0.01)
    classifier = fitted("svc", inputs, labels, costs=(100.0, 1.0, 10.0))
    assert [entry["uar"] for entry in classifier.tried] == [1, 1, 1]
    assert classifier.settings["C"] == 1.0


def test_the_score_is_pooled_and_counts_labels_that_an_inner_fold_does_not_train():
    inputs, labels = made(70, classes=(0, 1, 2), spread=0.01)
    train, rest = np.flatnonzero(labels < 2)[:30], np.flatnonzero(labels == 2)
    few = np.flatnonzero(labels < 2)[30:]
    inner = [(train, rest), (train, few)]
    classifier = classifiers.fit(classifiers.SVC, VECTORS, inputs, labels, inner, 0)
    assert classifier.tried[-1]["uar"] == pytest.approx(2 / 3)  # by fold it would be (0 + 1) / 2
    assert np.isfinite(classifier.settings["temperature"])
    alone = classifiers.fit(classifiers.SVC, VECTORS, inputs, labels, [(train, rest)], 0)
    assert alone.settings["temperature"] == 1


def test_rows_outside_the_inner_folds_have_no_say_in_the_choice():
    inputs, labels = made()
    inner = folds(105)
    before = classifiers.fit(classifiers.SVC, VECTORS, inputs, labels, inner, 0)
    inputs[105:] = np.random.default_rng(5).normal(0, 100, (35, 12))
    after = classifiers.fit(classifiers.SVC, VECTORS, inputs, labels, inner, 0)
    assert (before.tried, before.settings) == (after.tried, after.settings)
    assert not np.array_equal(before.probabilities(inputs, 7), after.probabilities(inputs, 7))


def test_held_out_rows_do_not_scale_the_training():
    inputs, labels = made()
    classifier = fitted("svc", inputs, labels)
    inputs[::20] *= 1000  # would spoil the scale of all rows if they were scaled together
    spoilt = fitted("svc", inputs, labels)
    for cost, entry in zip(VECTORS["costs"], spoilt.tried, strict=True):
        decisions, truth = held_out(inputs, labels, cost)
        assert entry["uar"] == pytest.approx(balanced_accuracy_score(truth, decisions.argmax(1)))
    assert spoilt.tried != classifier.tried


def test_a_single_cost_is_calibrated_too():
    inputs, labels = made()
    classifier = fitted("svc", inputs, labels, costs=(1.0,))
    assert [entry["C"] for entry in classifier.tried] == [classifier.settings["C"]]
    assert classifier.settings["C"] == 1.0
    assert classifier.settings["temperature"] != 1
    alone = classifiers.fit(classifiers.SVC, VECTORS | {"costs": (1.0,)}, inputs, labels, [], 0)
    assert alone.settings == {"C": 1.0, "temperature": 1.0}
    with pytest.raises(ConfigError):
        classifiers.fit(classifiers.SVC, VECTORS, inputs, labels, [], 0)


@pytest.mark.parametrize("kind", ["svc", "ridge"])
@pytest.mark.parametrize(("steps", "stopped"), [(3, 4 * 4 + 1), (classifiers.STEPS, 0)])
def test_fits_that_are_stopped_are_counted_and_kept(kind, steps, stopped, monkeypatch):
    """Four inner folds and the last fit; scikit-learn's warning would fail the test."""
    monkeypatch.setattr(classifiers, "STEPS", steps)
    inputs, labels = made()
    classifier = fitted(kind, inputs, labels)
    assert classifier.stopped == (stopped if kind == "svc" else 0)
    assert np.isfinite(classifier.probabilities(inputs, 7)).all()


def test_a_ridge_weighs_classes_alike_and_is_scikit_learns():
    inputs, labels = made()
    rows = np.flatnonzero((labels > 0) | (np.arange(len(labels)) % 3 == 0))  # a rare first class
    inputs, labels = inputs[rows], labels[rows]
    model = {"kernel": "linear", "costs": (2.0,), "scaling": "standardised"}
    ridge = classifiers.fit(classifiers.Ridge, model, inputs, labels, [], 0)
    standardised = StandardScaler().fit_transform(inputs.astype(float))
    # The mean diagonal of the kernel of standardised rows is their width.
    targets = np.where(labels[:, None] == np.arange(7), 1.0, 0.0) - 1 / 7
    weights = len(labels) / 7 / np.bincount(labels)[labels]
    reference = Ridge(alpha=inputs.shape[1] / 2, fit_intercept=False)
    reference.fit(standardised, targets, weights)
    wanted = scipy.special.softmax(reference.predict(standardised), axis=1)
    np.testing.assert_allclose(ridge.probabilities(inputs, 7), wanted, rtol=1e-4)
    assert ridge.fitted["rows"].shape == (7, inputs.shape[1])  # and no row of the training


@pytest.mark.parametrize("emphasis", [0, 1])
def test_inner_folds_give_weight_to_a_first_block_and_none_to_noise(emphasis):
    inputs, labels = made(width=6, spread=2.5)
    inputs = np.hstack([inputs, np.random.default_rng(1).normal(size=(140, 20))])
    joined, wanted = {"kernel": "linear", "blocks": (6, 20), "emphasis": emphasis}, []
    ridge = fitted("ridge", inputs, labels, costs=(3.0,), **joined)
    for weight in (1, 3, 10, 30):
        shares = np.repeat([weight / 6, 1 / 20] if emphasis == 0 else [1 / 6, weight / 20], [6, 20])
        decided = labels.copy()
        for train, rows in folds(len(labels)):
            scaler = StandardScaler().fit(inputs[train].astype(float))
            fit, test = (scaler.transform(inputs[x]) * np.sqrt(shares) for x in (train, rows))
            balanced = len(train) / 7 / np.bincount(labels[train])[labels[train]]
            reference = Ridge(alpha=np.square(fit).sum() / len(fit) / 3.0, fit_intercept=False)
            reference.fit(fit, np.eye(7)[labels[train]] - 1 / 7, balanced)
            decided[rows] = reference.predict(test).argmax(axis=1)
        wanted.append(balanced_accuracy_score(labels, decided))
    assert ridge.settings["weight"] == (1, 3, 10, 30)[int(np.argmax(wanted))]
    np.testing.assert_allclose([row["uar"] for row in ridge.tried], wanted, rtol=1e-9)
    assert (ridge.settings["weight"] > 1) == (emphasis == 0)


@every_kind
def test_a_row_of_weight_two_is_two_rows(kind):
    inputs, labels = made()
    inputs, labels = inputs[:40], labels[:40]
    model = MODELS[kind] | {"kernel": "linear", "costs": (1.0,)}
    twice = np.concatenate([np.arange(40), np.arange(0, 40, 3)])
    weights = np.where(np.arange(40) % 3, 1.0, 2.0)
    weighed = classifiers.fit(KINDS[kind], model, inputs, labels, [], 0, weights)
    repeated = classifiers.fit(KINDS[kind], model, inputs[twice], labels[twice], [], 0)
    found, wanted = (each.probabilities(inputs, 7) for each in (weighed, repeated))
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_linear_regression_is_least_squares_on_one_hot_targets():
    inputs, labels = made()
    others, _ = made(seed=1)
    classifier = fitted("mlr", inputs, labels)
    ones = np.ones((140, 1))
    weights = np.linalg.lstsq(np.hstack([ones, inputs]), np.eye(7)[labels], rcond=None)[0]
    outputs = np.hstack([ones, others]) @ weights
    assert (outputs < 0).any()
    np.testing.assert_allclose(outputs.sum(1), 1, rtol=1e-9)
    expected = np.clip(outputs, 0, None)
    expected /= expected.sum(1, keepdims=True)
    probabilities = classifier.probabilities(others, 7)
    np.testing.assert_allclose(probabilities, expected, atol=1e-9)
    assert (probabilities.argmax(1) == outputs.argmax(1)).all()
    assert (classifier.settings, classifier.tried) == ({}, [])


def test_linear_regression_stands_more_features_than_rows():
    inputs, labels = made(40, width=90, spread=0.3)
    probabilities = fitted("mlr", inputs, labels).probabilities(inputs, 7)
    np.testing.assert_allclose(probabilities, np.eye(7)[labels], atol=1e-6)


def test_boosted_trees_are_xgboosts():
    inputs, labels = made(classes=(1, 4, 6))
    direct = XGBClassifier(
        n_estimators=6,
        max_depth=3,
        learning_rate=0.3,
        colsample_bytree=0.5,
        max_bin=16,
        tree_method="hist",
        random_state=3,
        n_jobs=1,
    ).fit(inputs, np.searchsorted([1, 4, 6], labels))
    probabilities = fitted("xgboost", inputs, labels).probabilities(inputs, 7)
    np.testing.assert_allclose(probabilities[:, [1, 4, 6]], direct.predict_proba(inputs), atol=1e-6)
    assert (probabilities.argmax(1) == np.asarray([1, 4, 6])[direct.predict(inputs)]).all()
    other = classifiers.fit(classifiers.XGBoost, TREES, inputs, labels, [], 4)
    assert not np.array_equal(other.probabilities(inputs, 7), probabilities)


def test_any_number_of_workers_gives_the_same_bits(monkeypatch):
    inputs, labels = made()
    found = []
    for workers in (1, 3):
        monkeypatch.setattr(joblib, "cpu_count", lambda workers=workers: workers)
        classifier = fitted("svc", inputs, labels)
        found.append((classifier.settings, classifier.tried))
    assert found[0] == found[1]


@every_kind
def test_features_that_are_not_finite_are_refused(kind):
    inputs, labels = made()
    classifier = fitted(kind, inputs, labels)
    for value in (np.nan, np.inf):
        spoilt = inputs.copy()
        spoilt[17, 3] = value
        with pytest.raises(ValueError, match="features of row 17 hold a NaN or an infinity"):
            fitted(kind, spoilt, labels)
        with pytest.raises(ValueError, match="features of row 17"):
            classifier.probabilities(spoilt, 7)
    with pytest.raises(ValueError, match="11"):
        classifier.probabilities(inputs[:, :11], 7)


@every_kind
def test_a_saved_classifier_comes_back_bit_by_bit(kind, tmp_path):
    inputs, labels = made(classes=(0, 1, 3, 6))
    classifier = fitted(kind, inputs, labels)
    config = {"classes": list(LABELS), "seed": 3, "model": {"costs": [1, 2]}}
    directory = tmp_path / "fold" / "checkpoints"
    with pytest.raises(FileNotFoundError, match=str(directory)):
        classifiers.load(KINDS[kind], directory)
    classifiers.save(directory, classifier, config, "digest")
    assert len(os.listdir(directory)) == 2
    loaded = classifiers.load(KINDS[kind], directory)
    assert (loaded.settings, loaded.tried) == (classifier.settings, classifier.tried)
    assert np.array_equal(loaded.probabilities(inputs, 7), classifier.probabilities(inputs, 7))
    card = read_json(directory / CARD)
    assert (card["config"], card["fold"]) == (config, "digest")
    assert card["trained"] == [LABELS[index] for index in (0, 1, 3, 6)]
    assert (card["settings"], card["tried"]) == (classifier.settings, classifier.tried)


def test_an_interrupted_save_leaves_no_classifier(tmp_path, monkeypatch):
    inputs, labels = made()
    classifiers.save(tmp_path, fitted("mlr", inputs, labels), {"classes": LABELS})

    def interrupt(*_, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "write_json", interrupt)
    with pytest.raises(KeyboardInterrupt):
        classifiers.save(
            tmp_path, fitted("mlr", inputs + labels[:, None], labels), {"classes": LABELS}
        )
    with pytest.raises(FileNotFoundError):
        classifiers.load(classifiers.MLR, tmp_path)


@every_kind
def test_a_damaged_or_missing_model_is_named(kind, tmp_path):
    inputs, labels = made()
    classifiers.save(tmp_path, fitted(kind, inputs, labels), {"classes": LABELS})
    path = tmp_path / KINDS[kind].file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path} is damaged"):
        classifiers.load(KINDS[kind], tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match=f"{path} is damaged"):
        classifiers.load(KINDS[kind], tmp_path)
    (tmp_path / CARD).write_text("{")
    with pytest.raises(ValueError, match=CARD):
        classifiers.load(KINDS[kind], tmp_path)


@every_kind
def test_another_scikit_learn_is_named_and_does_not_concern_xgboost(kind, tmp_path, monkeypatch):
    inputs, labels = made()
    classifiers.save(tmp_path, fitted(kind, inputs, labels), {"classes": LABELS})
    monkeypatch.setattr(sklearn, "__version__", "99.1")
    if kind == "xgboost":
        classifiers.load(KINDS[kind], tmp_path)
        return
    with pytest.raises(ValueError, match=r"scikit-learn \d[^,]*, and this is 99\.1: install"):
        classifiers.load(KINDS[kind], tmp_path)
