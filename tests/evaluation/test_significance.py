import itertools
import json

import numpy as np
import pytest
from made_up import predictions as made_of
from scipy import stats

from ds_jax.evaluation import intervals, metrics, significance
from ds_jax.evaluation.predictions import Predictions


def two_systems(speakers, each, generator, gain=0.0):
    """Two systems that find the same speakers hard, the first better by `gain` (logit)."""
    ease, name = generator.normal(0.7, 0.8, speakers), np.repeat(np.arange(speakers), each)
    labels = np.tile(np.arange(each) % 7, speakers)

    def system(bonus):
        skill = 1 / (1 + np.exp(-(ease + bonus + generator.normal(0, 0.5, speakers))))
        right = generator.random(speakers * each) < skill[name]
        return made_of(name, labels, np.where(right, labels, (labels + 1 + name % 2) % 7))

    return system(gain), system(0)


def compared(first, second):
    """One fold's comparison."""
    return significance.compare([first], [second], [100])


def of(predictions, score, rows=slice(None)):
    return score(metrics.confusion(predictions.labels[rows], predictions.predictions[rows], 7))


def uneven(systems, each):
    """Speakers with less and less to say."""
    row = np.arange(len(systems[0].labels))
    return [system.keep(row % each < each - 2 * (row // each)) for system in systems]


@pytest.mark.parametrize("speakers", [4, 5, 6])
def test_few_speakers_are_swapped_in_every_way(speakers):
    first, second = uneven(two_systems(speakers, 20, np.random.default_rng(speakers), 0.6), 20)
    found = compared(first, second)
    for name, score in metrics.SCORES.items():
        difference = of(first, score) - of(second, score)
        larger = 0
        for swaps in itertools.product([False, True], repeat=speakers):
            changes = np.asarray(swaps)[first.speakers.astype(int)]
            one = np.where(changes, second.predictions, first.predictions)
            two = np.where(changes, first.predictions, second.predictions)
            one, two = (metrics.confusion(first.labels, said, 7) for said in (one, two))
            larger += abs(score(one) - score(two)) >= abs(difference) - 1e-12
        assert found[name]["difference"] == pytest.approx(difference)
        assert found[name]["p"] == larger / 2**speakers
    assert found["clusters"] == speakers
    assert found["smallest_p"] == 2 / 2**speakers
    assert f"in all {2**speakers} ways" in found["method"]


def test_random_swaps_come_close_to_all(monkeypatch):
    first, second = two_systems(12, 21, np.random.default_rng(2), 0.3)
    every = compared(first, second)
    monkeypatch.setattr(significance, "SWAPS", 4000)
    random = compared(first, second)
    assert random["smallest_p"] == 1 / 4001
    assert "at random 4000 times" in random["method"]
    for name in metrics.SCORES:
        assert 0.02 < every[name]["p"] < 0.8
        assert random[name]["p"] == pytest.approx(every[name]["p"], abs=0.025)
        assert random[name]["p"] != every[name]["p"]


def test_random_swaps_never_give_less_than_the_smallest_p():
    labels, speakers = np.arange(210) % 7, np.repeat(np.arange(30), 7)
    found = compared(
        made_of(speakers, labels, labels),
        made_of(speakers, labels, np.zeros(210, int)),
    )
    assert found["uar"]["p"] == found["smallest_p"] == 1 / (significance.SWAPS + 1)


@pytest.mark.parametrize(("speakers", "trials"), [(8, 400), (16, 200)])
def test_equal_systems_differ_in_one_of_twenty_trials(speakers, trials, monkeypatch):
    monkeypatch.setattr(intervals, "DRAWS", 10)
    monkeypatch.setattr(significance, "SWAPS", 399)
    generator, p = np.random.default_rng(3), []
    for _ in range(trials):
        found = compared(*two_systems(speakers, 42, generator))
        p.append([found[name]["p"] for name in metrics.SCORES])
    rejected, below_half = (np.mean(np.asarray(p) <= level, axis=0) for level in (0.05, 0.5))
    assert np.all((rejected > 0.02) & (rejected < 0.08))
    assert np.all(np.abs(below_half - 0.5) < 0.1)


@pytest.mark.parametrize(
    ("speakers", "trials"),
    [(6, 100), (24, 100), *(pytest.param(n, 1000, marks=pytest.mark.slow) for n in (6, 10, 12))],
)
def test_about_nineteen_of_twenty_intervals_hold_the_true_difference(speakers, trials, monkeypatch):
    monkeypatch.setattr(intervals, "DRAWS", 200)
    monkeypatch.setattr(significance, "SWAPS", 99)
    generator = np.random.default_rng(4)
    chances = 1 / (1 + np.exp(-generator.normal((0.7 + 0.5, 0.7), np.hypot(0.8, 0.5), (10**6, 2))))
    truth = np.subtract(*chances.mean(0))
    held = 0
    for _ in range(trials):
        found = compared(*two_systems(speakers, 28, generator, 0.5))["accuracy"]
        held += found["low"] <= truth <= found["high"]
    assert held / trials == pytest.approx(0.95, abs=0.02 + 3 * np.sqrt(0.95 * 0.05 / trials))


def test_a_better_system_is_found_though_the_intervals_of_both_overlap():
    first, second = two_systems(24, 42, np.random.default_rng(5), 0.7)
    found = compared(first, second)["uar"]
    assert found["low"] > 0
    assert found["p"] < 0.05
    assert intervals.intervals(first)[0]["uar"][0] < intervals.intervals(second)[0]["uar"][1]


@pytest.mark.parametrize("speakers", [5, 20, 24])
def test_the_interval_agrees_with_scipy(speakers):
    first, second = two_systems(speakers, 28, np.random.default_rng(6), 0.5)
    differences = (
        (first.labels == first.predictions).astype(float)
        - (second.labels == second.predictions).astype(float)
    ).reshape(speakers, 28)
    means = differences.mean(1)
    found = compared(first, second)
    if speakers <= intervals.MOST_T_CLUSTERS:
        expected = stats.t.interval(0.95, speakers - 1, means.mean(), stats.sem(means))
        tolerance = 1e-9
        assert f"95 % t interval over {speakers} speakers" in found["method"]
    else:
        generator = np.random.default_rng(7)
        expected = stats.bootstrap((means,), np.mean, method="percentile", rng=generator)
        expected, tolerance = expected.confidence_interval, 0.006
        assert "bootstrap over 24 speakers" in found["method"]
    interval = found["accuracy"]["low"], found["accuracy"]["high"]
    assert interval == pytest.approx(tuple(expected), abs=tolerance)


@pytest.mark.parametrize("speakers", [2, 6, 24])
def test_exchanging_the_systems_changes_the_sign_only(speakers):
    first, second = two_systems(speakers, 28, np.random.default_rng(8), 0.4)
    folds = [np.arange(28 * speakers) % 4 == fold for fold in range(4)]
    one, two = ([system.keep(fold) for fold in folds] for system in (first, second))
    there, back = significance.compare(one, two, [50] * 4), significance.compare(two, one, [50] * 4)
    for name in metrics.SCORES:
        assert back[name]["difference"] == pytest.approx(-there[name]["difference"])
        assert back[name]["low"] == pytest.approx(-there[name]["high"])
        assert back[name]["high"] == pytest.approx(-there[name]["low"])
        assert back[name]["p"] == pytest.approx(there[name]["p"])
        assert back[name]["p_folds"] == pytest.approx(there[name]["p_folds"])
        assert there[name]["low"] < there[name]["difference"] < there[name]["high"]


@pytest.mark.parametrize("speakers", [1, 6, 20])
def test_a_system_does_not_differ_from_itself(speakers):
    first, _ = two_systems(speakers, 28, np.random.default_rng(9))
    halves = [first.keep(np.arange(28 * speakers) % 2 == half) for half in (0, 1)]
    found = significance.compare(halves, halves, [50, 50])
    for name in metrics.SCORES:
        assert found[name] == {"difference": 0, "low": 0, "high": 0, "p": 1, "p_folds": 1}


def test_rows_in_another_order_give_the_same_to_the_last_digit(monkeypatch):
    first, second = two_systems(24, 14, np.random.default_rng(10))
    mixed = [
        system.keep(np.random.default_rng(seed).permutation(336))
        for seed, system in enumerate((first, second))
    ]
    found = compared(first, second)
    assert compared(*mixed) == found
    json.dumps(found, allow_nan=False)
    monkeypatch.setattr(intervals, "SEED", 1)
    assert compared(*mixed)["uar"]["low"] != found["uar"]["low"]


def test_two_voices_are_compared_sentence_by_sentence_and_said_to_be_two():
    by_sentence = two_systems(30, 8, np.random.default_rng(11), 0.5)
    voices = np.arange(240) % 2
    both = [made_of(voices, s.labels, s.predictions, s.speakers) for s in by_sentence]
    found, expected = compared(*both), compared(*by_sentence)
    assert (found["unit"], found["clusters"]) == ("sentences", 30)
    assert "these two voices only" in found["method"]
    for name in metrics.SCORES:
        assert found[name] == expected[name]


def test_one_cluster_shows_nothing():
    found = compared(made_of(["x"], [1], [1]), made_of(["x"], [1], [2]))
    assert found["uar"] == {"difference": 1, "low": None, "high": None, "p": 1, "p_folds": None}
    assert found["smallest_p"] == 1


def test_folds_have_the_corrected_t_test():
    first, second = two_systems(10, 30, np.random.default_rng(12), 0.4)
    rows = [np.arange(300) // 30 % 5 == fold for fold in range(5)]
    one, two = ([system.keep(fold) for fold in rows] for system in (first, second))
    found = significance.compare(one, two, [240] * 5)
    for name, score in metrics.SCORES.items():
        scores = [[of(system, score, fold) for fold in rows] for system in (first, second)]
        naive = stats.ttest_rel(*scores)
        corrected = naive.statistic * np.sqrt((1 / 5) / (1 / 5 + 60 / 240))
        expected = 2 * stats.t.sf(abs(corrected), 4)
        assert found[name]["p_folds"] == pytest.approx(expected)
        assert naive.pvalue < found[name]["p_folds"] < 1


def test_folds_that_all_differ_equally_have_no_t_test():
    labels, speakers = np.arange(28) % 7, np.repeat(np.arange(4), 7)
    worse = np.where(labels == 3, 4, labels)
    rows = [speakers == speaker for speaker in range(4)]
    one = [made_of(speakers, labels, labels).keep(fold) for fold in rows]
    two = [made_of(speakers, labels, worse).keep(fold) for fold in rows]
    found = significance.compare(one, two, [21] * 4)
    assert found["accuracy"]["difference"] == pytest.approx(1 / 7)
    assert {found[name]["p_folds"] for name in metrics.SCORES} == {None}
    assert compared(one[0], two[0])["uar"]["p_folds"] is None


def test_an_utterance_tested_in_several_splits_keeps_its_rows_together():
    first, second = two_systems(6, 20, np.random.default_rng(13), 0.5)
    once = compared(first, second)
    twice = significance.compare([first, first], [second, second], [100, 100])
    for name in metrics.SCORES:
        for field in ("difference", "low", "high", "p"):
            assert twice[name][field] == pytest.approx(once[name][field])


def changed(predictions, field):
    values = getattr(predictions, field).copy()
    values[5] = 3 if field == "labels" else "other"
    fields = {name: getattr(predictions, name) for name in Predictions.__dataclass_fields__}
    return Predictions(**(fields | {field: values}))


@pytest.mark.parametrize("field", ["labels", "speakers", "sentences"])
def test_systems_that_disagree_on_what_was_tested_are_refused(field):
    first, second = two_systems(3, 7, np.random.default_rng(14))
    folds = [first, changed(second, field)]
    with pytest.raises(ValueError, match=f"fold 1: the systems disagree on the {field} of u0005"):
        significance.compare([first, first], folds, [9, 9])


def test_systems_tested_on_other_utterances_are_refused():
    first, second = two_systems(3, 7, np.random.default_rng(15))
    with pytest.raises(ValueError, match="fold 0: only one of the systems was tested on other"):
        compared(first, changed(second, "utterances"))
    with pytest.raises(ValueError, match="fold 0: only one of the systems was tested on u0002"):
        compared(first.keep(np.r_[:21, 2]), second)
    with pytest.raises(ValueError, match="one system has 1 fold and the other 2"):
        significance.compare([first], [second, second], [9])
    with pytest.raises(ValueError, match="no prediction to compare"):
        compared(first.keep(np.arange(0)), second.keep(np.arange(0)))


def on_speakers(speakers, seed, each=28):
    """Two systems on a corpus, and the differences of their accuracies for each speaker."""
    both = two_systems(speakers, each, np.random.default_rng(seed), 0.5)
    one, two = ((s.labels == s.predictions).reshape(speakers, each).mean(1) for s in both)
    return both, one - two


def over_corpora(*corpora):
    """The comparison over corpora, with one fold each."""
    return significance.compare_sets([significance.pairs_of([one], [two]) for one, two in corpora])


@pytest.mark.parametrize("speakers", [(3, 3), (3, 10), (4, 40), (24, 30)])
def test_the_interval_over_two_corpora_is_welchs(speakers, monkeypatch):
    monkeypatch.setattr(significance, "SWAPS", 99)
    first, one = on_speakers(speakers[0], 16)
    second, two = on_speakers(speakers[1], 17)
    expected = stats.ttest_ind(one, -two, equal_var=False).confidence_interval()
    found = over_corpora(first, second)
    assert found["clusters"] == sum(speakers)
    assert found["accuracy"]["difference"] == pytest.approx((one.mean() + two.mean()) / 2)
    limits = found["accuracy"]["low"], found["accuracy"]["high"]
    assert limits == pytest.approx(np.clip(np.divide(expected, 2), -1, 1))


def test_corpora_that_vary_alike_have_the_pooled_interval():
    both, _ = on_speakers(6, 18)
    alone, together = compared(*uneven(both, 28)), over_corpora(*[uneven(both, 28)] * 3)
    for name in metrics.SCORES:
        difference = alone[name]["difference"]
        error = (alone[name]["high"] - difference) / stats.t.ppf(0.975, 5)
        expected = stats.t.interval(0.95, 15, difference, error / np.sqrt(3))
        assert (together[name]["low"], together[name]["high"]) == pytest.approx(expected)


def test_a_corpus_with_a_single_cluster_leaves_the_mean_without_an_interval():
    alone = made_of(["x"], [1], [1]), made_of(["x"], [1], [2])
    found = over_corpora(on_speakers(6, 19)[0], alone)
    assert {(found[name]["low"], found[name]["high"]) for name in metrics.SCORES} == {(None, None)}
    assert "single cluster" in found["method"]
    json.dumps(found, allow_nan=False)


def test_the_interval_over_corpora_ends_at_one():
    labels, speakers = np.zeros(60, int), np.repeat(np.arange(3), 20)
    better = made_of(speakers, labels, labels)
    worse = made_of(speakers, labels, np.where(np.arange(60) < 15, 0, 1))
    found = over_corpora(*[(better, worse)] * 2)["accuracy"]
    assert (0 < found["low"] < 0.75, found["high"]) == (True, 1)
    found = over_corpora(*[(worse, better)] * 2)["accuracy"]
    assert (found["low"], 0 > found["high"] > -0.75) == (-1, True)


def test_a_system_does_not_differ_from_itself_over_corpora():
    systems = [on_speakers(speakers, 20)[0][0] for speakers in (2, 6)]
    found = over_corpora(*zip(systems, systems, strict=True))
    for name in metrics.SCORES:
        assert found[name] == {"difference": 0, "low": 0, "high": 0, "p": 1}


def test_holm_by_hand():
    # .005 x 4, .01 x 3, .03 x 2, and .04 x 1, which may not be less than the one before.
    assert significance.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert significance.holm([0.6, 0.5]) == [1.0, 1.0]
    assert significance.holm([0.02]) == [0.02]
    assert significance.holm([]) == []


def test_holm_is_monotone_and_independent_of_the_order():
    p = np.random.default_rng(18).random(20) ** 3
    adjusted = np.asarray(significance.holm(p))
    order = np.argsort(p)
    assert np.all(np.diff(adjusted[order]) >= 0)
    assert np.all((adjusted >= p) & (adjusted <= 1))
    np.testing.assert_array_equal(significance.holm(p[order]), adjusted[order])
