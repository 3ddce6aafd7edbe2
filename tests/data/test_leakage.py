"""Test recordings reach no fit and no choice, neither by their name nor by another."""

import dataclasses
import json
import math

import numpy as np
import pytest
import soundfile
import tiny
from dealt import RULES
from recordings import SMALL, sound

from configs import base
from datasets.prepare import prepare
from ds_jax.commands import evaluate, train
from ds_jax.data import fold_files, folds, leakage
from ds_jax.data.corpus import Corpus, load
from ds_jax.data.leakage import LeakError
from ds_jax.features import audio
from ds_jax.systems import classifiers
from ds_jax.training.fold import FoldState


def utterances(groups=()):
    """Every speaker says every sentence; the recordings of a group are the same."""
    first = {name: group[0] for group in groups for name in group}
    spoken = tiny.utterances(speakers=6, sentences=7)
    return [dataclasses.replace(u, digest=first.get(u.name, u.name)) for u in spoken]


# The same recording by one speaker, as in RAVDESS; by two; of two sentences; and three times.
GROUPS = [("s0t0", "s0t1"), ("s1t2", "s2t2"), ("s3t3", "s4t4"), ("s5t0", "s4t0", "s3t0")]


@pytest.mark.parametrize("select_on", ["dev", "test"])
@pytest.mark.parametrize("protocol", RULES)
def test_an_equal_recording_is_in_one_split_and_all_are_tested_as_before(protocol, select_on):
    plain, doubled = utterances(), utterances(GROUPS)
    before, after = (folds.make_folds(u, protocol, 5, 0, select_on) for u in (plain, doubled))
    same = {name: group for group in GROUPS for name in group}
    assert [fold.test for fold in after] == [fold.test for fold in before]
    for one, other in zip(before, after, strict=True):
        leakage.check_splits(other.splits, doubled)
        held_out = {*one.test, *one.dev}
        lost = {*one.train, *one.dev} - {*other.train, *other.dev}
        expected = {name for name in one.train if held_out.intersection(same.get(name, ()))}
        expected |= {name for name in one.dev if {*one.test}.intersection(same.get(name, ()))}
        assert lost == expected
    assert folds.shared(after, doubled)["recordings"] == 0
    assert folds.shared(before, doubled)["recordings"] > 0 or protocol.endswith("out")


def test_a_pair_of_one_speaker_costs_folds_of_speakers_nothing():
    pair = utterances([("s0t0", "s0t1")])
    expected = folds.make_folds(utterances(), "leave_one_speaker_out", 1, 0)
    assert folds.make_folds(pair, "leave_one_speaker_out", 1, 0) == expected


def test_a_corpus_that_holds_everything_twice_keeps_its_folds_and_leaks_nothing():
    once = utterances()
    twice = once + [dataclasses.replace(u, name=f"{u.name}_copy") for u in once]
    for fold in folds.make_folds(twice, "stratified", 5, 0):
        leakage.check_splits(fold.splits, twice)
        assert len(fold.test) in (16, 17)
        assert len(fold.train) > len(once) / 2


# Parts of one file, by their starts and ends in seconds: nested, in a chain, and apart.
PARTS = [(0, 10), (1, 2), (3, 4), (9, 12), (12, 13), (13, 14), (13.5, 13.6), (20, math.inf)]


