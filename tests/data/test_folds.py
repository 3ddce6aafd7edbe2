"""Folds partition a corpus by their protocol, the same on every machine."""

import dataclasses
import itertools
from collections import Counter

import pytest
from dealt import RULES, attributes, corpus
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused_field

from ds_jax.data.folds import PROTOCOLS, Fold, check, make_folds, shared
from ds_jax.data.labels import LABELS
from ds_jax.runtime.errors import ConfigError

CHOICES = ("dev", "test", "none")


@settings(deadline=None, max_examples=60)
@given(
    how=st.sampled_from(
        [*itertools.product(RULES, CHOICES), ("whole_corpus", "dev"), ("whole_corpus", "none")]
    ),
    speakers=st.integers(2, 11),
    sentences=st.integers(10, 13),
    seed=st.integers(0, 9),
    order=st.randoms(),
)
def test_splits_partition_the_corpus_whatever_its_order(how, speakers, sentences, seed, order):
    protocol, select_on = how
    utterances = corpus(speakers, sentences)
    folds = make_folds(utterances, protocol, 4, seed, select_on)
    for fold in folds:
        assert sorted(fold.train + fold.dev + fold.test) == sorted(u.name for u in utterances)
        assert all(list(names) == sorted(names) for names in fold.splits.values())
        assert fold.train
        assert bool(fold.dev) == bool(fold.dev_rule) == (select_on == "dev")
        assert bool(fold.test) == (protocol != "whole_corpus")
    mixed = order.sample(utterances, len(utterances))
    assert make_folds(mixed, protocol, 4, seed, select_on) == folds


@pytest.mark.parametrize("protocol", ["stratified", "speakers", "leave_one_speaker_out"])
def test_every_utterance_is_tested_once(protocol):
    utterances = corpus()
    tested = [name for fold in make_folds(utterances, protocol, 5, 3) for name in fold.test]
    assert sorted(tested) == sorted(u.name for u in utterances)


@pytest.mark.parametrize("protocol", ["stratified", "split_70_30", "speakers", "sentences"])
def test_another_seed_gives_other_folds(protocol):
    assert make_folds(corpus(), protocol, 3, 0) != make_folds(corpus(), protocol, 3, 1)


@pytest.mark.parametrize("protocol", RULES)
def test_dev_is_taken_from_train_and_leaves_test_alone(protocol):
    on_dev, on_test, on_none = (make_folds(corpus(), protocol, 4, 0, on) for on in CHOICES)
    assert on_none == on_test
    for with_dev, without in zip(on_dev, on_test, strict=True):
        assert with_dev.test == without.test
        assert tuple(sorted(with_dev.train + with_dev.dev)) == without.train


def test_the_deal_is_the_same_for_ever():
    # The speakers' order is that of: printf "0:test:$speaker" | sha256sum
    folds = make_folds(corpus(12, 1, skip=10**6), "speakers", 4, 0)
    assert [[name[1:3] for name in fold.test] for fold in folds] == [
        ["00", "05", "10"],
        ["01", "09", "11"],
        ["04", "07", "08"],
        ["02", "03", "06"],
    ]
    files = corpus(2, 6, LABELS[:2])
    assert [(fold.dev, fold.test) for fold in make_folds(files, "stratified", 3, 7)] == [
        (("s00_02",), ("s00_04", "s00_05", "s01_02", "s01_05")),
        (("s01_03",), ("s00_00", "s00_01", "s01_01", "s01_04")),
        (("s00_00",), ("s00_02", "s00_03", "s01_03")),
    ]
    assert [fold.test for fold in make_folds(files, "split_70_30", 2, 7)] == [
        ("s00_05", "s01_01", "s01_04"),
        ("s00_02", "s00_03", "s01_04"),
    ]


@pytest.mark.parametrize("count", [2, 5, 10])
def test_stratified_folds_balance_sizes_and_labels_and_dev_is_a_tenth(count):
    utterances = corpus(7, 11)
    label_of = {u.name: u.label for u in utterances}
    folds = make_folds(utterances, "stratified", count, 0)
    sizes = [len(fold.test) for fold in folds]
    assert len(sizes) == count
    assert max(sizes) - min(sizes) <= 1
    for label in LABELS:
        counts = [sum(label_of[name] == label for name in fold.test) for fold in folds]
        assert max(counts) - min(counts) <= 1
        for fold in folds:
            training, dev = (
                sum(label_of[name] == label for name in names)
                for names in (fold.train + fold.dev, fold.dev)
            )
            assert abs(dev - training / 10) < 1
    assert {fold.dev_rule for fold in folds} == {"stratified"}


def test_splits_test_three_tenths_of_each_label_and_are_independent():
    utterances = corpus(9, 20)
    label_of = {u.name: u.label for u in utterances}
    total = Counter(label_of.values())
    folds = make_folds(utterances, "split_70_30", 6, 0)
    assert len({fold.test for fold in folds}) == 6
    assert any(set(folds[0].test) & set(fold.test) for fold in folds[1:])
    for fold in folds:
        assert len(fold.test) == len(utterances) * 3 // 10
        tested = Counter(label_of[name] for name in fold.test)
        assert all(abs(tested[label] - total[label] * 0.3) < 1 for label in LABELS)
    assert len(make_folds(utterances, "split_70_30", 1, 0)) == 1


