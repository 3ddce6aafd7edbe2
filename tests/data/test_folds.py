import dataclasses
import itertools
import json
import random
from collections import Counter

import pytest

from ds_jax.data.corpus import LABELS, Utterance
from ds_jax.data.folds import Fold, make_folds, read_folds, shared, write_folds

RULES = ("stratified", "split_70_30", "speakers", "leave_one_speaker_out", "sentences")


def corpus(speakers=6, sentences=12, labels=LABELS, skip=7):
    """Every speaker says every sentence with a label, but for each `skip`-th utterance."""
    made = []
    for speaker in range(speakers):
        for sentence in range(sentences):
            if (speaker * sentences + sentence) % skip == skip - 1:
                continue
            label = labels[(speaker + sentence * 3) % len(labels)]
            name = f"s{speaker:02}_{sentence:02}"
            made.append(Utterance(name, label, f"s{speaker:02}", "unknown", f"t{sentence}", "", 1))
    return made


def attribute_of(utterances, names, attribute):
    names = set(names)
    return {getattr(u, attribute) for u in utterances if u.name in names}


@pytest.mark.parametrize(
    ("protocol", "select_on"),
    [*itertools.product(RULES, ["dev", "test"]), ("whole_corpus", "dev")],
)
@pytest.mark.parametrize(("speakers", "sentences"), [(2, 10), (3, 12), (11, 13)])
def test_the_sides_of_a_fold_are_sorted_disjoint_and_cover_the_corpus(
    protocol, select_on, speakers, sentences
):
    utterances = corpus(speakers, sentences)
    for fold in make_folds(utterances, protocol, 4, 0, select_on):
        names = fold.train + fold.dev + fold.test
        assert sorted(names) == sorted(u.name for u in utterances)
        for side in (fold.train, fold.dev, fold.test):
            assert list(side) == sorted(side)
        assert fold.train
        assert bool(fold.dev) == bool(fold.dev_rule) == (select_on == "dev")
        assert bool(fold.test) == (protocol != "whole_corpus")


@pytest.mark.parametrize("protocol", ["stratified", "speakers", "leave_one_speaker_out"])
def test_every_utterance_is_tested_once(protocol):
    utterances = corpus()
    tested = [name for fold in make_folds(utterances, protocol, 5, 3) for name in fold.test]
    assert sorted(tested) == sorted(u.name for u in utterances)


@pytest.mark.parametrize("protocol", [*RULES, "whole_corpus"])
def test_the_order_of_the_utterances_does_not_matter(protocol):
    utterances = corpus()
    mixed = random.Random(1).sample(utterances, len(utterances))
    assert make_folds(utterances, protocol, 4, 5) == make_folds(mixed, protocol, 4, 5)


@pytest.mark.parametrize("protocol", ["stratified", "split_70_30", "speakers", "sentences"])
def test_another_seed_gives_other_folds(protocol):
    utterances = corpus()
    assert make_folds(utterances, protocol, 3, 0) != make_folds(utterances, protocol, 3, 1)


def test_the_choosing_side_does_not_change_the_test_side():
    utterances = corpus()
    for protocol in RULES:
        on_dev, on_test = (make_folds(utterances, protocol, 4, 0, on) for on in ("dev", "test"))
        assert [fold.test for fold in on_dev] == [fold.test for fold in on_test]
        for chosen, leaking in zip(on_dev, on_test, strict=True):
            assert tuple(sorted(chosen.train + chosen.dev)) == leaking.train


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
def test_stratified_folds_differ_by_at_most_one_in_size_and_in_each_label(count):
    utterances = corpus(7, 11)
    label_of = {u.name: u.label for u in utterances}
    folds = make_folds(utterances, "stratified", count, 0)
    assert len(folds) == count
    sizes = [len(fold.test) for fold in folds]
    assert max(sizes) - min(sizes) <= 1
    for label in LABELS:
        counts = [sum(label_of[name] == label for name in fold.test) for fold in folds]
        assert max(counts) - min(counts) <= 1


def test_a_stratified_development_set_is_a_tenth_of_the_training_side():
    utterances = corpus(10, 20)
    label_of = {u.name: u.label for u in utterances}
    for fold in make_folds(utterances, "stratified", 5, 0):
        training = Counter(label_of[name] for name in fold.train + fold.dev)
        chosen = Counter(label_of[name] for name in fold.dev)
        assert fold.dev_rule == "stratified"
        assert all(abs(chosen[label] - training[label] / 10) < 1 for label in LABELS)


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
def test_whole_speakers_and_sentences_are_on_one_side_only(protocol, attribute):
    utterances = corpus(6, 8)
    for fold in make_folds(utterances, protocol, 3, 0):
        sides = [
            attribute_of(utterances, names, attribute)
            for names in (fold.train, fold.dev, fold.test)
        ]
        assert all(sides)
        assert sum(map(len, sides)) == len(set.union(*sides))
        assert fold.dev_rule == f"{attribute}s"