def parts():
    made = utterances()[: 4 * len(PARTS)]
    known = [(f"{number % 4}.wav", *PARTS[number // 4]) for number in range(len(made))]
    return [
        dataclasses.replace(u, file=file, start=start, end=end)
        for u, (file, start, end) in zip(made, known, strict=True)
    ]


def test_parts_that_overlap_share_sound():
    made = parts()
    for one in made:
        expected = {
            other.name
            for other in made
            if other.file == one.file and other.start < one.end and one.start < other.end
        }
        assert leakage.same_recordings([one.name], made) == expected
    first, nested, chained = made[0].name, made[8].name, made[12].name
    assert leakage.same_recordings([first], made) >= {first, nested, chained}
    assert leakage.same_recordings([nested, made[16].name], made) == {first, nested, made[16].name}
    unknown = [dataclasses.replace(u, file="") for u in made]
    assert leakage.same_recordings([first], unknown) == {first}


@pytest.mark.parametrize("protocol", ["stratified", "split_70_30", "speakers"])
def test_parts_that_overlap_are_in_one_split(protocol):
    made = parts()
    for fold in folds.make_folds(made, protocol, 4, 0):
        leakage.check_splits(fold.splits, made)
        placed = {name for names in fold.splits.values() for name in names}
        assert len(placed) < len(made)
    given = [dataclasses.replace(u, fold=str(number % 3)) for number, u in enumerate(made)]
    with pytest.raises(LeakError, match="parts of one that overlap"):
        fold_files.given_folds(given, "none")


def test_recordings_with_an_unknown_digest_are_equal_to_no_other():
    unknown = [dataclasses.replace(u, digest="") for u in utterances()]
    expected = folds.make_folds(utterances(), "stratified", 5, 0)
    assert folds.make_folds(unknown, "stratified", 5, 0) == expected
    assert leakage.same_recordings(["s0t0"], unknown) == {"s0t0"}


def test_equal_recordings_have_equal_samples_whatever_their_format(tmp_path):
    one = sound(tmp_path / "emodb/03a01Fa.wav", 0)
    samples, rate = audio.read(one, 0)
    soundfile.write(tmp_path / "emodb/08a01Fa.flac", samples, rate, subtype="PCM_16")
    with soundfile.SoundFile(tmp_path / "emodb/09a01Fa.wav", "w", rate, 1, "PCM_16") as file:
        file.title = "another header"
        file.write(samples)
    changed = samples.copy()
    changed[100] += 2**-15
    soundfile.write(tmp_path / "emodb/10a01Fa.wav", changed, rate, subtype="PCM_16")
    corpus = load(prepare("emodb", tmp_path, tmp_path / "data", SMALL), "emodb")
    digests = [utterance.digest for utterance in corpus.utterances]
    assert len(digests[0]) == 64
    assert digests[0] == digests[1] == digests[2] != digests[3]


@pytest.mark.parametrize(
    ("train_names", "dev", "test", "pair"),
    [
        (["s0t0"], ["s5t1"], ["s0t1"], "'s0t0' in train and 's0t1' in test"),
        (["s5t1"], ["s3t0"], ["s4t0"], "'s3t0' in dev and 's4t0' in test"),
        (["s5t1", "s1t2"], ["s2t2"], ["s4t0"], "'s1t2' in train and 's2t2' in dev"),
    ],
)
def test_a_file_with_an_equal_recording_in_two_splits_is_refused(
    tmp_path, train_names, dev, test, pair
):
    good = {"train": ["s0t0", "s0t1"], "dev": ["s1t2"], "test": ["s3t3"]}
    bad = {"train": train_names, "dev": dev, "test": test}
    path = tmp_path / "folds.json"
    path.write_text(json.dumps({"folds": [good, bad]}))
    with pytest.raises(LeakError, match=f"fold 1: {pair}"):
        fold_files.read_folds(path, utterances(GROUPS))


@pytest.mark.parametrize(
    ("allowed", "row", "passes"),
    [
        (("train",), "s0t0", True),
        (("train",), "s0t1", False),
        (("train",), "s0t2", False),
        (("train", "dev"), "s0t1", True),
        (("train", "dev"), "s0t2", False),
        (("dev",), "s0t0", False),
        (("test",), "s0t2", True),  # the paper's way of choosing
        (("train",), "s0t3", False),  # in no split
        (("train",), "s5t6", False),  # in train, and the same recording as one in test
    ],
)
def test_rows_belong_to_the_allowed_splits(allowed, row, passes):
    known = utterances([("s5t5", "s5t6")])
    corpus = Corpus("c", tuple(known), np.zeros((84, 2)), np.arange(42).repeat(2).astype(np.int32))
    splits = {"train": ["s0t0", "s5t6"], "dev": ["s0t1"], "test": ["s0t2", "s5t5"]}
    rows = corpus.rows_of([row])[1:]
    if passes:
        leakage.check_rows("a fit", rows, corpus, splits, allowed)
        return
    with pytest.raises(LeakError, match=f"a fit was given '{row}'"):
        leakage.check_rows("a fit", rows, corpus, splits, allowed)


def with_digests(corpus: Corpus, *groups: str) -> Corpus:
    """The corpus with a digest for each utterance; those of a group have the same one."""
    first = {name: group.split()[0] for group in groups for name in group.split()}
    known = [
        dataclasses.replace(u, digest=f"sha256 of {first.get(u.name, u.name)}")
        for u in corpus.utterances
    ]
    return dataclasses.replace(corpus, utterances=tuple(known))


def make(system, *groups):
    """A config of a network or a classifier in three folds, and its corpus of 21 utterances."""
    config, corpus = tiny.make("ds_am" if system == "network" else "mlr")
    config.folds.protocol = "stratified"
    if system == "network":
        config.model.freeze, config.train.epochs = "block4", 1
        return config, with_digests(tiny.corpus(21), *groups)
    corpus = dataclasses.replace(tiny.corpus(21), inputs=corpus.inputs[:21])
    return config, with_digests(corpus, *groups)


pytestmark = pytest.mark.usefixtures("tiny_weights")


def first_fold(workdir):
    return json.loads((workdir / "folds.json").read_text())["folds"][0]


def test_a_run_leaves_equal_recordings_out_and_reports_it(tmp_path, capsys):
    config, corpus = make("classifier", "u00 u07")  # of one label, so in two folds of three
    assert train.run(config, corpus, tmp_path)
    assert "u07" in next(
        line for line in capsys.readouterr().out.splitlines() if "excluded from training" in line
    )
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["n"], report["shared"]["recordings"]) == (21, 0)
    assert report["equal_left_out"] == 2
    for fold in json.loads((tmp_path / "folds.json").read_text())["folds"]:
        places = {split for split in folds.SPLITS for name in fold[split] if name in ("u00", "u07")}
        assert len(places) == 1


def test_folds_that_were_tampered_with_end_the_run(tmp_path):
    config, corpus = make("classifier", "u00 u07")
    train.run(config, corpus, tmp_path, [])
    path = tmp_path / "folds.json"
    written = path.read_text()
    for change in (
        lambda fold: fold["train"].append(fold["test"][0]),  # the same name
        lambda fold: fold["train"].append("u07" if "u00" in fold["test"] else "u00"),
        lambda fold: fold["dev"].append(fold["test"][0]),
    ):

        def change_one(content, change=change):
            change(next(f for f in content["folds"] if len({"u00", "u07"} & {*f["test"]}) == 1))

        path.write_text(written)
        tiny.tamper(path, change_one)
        with pytest.raises(ValueError, match=r"folds\.json, fold \d: "):
            train.run(config, corpus, tmp_path)
        assert not list(tmp_path.glob("fold_*/predictions.csv"))


def feed(monkeypatch, target, name, stray):
    """Makes a method add a row to those that it returns."""
    method = getattr(target, name)
    monkeypatch.setattr(
        target, name, lambda *args, **options: np.append(method(*args, **options), np.int32(stray))
    )


@pytest.mark.parametrize(
    ("system", "target", "name"),
    [
        ("network", FoldState, "order"),
        ("network", Corpus, "rows_of"),
        ("network", Corpus, "training_rows"),
        ("classifier", Corpus, "training_rows"),
    ],
)
def test_a_test_row_in_training_ends_the_run(system, target, name, tmp_path, monkeypatch):
    config, corpus = make(system)
    train.run(config, corpus, tmp_path, [])
    stray = first_fold(tmp_path)["test"][0]
    feed(monkeypatch, target, name, int(stray[1:]))
    with pytest.raises(LeakError, match=f"fold 0: .* was given '{stray}'"):
        train.run(config, corpus, tmp_path)
    assert not list(tmp_path.glob("fold_*/predictions.csv"))
    assert not list(tmp_path.glob("fold_*/checkpoints/*"))


def test_a_test_row_in_the_choice_of_the_epoch_ends_the_run(tmp_path, monkeypatch):
    config, corpus = make("network")
    train.run(config, corpus, tmp_path, [])
    fold, rows_of = first_fold(tmp_path), Corpus.rows_of
    stray = fold["test"][0]

    def with_a_stray(self, names, **options):
        strays = [int(stray[1:])] * ([*names] == fold["dev"])
        return np.append(rows_of(self, names, **options), np.asarray(strays, np.int32))

    monkeypatch.setattr(Corpus, "rows_of", with_a_stray)
    with pytest.raises(LeakError, match=f"fold 0: .* was given '{stray}'"):
        train.run(config, corpus, tmp_path)


def test_inner_folds_fit_nothing_that_they_hold_out(tmp_path, monkeypatch):
    calls = []

    def fit(system, model, inputs, labels, inner, seed, weights):
        calls.append((inputs, inner))
        raise ValueError("enough")

    monkeypatch.setattr(classifiers, "fit", fit)
    experiment = base.get_config()
    base.use_svc(experiment, "mfcc", "linear")
    experiment.corpus, experiment.folds.count = "tiny", 3
    corpus = with_digests(tiny.corpus(21), "u00 u07 u14", "u01 u09")
    vectors = np.arange(21 * 60, dtype=np.float32).reshape(21, 60)
    corpus = dataclasses.replace(corpus, inputs=vectors)
    with pytest.raises(ValueError, match="enough"):
        train.run(experiment, corpus, tmp_path)
    ((inputs, inner),) = calls
    digests = [corpus.utterances[int(row[0]) // 60].digest for row in inputs]
    held_out = [digests[row] for _, rows in inner for row in rows]
    assert sorted(held_out) == sorted(digests)  # each is held out once
    assert len(set(digests)) < len(digests)  # some training recordings are equal
    for fitted, rows in inner:
        assert not {digests[row] for row in fitted} & {digests[row] for row in rows}


def test_recordings_known_from_training_are_left_out_of_another_corpus(tmp_path, capsys):
    config, trained = make("classifier")
    train.run(config, trained, tmp_path)
    renamed = [dataclasses.replace(u, name=f"other_{u.name}") for u in trained.utterances]
    others = [dataclasses.replace(u, digest=f"{u.digest}, louder") for u in renamed[3:]]
    other = dataclasses.replace(trained, name="other", utterances=(*renamed[:3], *others))
    report = evaluate.run(tmp_path, other)
    assert (report.n, report.equal_left_out) == (18, 3)
    assert report.shared["recordings"] == 0
    assert "3 recordings of other" in capsys.readouterr().out