@pytest.mark.parametrize(
    ("protocol", "attribute"),
    [("speakers", "speaker"), ("leave_one_speaker_out", "speaker"), ("sentences", "sentence")],
)
def test_whole_speakers_and_sentences_are_in_one_split_only(protocol, attribute):
    utterances = corpus(6, 8)
    folds = make_folds(utterances, protocol, 3, 0)
    for fold in folds:
        splits = [attributes(utterances, names, attribute) for names in fold.splits.values()]
        assert all(splits)
        assert sum(map(len, splits)) == len(set.union(*splits))
        assert fold.dev_rule == f"{attribute}s"
    if protocol == "leave_one_speaker_out":
        tested = [attributes(utterances, fold.test, attribute) for fold in folds]
        assert tested == [{f"s{speaker:02}"} for speaker in range(6)]  # in order
    else:
        assert len(folds) == 3
        most = len({getattr(u, attribute) for u in utterances})
        assert len(make_folds(utterances, protocol, 99, 0)) == most


def test_fifty_speakers_in_ten_folds_are_five_in_each_test_and_dev():
    utterances = corpus(50, 3)
    for fold in make_folds(utterances, "speakers", 10, 0):
        assert len(attributes(utterances, fold.test, "speaker")) == 5
        assert len(attributes(utterances, fold.dev, "speaker")) == 4  # a tenth of 45
        assert len(attributes(utterances, fold.train + fold.dev, "speaker")) == 45


def with_women(utterances, women):
    """The first so many speakers are women, and the others men."""
    return [
        dataclasses.replace(u, gender="female" if int(u.speaker[1:]) < women else "male")
        for u in utterances
    ]


def test_women_and_men_are_dealt_alike():
    utterances = with_women(corpus(6, 4, skip=10**6), 3)
    for seed in range(20):
        for fold in make_folds(utterances, "speakers", 3, seed):
            assert attributes(utterances, fold.test, "gender") == {"female", "male"}


@pytest.mark.parametrize(
    ("speakers", "women", "how", "each"),
    [
        (10, 5, ("speakers", 5), 1),
        (10, 2, ("leave_one_speaker_out", 1), 1),
        (6, 3, ("speakers", 3), 1),
        (24, 12, ("speakers", 6), 2),
        (50, 25, ("speakers", 10), 4),
        (36, 18, ("speakers", 6), 3),
    ],
)
def test_women_and_men_choose_the_epoch_in_turn(speakers, women, how, each):
    utterances = with_women(corpus(speakers, 1, skip=10**6), women)
    for seed in range(20):
        devs = [fold.dev for fold in make_folds(utterances, *how, seed)]
        chosen = [[name for name in dev if int(name[1:3]) < women] for dev in devs]
        assert {len(dev) for dev in devs} == {each}
        assert [len(some) for some in chosen] == [
            each // 2 + (each % 2 and not index % 2) for index in range(len(devs))
        ]
    assert len({*itertools.chain(*devs)}) > 2 * each  # not the same ones in all folds


def of_unknown_speakers(utterances):
    return [dataclasses.replace(u, speaker="") for u in utterances]


def with_genders(*genders):
    """A corpus whose genders come in turn from speaker to speaker."""
    made = corpus(len(genders) * 2, 8)
    return [dataclasses.replace(u, gender=genders[int(u.speaker[1:]) % len(genders)]) for u in made]


@pytest.mark.parametrize("known", [True, False])
def test_folds_of_whole_genders_need_no_speakers(known):
    utterances = with_genders("female", "male", "child")
    utterances = utterances if known else of_unknown_speakers(utterances)
    folds = make_folds(utterances, "genders", 10, 0)
    assert len(folds) == 3
    for fold in folds:
        (tested,) = attributes(utterances, fold.test, "gender")
        assert tested not in attributes(utterances, fold.train + fold.dev, "gender")
        assert fold.dev_rule == ("speakers" if known else "sentences")
    assert {name for fold in folds for name in fold.test} == {u.name for u in utterances}


def test_unknown_speakers_are_not_one_speaker():
    utterances = of_unknown_speakers(corpus())
    for protocol in ("stratified", "sentences", "whole_corpus"):
        folds = make_folds(utterances, protocol, 4, 0)
        assert shared(folds, utterances)["speakers"] is None
        rule = "stratified" if protocol == "stratified" else "sentences"
        assert {fold.dev_rule for fold in folds} == {rule}
    some = corpus()[:20] + of_unknown_speakers(corpus()[20:])
    one = Fold((some[0].name,), (), (some[1].name, some[-1].name))
    other = Fold((some[0].name,), (), (some[-1].name,))
    assert [shared([fold], some)["speakers"] for fold in (one, other)] == [1, None]


