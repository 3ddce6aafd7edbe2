import numpy as np
import pytest
from made_up import predictions as made_of
from scipy import stats

from ds_jax.evaluation import intervals as module
from ds_jax.evaluation import metrics
from ds_jax.evaluation.intervals import intervals


def simulated(speakers, each, generator, spread=0.8, level=0.7):
    """Speakers whose utterances are right with a probability of their own, around exp(level)."""
    skill = 1 / (1 + np.exp(-generator.normal(level, spread, speakers)))
    labels = generator.integers(7, size=(speakers, each))
    right = generator.random((speakers, each)) < skill[:, None]
    predictions = np.where(right, labels, (labels + 1) % 7)
    return made_of(np.repeat(np.arange(speakers), each), labels.ravel(), predictions.ravel())


def hits(predictions):
    return predictions.labels == predictions.predictions


def test_with_many_speakers_accuracy_agrees_with_scipys_bootstrap():
    predictions = simulated(24, 30, np.random.default_rng(0))
    # Unequal speakers, so that a mean of speakers' means would be seen.
    predictions = predictions.keep(np.arange(720) % 30 < 6 + np.arange(720) // 30)
    _, speaker = np.unique(predictions.speakers, return_inverse=True)
    right, total = np.bincount(speaker, hits(predictions)), np.bincount(speaker)
    expected = stats.bootstrap(
        (right, total),
        lambda right, total, axis: right.sum(axis) / total.sum(axis),
        paired=True,
        method="percentile",
        n_resamples=20000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    found, method = intervals(predictions)
    assert found["accuracy"] == pytest.approx(tuple(expected), abs=0.006)
    assert method == "95 % percentile bootstrap over 24 speakers (5000 draws)"


@pytest.mark.parametrize("speakers", [6, 20])
def test_up_to_twenty_equal_speakers_accuracy_has_the_t_interval_of_their_means(speakers):
    predictions = simulated(speakers, 40, np.random.default_rng(2))
    means = hits(predictions).reshape(speakers, 40).mean(1)
    expected = stats.t.interval(0.95, speakers - 1, means.mean(), stats.sem(means))
    found, method = intervals(predictions)
    assert found["accuracy"] == pytest.approx(expected)
    assert method == f"95 % t interval over {speakers} speakers (jackknife)"


def test_the_jackknife_of_every_score_by_hand():
    predictions = simulated(4, 25, np.random.default_rng(3))
    predictions = predictions.keep(np.arange(100) % 25 < 10 + 4 * (np.arange(100) // 25))
    found, _ = intervals(predictions)
    for name, score in metrics.SCORES.items():

        def of(rows, score=score):
            return score(
                metrics.confusion(predictions.labels[rows], predictions.predictions[rows], 7)
            )

        whole = of(slice(None))
        pseudo = [4 * whole - 3 * of(predictions.speakers != speaker) for speaker in "0123"]
        expected = stats.t.interval(0.95, 3, whole, np.std(pseudo, ddof=1) / 2)
        assert found[name] == pytest.approx(np.clip(expected, 0, 1))


def test_intervals_stay_between_zero_and_one():
    labels = np.zeros(30, int)
    wrong = (np.arange(30) >= 22).astype(int)
    found, _ = intervals(made_of(np.repeat(np.arange(3), 10), labels, wrong))
    assert found["accuracy"][0] >= 0
    assert found["accuracy"][1] == 1


@pytest.mark.parametrize("speakers", [1, 2, 6, 21])
def test_every_score_lies_within_its_interval(speakers):
    predictions = simulated(speakers, 40, np.random.default_rng(speakers))
    matrix = predictions.confusion
    for name, (low, high) in intervals(predictions)[0].items():
        assert 0 <= low < metrics.SCORES[name](matrix) < high <= 1


@pytest.mark.parametrize("speakers", [2, 5, 21])
def test_intervals_repeat_exactly_in_any_order_of_rows(speakers):
    predictions = simulated(speakers, 20, np.random.default_rng(4))
    mixed = predictions.keep(np.random.default_rng(5).permutation(20 * speakers))
    assert intervals(predictions) == intervals(predictions)
    assert intervals(predictions) == intervals(mixed)


def test_another_seed_changes_a_bootstrap_a_little(monkeypatch):
    predictions = simulated(21, 20, np.random.default_rng(6))
    one = intervals(predictions)[0]["uar"]
    monkeypatch.setattr("ds_jax.evaluation.intervals.SEED", 1)
    other = intervals(predictions)[0]["uar"]
    assert one != other
    assert one == pytest.approx(other, abs=0.01)


def test_two_voices_are_resampled_by_sentence_and_said_to_be_two():
    generator = np.random.default_rng(7)
    of_sentence = simulated(30, 8, generator, spread=2)
    speakers = np.arange(240) % 2
    both = made_of(
        speakers, of_sentence.labels, of_sentence.predictions, sentences=of_sentence.speakers
    )
    found, method = intervals(both)
    assert found == intervals(of_sentence)[0]
    assert "30 sentences" in method
    assert "these two voices only" in method
    one = made_of(["x"] * 240, both.labels, both.predictions, sentences=both.sentences)
    assert intervals(one)[0] == found
    assert "this voice only" in intervals(one)[1]


def test_unknown_speakers_are_no_voice_and_sentences_are_resampled():
    of_sentence = simulated(30, 8, np.random.default_rng(7), spread=2)
    answers = of_sentence.labels, of_sentence.predictions
    for speakers in ([""] * 240, [*"abcd" * 59, *[""] * 4]):
        unknown = made_of(speakers, *answers, sentences=of_sentence.speakers)
        found, method = intervals(unknown)
        assert found == intervals(of_sentence)[0]
        assert "30 sentences" in method
        assert "speakers are unknown" in method
        assert "voice" not in method


@pytest.mark.parametrize("sentences", [np.arange(40) % 9, [""] * 40, ["", *range(39)]])
def test_without_enough_known_sentences_utterances_are_resampled(sentences):
    labels = np.arange(40) % 7
    predictions = made_of(
        np.arange(40) % 2, labels, np.where(np.arange(40) % 3, labels, 0), sentences
    )
    assert "40 utterances" in intervals(predictions)[1]


@pytest.mark.parametrize("speakers", [1, 6, 21])
def test_what_is_tested_twice_gives_no_narrower_interval(speakers):
    predictions = simulated(speakers, 24, np.random.default_rng(8))
    rows = np.arange(24 * speakers)
    once, twice = intervals(predictions), intervals(predictions.keep(np.r_[rows, rows]))
    assert twice[1] == once[1]
    for name in metrics.SCORES:
        assert twice[0][name] == pytest.approx(once[0][name])


def test_a_single_utterance_has_no_interval():
    found, method = intervals(made_of(["x"], [1], [1]))
    assert found == dict.fromkeys(metrics.SCORES, (None, None))
    assert "single utterance" in method


@pytest.mark.parametrize("speakers", [5, 21])
def test_a_width_of_zero_is_explained(speakers):
    labels = np.arange(speakers * 7) % 7
    found, method = intervals(made_of(np.repeat(np.arange(speakers), 7), labels, labels))
    assert found["uar"] == pytest.approx((1, 1))
    assert "not that this is certain" in method


def coverage(speakers, trials, monkeypatch):
    """The shares of t and of bootstrap intervals, and of those by utterances, that are right."""
    monkeypatch.setattr(module, "DRAWS", 200)
    generator = np.random.default_rng(9)
    truth = np.mean(1 / (1 + np.exp(-generator.normal(0.7, 0.8, 10**6))))
    held = np.zeros(3)
    for _ in range(trials):
        predictions = simulated(speakers, 30, generator)
        for method, most in enumerate((speakers, speakers - 1)):
            monkeypatch.setattr(module, "MOST_T_CLUSTERS", most)
            low, high = intervals(predictions)[0]["accuracy"]
            held[method] += low <= truth <= high
        right = hits(predictions)
        held[2] += abs(right.mean() - truth) <= 1.96 * right.std() / np.sqrt(right.size)
    return held / trials


@pytest.mark.parametrize(
    ("speakers", "trials"),
    [(6, 100), *(pytest.param(n, 1000, marks=pytest.mark.slow) for n in (6, 10, 20))],
)
def test_nineteen_of_twenty_t_intervals_hold_the_truth_and_fewer_bootstraps(
    speakers, trials, monkeypatch
):
    t, bootstrap, independent = coverage(speakers, trials, monkeypatch)
    assert t == pytest.approx(0.95, abs=0.015 + 3 * np.sqrt(0.95 * 0.05 / trials))
    assert bootstrap < t
    assert independent < 0.8


@pytest.mark.parametrize("trials", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_bootstrap_of_more_speakers_is_right_nearly_as_often(trials, monkeypatch):
    t, bootstrap, _ = coverage(module.MOST_T_CLUSTERS + 1, trials, monkeypatch)
    assert 0 <= t - bootstrap < 0.04
    assert bootstrap == pytest.approx(0.95, abs=0.02 + 3 * np.sqrt(0.95 * 0.05 / trials))
