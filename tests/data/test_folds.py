"""Folds partition a corpus by their protocol, the same on every machine, and survive their file."""

import dataclasses
import itertools
import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ds_jax.data.corpus import Utterance
from ds_jax.data.fold_files import given_folds, read_folds, write_folds
from ds_jax.data.folds import PROTOCOLS, Fold, check, make_folds, shared
from ds_jax.data.labels import LABELS
from ds_jax.runtime.errors import ConfigError

RULES = ("stratified", "split_70_30", "speakers", "leave_one_speaker_out", "sentences")


def corpus(speakers=6, sentences=12, labels=LABELS, skip=7):
    """Every speaker says every sentence with a label, except each `skip`-th utterance."""
    utterances = []
    for speaker, sentence in itertools.product(range(speakers), range(sentences)):
        if (speaker * sentences + sentence) % skip < skip - 1:
            name = f"s{speaker:02}_{sentence:02}"
            label = labels[(speaker + sentence * 3) % len(labels)]
            spoken = f"s{speaker:02}", "unknown", f"t{sentence}"
            utterances.append(Utterance(name, label, *spoken, "", 1))
    return utterances


def attributes(utterances, names, attribute):
    return {getattr(u, attribute) for u in utterances if u.name in set(names)}


@settings(deadline=None, max_examples=60)
@given(
    how=st.sampled_from([*itertools.product(RULES, ["dev", "test"]), ("whole_corpus", "dev")]),
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
    on_dev, on_test = (make_folds(corpus(), protocol, 4, 0, on) for on in ("dev", "test"))
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
        with pytest.raises(ConfigError) as error:
            attempt()
        assert error.value.field == field
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


# Files.


@pytest.mark.parametrize(
    ("protocol", "select_on"),
    [
        *itertools.product(RULES, ["dev", "test", "none"]),
        ("whole_corpus", "dev"),
        ("whole_corpus", "none"),
    ],
)
def test_folds_survive_their_file(tmp_path, protocol, select_on):
    utterances, path = corpus(), tmp_path / "folds.json"
    folds = make_folds(utterances, protocol, 4, 0, select_on)
    write_folds(path, "emodb", protocol, 0, select_on, folds)
    assert read_folds(path, utterances, select_on) == (protocol, folds)
    content = json.loads(path.read_text())
    fields = {"corpus": "emodb", "protocol": protocol, "seed": 0, "select_on": select_on}
    assert fields.items() <= content.items()
    assert content["folds"][-1]["test"] == list(folds[-1].test)
    before = path.read_bytes()
    write_folds(path, "emodb", protocol, 0, select_on, folds)
    assert path.read_bytes() == before


def test_a_user_s_file_is_used_unchanged(tmp_path):
    utterances = corpus()
    names = [u.name for u in utterances]
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"folds": [{"train": names[5:1:-1], "test": names[:2]}]}))
    expected = Fold(tuple(names[2:6]), (), tuple(names[:2]))
    assert read_folds(path, utterances, select_on="test") == ("custom", [expected])


@pytest.mark.parametrize("suffix", ["json", "csv"])
def test_dev_is_taken_from_train_where_a_file_has_none(tmp_path, suffix):
    utterances = corpus()
    tested = [u.name for u in utterances if u.speaker == "s00"]
    trained = [u.name for u in utterances if u.speaker != "s00"]
    path = tmp_path / f"mine.{suffix}"
    if suffix == "json":
        path.write_text(json.dumps({"folds": [{"train": trained, "test": tested}] * 2}))
    else:
        rows = [f"{name};Training" for name in trained] + [f"{name};TEST" for name in tested]
        path.write_text("Name;Split\n" + "\n".join(rows))
    protocol, folds = read_folds(path, utterances)
    assert (protocol, len(folds)) == ("custom", 2 if suffix == "json" else 1)
    for fold in folds:
        assert fold.test == tuple(tested)
        assert sorted(fold.train + fold.dev) == trained
        assert fold.dev_rule == "speakers"
        splits = (attributes(utterances, names, "speaker") for names in (fold.train, fold.dev))
        assert not set.intersection(*splits)
    assert read_folds(path, utterances)[1] == folds
    others = {read_folds(path, utterances, seed=seed)[1][0].dev for seed in range(9)}
    assert len(others) > 1
    assert read_folds(path, utterances, "test")[1][0].train == tuple(trained)