def without_sentences(utterances):
    return [dataclasses.replace(u, sentence="") for u in utterances]


@pytest.mark.parametrize(
    ("protocol", "speakers", "sentences", "known", "rule"),
    [
        ("leave_one_speaker_out", 3, 8, True, "speakers"),
        ("leave_one_speaker_out", 2, 8, True, "sentences"),
        ("leave_one_speaker_out", 2, 8, False, "stratified"),
        ("speakers", 2, 8, True, "sentences"),
        ("sentences", 5, 2, True, "stratified"),
        ("whole_corpus", 3, 8, True, "speakers"),
        ("whole_corpus", 2, 8, True, "sentences"),
        ("whole_corpus", 2, 8, False, "stratified"),
    ],
)
def test_dev_of_uniform_utterances_is_taken_by_the_next_rule(
    protocol, speakers, sentences, known, rule
):
    utterances = corpus(speakers, sentences)
    utterances = utterances if known else without_sentences(utterances)
    folds = make_folds(utterances, protocol, 5, 0)
    assert {fold.dev_rule for fold in folds} == {rule}
    if rule == "sentences":
        for fold in folds:
            train, dev = (attributes(utterances, s, "sentence") for s in (fold.train, fold.dev))
            assert not train & dev


@pytest.mark.parametrize(
    ("field", "protocol", "count", "select_on"),
    [
        ("folds.protocol", "speaker", 5, "dev"),
        ("folds.protocol", "custom", 5, "dev"),
        ("select_on", "speakers", 5, "train"),
        ("select_on", "whole_corpus", 5, "test"),
        ("folds.count", "stratified", 1, "dev"),
        ("folds.count", "speakers", 0, "dev"),
        ("folds.count", "split_70_30", 0, "dev"),
        ("folds.count", "speakers", 10**9, "dev"),
    ],
)
def test_an_impossible_field_is_an_error_with_and_without_the_corpus(
    field, protocol, count, select_on
):
    config = {"file": "", "protocol": protocol, "count": count}
    for attempt in (
        lambda: make_folds(corpus(), protocol, count, 0, select_on),
        lambda: check(config, select_on),
    ):
        assert refused_field(attempt) == field
    check(config | {"file": "mine.json"}, select_on)  # a file has fields of its own


def test_the_nearest_protocol_is_named():
    with pytest.raises(ConfigError) as error:
        make_folds(corpus(), "leave_one_speaker", 5, 0)
    assert error.value.allowed.count("'leave_one_speaker_out'") == 2
    assert all(repr(protocol) in error.value.allowed for protocol in PROTOCOLS)


@pytest.mark.parametrize(
    ("utterances", "protocol", "count", "message"),
    [
        (corpus(1), "speakers", 5, "speakers"),
        (corpus(1), "leave_one_speaker_out", 5, "speakers"),
        (without_sentences(corpus()), "sentences", 5, "sentences"),
        (corpus(5, 1), "sentences", 5, "sentences"),
        (corpus()[1:] + without_sentences(corpus()[:1]), "sentences", 5, "every utterance"),
        (of_unknown_speakers(corpus()[:1]) + corpus()[1:], "speakers", 5, "every utterance"),
        (of_unknown_speakers(corpus()), "leave_one_speaker_out", 5, "every utterance"),
        (with_genders("female", "unknown"), "genders", 5, "every utterance"),
        (with_genders("female"), "genders", 5, "2 genders"),
        (corpus()[:9], "stratified", 10, "9"),
        (corpus()[:3], "split_70_30", 1, "4 utterances and has 3"),
        (corpus()[:2], "stratified", 2, "nothing is left to train"),
        ([], "whole_corpus", 2, "2 utterances and has 0"),
        (corpus()[:5] * 2, "stratified", 2, "two utterances"),
    ],
)
def test_a_corpus_that_cannot_be_divided_is_an_error(utterances, protocol, count, message):
    with pytest.raises(ValueError, match=message):
        make_folds(utterances, protocol, count, 0)


def counts(speakers, sentences):
    return {"speakers": speakers, "sentences": sentences, "recordings": 0}


def test_what_training_and_test_share_is_counted():
    utterances = corpus(2, 3, skip=10**6)
    one = Fold(("s00_00",), ("s00_01",), ("s00_02", "s01_00", "s01_01"))
    other = Fold(("s00_00",), (), ("s01_01", "s01_02"))
    assert shared([one], utterances) == counts(1, 2)
    assert shared([other], utterances) == counts(0, 0)
    assert shared([one, other, one], utterances) == counts(2, 4)
    assert shared([one], without_sentences(utterances)) == counts(1, None)


@pytest.mark.parametrize(
    ("protocol", "speakers", "sentences"),
    [("speakers", 0, 4 * 10), ("sentences", 4 * 6, 0), ("whole_corpus", 0, 0)],
)
def test_protocols_share_what_they_say(protocol, speakers, sentences):
    utterances = corpus(6, 10, skip=10**6)
    folds = make_folds(utterances, protocol, 4, 0)
    assert shared(folds, utterances) == counts(speakers, sentences)