def test_fifty_speakers_in_ten_folds_are_five_each_and_five_choose():
    utterances = corpus(50, 3)
    for fold in make_folds(utterances, "speakers", 10, 0):
        assert len(attribute_of(utterances, fold.test, "speaker")) == 5
        assert len(attribute_of(utterances, fold.dev, "speaker")) in (4, 5)  # a tenth of 45
        assert len(attribute_of(utterances, fold.train + fold.dev, "speaker")) == 45


def test_women_and_men_are_dealt_alike_and_choose_in_turn():
    utterances = [
        dataclasses.replace(u, gender="female" if u.speaker in ("s00", "s02", "s03") else "male")
        for u in corpus(6, 4, skip=10**6)
    ]
    choosing = set()
    for seed in range(20):
        for fold in make_folds(utterances, "speakers", 3, seed):
            for side in (fold.train, fold.test):
                assert attribute_of(utterances, side, "gender") == {"female", "male"}
            choosing |= attribute_of(utterances, fold.dev, "gender")
    assert choosing == {"female", "male"}


def test_there_are_no_more_folds_than_speakers_or_sentences():
    assert len(make_folds(corpus(6, 8), "speakers", 10, 0)) == 6
    assert len(make_folds(corpus(6, 8), "sentences", 10, 0)) == 8


def test_leave_one_speaker_out_has_a_fold_a_speaker_in_order():
    utterances = corpus(5, 4)
    folds = make_folds(utterances, "leave_one_speaker_out", 99, 0)
    assert [attribute_of(utterances, fold.test, "speaker") for fold in folds] == [
        {f"s{speaker:02}"} for speaker in range(5)
    ]


def without_sentences(utterances):
    return [Utterance(u.name, u.label, u.speaker, u.gender, "", u.style, 1) for u in utterances]


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
def test_a_uniform_training_side_falls_back_and_says_so(protocol, speakers, sentences, known, rule):
    utterances = corpus(speakers, sentences)
    utterances = utterances if known else without_sentences(utterances)
    folds = make_folds(utterances, protocol, 5, 0)
    assert {fold.dev_rule for fold in folds} == {rule}
    if rule == "sentences":
        for fold in folds:
            train, dev = (attribute_of(utterances, s, "sentence") for s in (fold.train, fold.dev))
            assert not train & dev


@pytest.mark.parametrize(
    ("utterances", "protocol", "count", "select_on", "message"),
    [
        (corpus(), "speaker", 5, "dev", "no protocol 'speaker': did you mean 'speakers'"),
        (corpus(), "leave_one_speaker", 5, "dev", "did you mean 'leave_one_speaker_out'"),
        (corpus(), "custom", 5, "dev", "custom"),
        (corpus(), "speakers", 5, "train", "select_on is 'train'"),
        (corpus(), "whole_corpus", 5, "test", "no test side"),
        (corpus(), "stratified", 1, "dev", "at least 2 folds, not 1"),
        (corpus(), "speakers", 0, "dev", "at least 2 folds, not 0"),
        (corpus(), "split_70_30", 0, "dev", "at least 1 split"),
        (corpus(1), "speakers", 5, "dev", "at least 2 speakers"),
        (corpus(1), "leave_one_speaker_out", 5, "dev", "at least 2 speakers"),
        (without_sentences(corpus()), "sentences", 5, "dev", "at least 2 sentences"),
        (corpus(5, 1), "sentences", 5, "dev", "at least 2 sentences"),
        (
            corpus()[1:] + without_sentences(corpus()[:1]),
            "sentences",
            5,
            "dev",
            "the sentence of every utterance",
        ),
        (corpus()[:9], "stratified", 10, "dev", "needs 10 utterances and has 9"),
        (corpus()[:3], "split_70_30", 1, "dev", "needs 4 utterances and has 3"),
        (corpus()[:2], "stratified", 2, "dev", "nothing is left to train"),
        ([], "whole_corpus", 2, "dev", "needs 2 utterances and has 0"),
        (corpus()[:5] * 2, "stratified", 2, "dev", "two utterances of the corpus are called"),
    ],
)
def test_what_cannot_be_divided_is_an_error(utterances, protocol, count, select_on, message):
    with pytest.raises(ValueError, match=message):
        make_folds(utterances, protocol, count, 0, select_on)