@pytest.mark.parametrize("suffix", ["json", "csv"])
def test_a_file_may_name_what_the_run_leaves_out(tmp_path, capsys, suffix):
    utterances, path = corpus(), tmp_path / f"mine.{suffix}"
    kept = [u.name for u in utterances]
    left_out = {"x1": "calm", "x2": "calm", "x3": "unusable"}
    if suffix == "json":
        content = {"train": [*kept[5:], "x1"], "test": [*kept[:5], "x2", "x3"]}
        path.write_text(json.dumps({"folds": [content]}))
    else:
        rows = [f"{name},train" for name in (*kept[5:], "x1")]
        rows += [f"{name},test" for name in (*kept[:5], "x2", "x3")]
        path.write_text("utterance,fold\n" + "\n".join(rows))
    (fold,) = read_folds(path, utterances, "none", left_out=left_out)[1]
    assert (fold.train, fold.test) == (tuple(kept[5:]), tuple(kept[:5]))
    (line,) = capsys.readouterr().out.splitlines()
    assert "3 utterances" in line
    assert "calm (2), unusable (1)" in line
    with pytest.raises(ValueError, match=r"\"(train|test)\" names 'x[123]'"):
        read_folds(path, utterances, "none")
    with pytest.raises(ValueError, match='fold 0: "test" is left out of the run'):
        read_folds(path, utterances[5:], "none", left_out=left_out | dict.fromkeys(kept[:5], "a"))


def test_equal_recordings_are_in_train_or_in_dev(tmp_path):
    names = [u.name for u in corpus()]
    content = {"folds": [{"train": names[1:], "test": names[:1]}]}
    (tmp_path / "mine.json").write_text(json.dumps(content))
    pairs = [
        dataclasses.replace(u, digest=f"{u.sentence} {u.name == names[0]}") for u in corpus()
    ]  # of all speakers
    (fold,) = read_folds(tmp_path / "mine.json", pairs)[1]
    digests = ({u.digest for u in pairs if u.name in s} for s in (fold.train, fold.dev))
    assert not set.intersection(*digests)
    alike = [dataclasses.replace(u, digest=str(u.name == names[0])) for u in corpus()]
    with pytest.raises(ValueError, match='fold 0: "dev" is missing'):
        read_folds(tmp_path / "mine.json", alike)


def with_folds(utterances, given):
    return [dataclasses.replace(u, fold=given[u.name]) for u in utterances]


TABLES = {
    "folds as numbers": {0: "10", 1: "2", 2: "10", 3: "1"},
    "folds as names": {0: "b", 1: "a", 2: "b", 3: "a"},
    "folds as a spreadsheet has them": {0: "fold 10", 1: "Fold_2", 2: "fold 10", 3: "fold 02"},
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_corpus_may_give_the_fold_that_tests_an_utterance(kind):
    utterances = corpus()
    given = {u.name: TABLES[kind][int(u.speaker[1:]) % 4] for u in utterances}
    folds = given_folds(with_folds(utterances, given))
    values = {
        "folds as numbers": [["1"], ["2"], ["10"]],
        "folds as names": [["a"], ["b"]],
        "folds as a spreadsheet has them": [["Fold_2", "fold 02"], ["fold 10"]],
    }[kind]
    assert len(folds) == len(values)
    for fold, value in zip(folds, values, strict=True):
        assert fold.test == tuple(sorted(n for n in given if given[n] in value))
        assert sorted(fold.train + fold.dev + fold.test) == sorted(given)
        assert fold.dev_rule == "speakers"


def test_a_corpus_may_give_the_splits():
    utterances = corpus()
    words = {"s00": "test", "s01": "Validation"}
    given = {u.name: words.get(u.speaker, "train") for u in utterances}
    (fold,) = given_folds(with_folds(utterances, given))
    assert [attributes(utterances, names, "speaker") for names in fold.splits.values()] == [
        {"s02", "s03", "s04", "s05"},
        {"s01"},
        {"s00"},
    ]
    assert fold.dev_rule == ""
    for values, reason in (
        ({"train"}, '"test" is missing'),
        ({"train", "2"}, "some utterances have a split, and others '2'"),
        ({"7"}, "all utterances are of the fold '7'"),
    ):
        cycle = itertools.cycle(sorted(values))
        with pytest.raises(ValueError, match=reason):
            given_folds(with_folds(utterances, {name: next(cycle) for name in given}))


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("utterance,fold\n", "has no rows"),
        ("utterance\ns00_00\n", "line 1: .*'fold'"),
        ("utterance,fold\ns00_00,1\ns00_01,\n", "line 3"),
        ("utterance,fold\ns00_00,1\ns00_00,2\n", "line 3: 's00_00'"),
        ("utterance,fold\ns00_00,1\nx,2\n", "fold 0: .*'x'"),
        ("utterance,fold\ns00_00,1\ns00_01,train\n", "have a split"),
    ],
)
def test_a_bad_table_is_an_error_that_names_the_place(tmp_path, content, place):
    (tmp_path / "mine.csv").write_text(content)
    with pytest.raises(ValueError, match=rf"mine\.csv.*{place}"):
        read_folds(tmp_path / "mine.csv", corpus())


