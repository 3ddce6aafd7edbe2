"""Folds survive their file, and are read from what users write."""

import dataclasses
import itertools
import json
from pathlib import Path

import pytest
from dealt import RULES, attributes, corpus

from ds_jax.data.fold_files import given_folds, read_entries, read_folds, write_folds
from ds_jax.data.folds import Fold, make_folds


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


def test_a_table_of_speakers_gives_each_of_them_a_fold(tmp_path, capsys):
    utterances = corpus()
    tested = {"s00": "1", "s01": "1", "s02": "2", "s03": "2", "s04": "3", "s05": "3"}
    tested["absent"] = "1"
    path = tmp_path / "mine.csv"
    path.write_text("Speaker ID;fold\n" + "".join(f"{s};{fold}\n" for s, fold in tested.items()))
    protocol, folds = read_folds(path, utterances)
    assert protocol == "custom"
    for number, fold in zip("123", folds, strict=True):
        assert attributes(utterances, fold.test, "speaker") == {
            speaker for speaker in tested if tested[speaker] == number
        } - {"absent"}
        assert sorted(fold.train + fold.dev + fold.test) == sorted(u.name for u in utterances)
    assert "names absent" in capsys.readouterr().out


def test_a_table_of_utterances_may_say_more_of_speakers(tmp_path):
    rows = [f"{u.name},{int(u.speaker[1:]) % 2},{u.speaker},x" for u in corpus()]
    path = tmp_path / "mine.csv"
    path.write_text("\n".join(["utterance,fold,speaker_id,actors", *rows]))
    assert len(read_folds(path, corpus())[1]) == 2


def test_the_folds_of_emobox_have_four_actors_each():
    path = Path(__file__).parents[2] / "datasets" / "ravdess" / "emobox_folds.csv"
    (utterance, *_) = corpus()
    actors = [f"{number:02}" for number in range(1, 25)]
    actors = [dataclasses.replace(utterance, name=name, speaker=name) for name in actors]
    _, entries = read_entries(path, actors)
    assert [len(entry["test"]) for entry in entries] == [4] * 6
    assert sorted(name for entry in entries for name in entry["test"]) == [u.name for u in actors]


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("speaker,fold\ns00,1\ns01,2\n", "'s02', 's03', 's04'"),
        ("sentence,fold\na,1\nb,2\n", "line 1: .*'utterance' or 'speaker'"),
        ("speaker,fold\ns00,1\ns01,\n", "line 3: .*speaker"),
        ("utterance,fold\n", "has no rows"),
        ("utterance\ns00_00\n", "line 1: .*'fold'"),
        ("utterance,fold\ns00_00,1\ns00_01,\n", "line 3"),
        ("utterance,fold\ns00_00,1\ns00_00,2\n", "line 3: 's00_00'"),
        ("utterance,fold\ns00_00,1\nx,2\n", "fold 0: .*'x'"),
        ("utterance,fold\ns00_00,1\ns00_01,train\n", "have a split"),
        ("utterance,train,dev,test\ns00_00,1,0,0\ns00_01,0,1,0\n", "line 1: .* train, dev, test"),
    ],
)
def test_a_bad_table_is_an_error_that_names_the_place(tmp_path, content, place):
    (tmp_path / "mine.csv").write_text(content)
    with pytest.raises(ValueError, match=rf"mine\.csv.*{place}"):
        read_folds(tmp_path / "mine.csv", corpus())


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