@pytest.mark.parametrize("select_on", ["dev", "test"])
@pytest.mark.parametrize("protocol", RULES)
def test_folds_survive_their_file(tmp_path, protocol, select_on):
    utterances = corpus()
    folds = make_folds(utterances, protocol, 4, 0, select_on)
    path = tmp_path / "folds.json"
    write_folds(path, "emodb", protocol, 0, select_on, folds)
    assert read_folds(path, utterances, select_on) == (protocol, folds)
    content = json.loads(path.read_text())
    assert {key: content[key] for key in ("corpus", "protocol", "seed", "select_on")} == {
        "corpus": "emodb",
        "protocol": protocol,
        "seed": 0,
        "select_on": select_on,
    }
    assert content["folds"][1]["test"] == list(folds[1].test)
    before = path.read_bytes()
    write_folds(path, "emodb", protocol, 0, select_on, folds)
    assert path.read_bytes() == before


def test_the_fold_of_a_whole_corpus_survives_its_file(tmp_path):
    utterances = corpus()
    folds = make_folds(utterances, "whole_corpus", 4, 0)
    write_folds(tmp_path / "folds.json", "emodb", "whole_corpus", 0, "dev", folds)
    assert read_folds(tmp_path / "folds.json", utterances) == ("whole_corpus", folds)


def test_a_file_of_ones_own_is_used_as_it_is(tmp_path):
    utterances = corpus()
    names = [u.name for u in utterances]
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"folds": [{"train": names[5:1:-1], "test": names[:2]}]}))
    assert read_folds(path, utterances, select_on="test") == (
        "custom",
        [Fold(tuple(names[2:6]), (), tuple(names[:2]))],
    )
    with pytest.raises(ValueError, match=r'mine.json, fold 0: "dev" .* select_on="test"'):
        read_folds(path, utterances)


GOOD = {"train": ["s00_00", "s00_01"], "dev": ["s00_02"], "test": ["s00_03"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a JSON file"),
        ("[]", "must hold an object of JSON"),
        ('{"folds": []}', "at least one fold"),
        ('{"folds": {}}', 'needs a list "folds"'),
        ({"protocol": "speker", "folds": [GOOD]}, "did you mean 'speakers'"),
        ({"protocol": ["speakers"], "folds": [GOOD]}, "there is no protocol"),
        ({"folds": [GOOD, 3]}, "fold 1: it must be an object"),
        ({"folds": [GOOD, GOOD | {"train": []}]}, 'fold 1: "train" is missing or empty'),
        ({"folds": [GOOD, GOOD | {"test": []}]}, 'fold 1: "test" is missing or empty'),
        ({"folds": [{"train": ["s00_00"]}]}, 'fold 0: "dev" is missing or empty'),
        ({"folds": [GOOD, GOOD | {"test": ["x"]}]}, "fold 1: \"test\" names 'x', which the"),
        ({"folds": [GOOD | {"dev": ["s00_00"]}]}, "fold 0: 's00_00' is in both train and dev"),
        ({"folds": [GOOD | {"test": ["s00_02"]}]}, "fold 0: 's00_02' is in both dev and test"),
        ({"folds": [GOOD | {"dev": ["s00_02"] * 2}]}, "fold 0: \"dev\" names 's00_02' twice"),
        ({"folds": [GOOD | {"dev": "s00_02"}]}, 'fold 0: "dev" must be a list'),
        ({"folds": [GOOD | {"dev": [2]}]}, 'fold 0: "dev" must be a list'),
    ],
)
def test_a_bad_file_is_an_error_that_says_where(tmp_path, text, message):
    path = tmp_path / "mine.json"
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    with pytest.raises(ValueError, match=message) as error:
        read_folds(path, corpus())
    assert str(path) in str(error.value)


def test_a_file_that_is_not_text_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "mine.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"mine\.json is not a JSON file"):
        read_folds(path, corpus())


def test_what_the_sides_share_is_counted():
    utterances = corpus(2, 3, skip=10**6)
    one = Fold(("s00_00",), ("s00_01",), ("s00_02", "s01_00", "s01_01"))
    other = Fold(("s00_00",), (), ("s01_01", "s01_02"))
    assert shared([one], utterances) == {"speakers": 1, "sentences": 2, "recordings": 0}
    assert shared([other], utterances) == {"speakers": 0, "sentences": 0, "recordings": 0}
    assert shared([one, other, one], utterances) == {"speakers": 2, "sentences": 4, "recordings": 0}
    assert shared([one], without_sentences(utterances)) == {
        "speakers": 1,
        "sentences": 0,
        "recordings": 0,
    }


@pytest.mark.parametrize(
    ("protocol", "speakers", "sentences"),
    [("speakers", 0, 4 * 10), ("sentences", 4 * 6, 0), ("whole_corpus", 0, 0)],
)
def test_protocols_share_what_they_say(protocol, speakers, sentences):
    utterances = corpus(6, 10, skip=10**6)
    folds = make_folds(utterances, protocol, 4, 0)
    assert shared(folds, utterances) == {
        "speakers": speakers,
        "sentences": sentences,
        "recordings": 0,
    }