@pytest.mark.parametrize("protocol", [*RULES, "whole_corpus"])
def test_without_a_choice_all_that_is_not_tested_trains(protocol):
    utterances = corpus()
    folds = make_folds(utterances, protocol, 4, 0, "none")
    if protocol != "whole_corpus":
        chosen = make_folds(utterances, protocol, 4, 0)
        assert [fold.test for fold in folds] == [fold.test for fold in chosen]
    for fold in folds:
        assert fold.dev == ()
        assert fold.dev_rule == ""
        assert sorted([*fold.train, *fold.test]) == sorted(u.name for u in utterances)


def test_development_utterances_that_choose_nothing_are_refused(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"folds": [GOOD]}))
    with pytest.raises(ValueError, match=r'mine\.json, fold 0: "dev"'):
        read_folds(path, corpus(), select_on="none")


def test_the_recordings_of_the_folds_must_be_those_of_the_corpus(tmp_path):
    utterances = [dataclasses.replace(u, digest=u.name) for u in corpus()]
    folds = make_folds(utterances, "speakers", 3, 0)
    write_folds(tmp_path / "folds.json", "emodb", "speakers", 0, "dev", folds, utterances)
    changed = [dataclasses.replace(utterances[0], digest="another"), *utterances[1:]]
    assert read_folds(tmp_path / "folds.json", utterances, verify=True)[1] == folds
    assert read_folds(tmp_path / "folds.json", changed)[1] == folds
    with pytest.raises(ValueError, match=utterances[0].name):
        read_folds(tmp_path / "folds.json", changed, verify=True)


GOOD = {"train": ["s00_00", "s00_01"], "dev": ["s00_02"], "test": ["s00_03"]}


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("{", ""),
        (b"\xff\xfe\x00", ""),
        ("[]", ""),
        ({"folds": []}, '"folds"'),
        ({"folds": {}}, '"folds"'),
        ({"protocol": "speker", "folds": [GOOD]}, "protocol='speker' .*nearest is 'speakers'"),
        ({"protocol": ["speakers"], "folds": [GOOD]}, "protocol="),
        ({"protocol": "speakers", "folds": [GOOD]}, "1 speakers"),
        ({"folds": [GOOD, 3]}, "fold 1: "),
        ({"folds": [GOOD, GOOD | {"train": []}]}, 'fold 1: "train"'),
        ({"folds": [GOOD, GOOD | {"test": []}]}, 'fold 1: "test"'),
        ({"folds": [{"train": ["s00_00"]}]}, 'fold 0: "test"'),
        ({"folds": [{"train": ["s00_00"], "test": ["s00_01"]}]}, 'fold 0: "dev"'),
        ({"folds": [GOOD, GOOD | {"test": ["x"]}]}, "fold 1: \"test\" names 'x'"),
        ({"folds": [GOOD | {"test": list("abcdefg")}]}, "\"test\" names 'a', .*'e' and 2 more"),
        ({"folds": [GOOD | {"dev": ["s00_00"]}]}, "fold 0: 's00_00' .*train and dev"),
        ({"folds": [GOOD | {"test": ["s00_02"]}]}, "fold 0: 's00_02' .*dev and test"),
        ({"folds": [GOOD | {"dev": ["s00_02"] * 2}]}, "fold 0: \"dev\" names 's00_02' twice"),
        ({"folds": [GOOD | {"dev": "s00_02"}]}, 'fold 0: "dev"'),
        ({"folds": [GOOD | {"dev": [2]}]}, 'fold 0: "dev"'),
    ],
)
def test_a_bad_file_is_an_error_that_names_the_place(tmp_path, content, place):
    path = tmp_path / "mine.json"
    content = json.dumps(content) if isinstance(content, dict) else content
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=rf"mine\.json.*{place}"):
        read_folds(path, corpus())
    with pytest.raises(FileNotFoundError, match="none"):
        read_folds(tmp_path / "none.json", corpus())


# What training and test share.


def counts(speakers, sentences):
    return {"speakers": speakers, "sentences": sentences, "recordings": 0}


def test_what_training_and_test_share_is_counted():
    utterances = corpus(2, 3, skip=10**6)
    one = Fold(("s00_00",), ("s00_01",), ("s00_02", "s01_00", "s01_01"))
    other = Fold(("s00_00",), (), ("s01_01", "s01_02"))
    assert shared([one], utterances) == counts(1, 2)
    assert shared([other], utterances) == counts(0, 0)
    assert shared([one, other, one], utterances) == counts(2, 4)
    assert shared([one], without_sentences(utterances)) == counts(1, 0)


@pytest.mark.parametrize(
    ("protocol", "speakers", "sentences"),
    [("speakers", 0, 4 * 10), ("sentences", 4 * 6, 0), ("whole_corpus", 0, 0)],
)
def test_protocols_share_what_they_say(protocol, speakers, sentences):
    utterances = corpus(6, 10, skip=10**6)
    folds = make_folds(utterances, protocol, 4, 0)
    assert shared(folds, utterances) == counts(speakers, sentences)
