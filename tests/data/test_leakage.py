"""What is tested reaches no fit and no choice: neither under its own name nor under another."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
import soundfile
import tiny
from recordings import SMALL, sound

from configs import base
from datasets.prepare import prepare
from ds_jax.commands import evaluate
from ds_jax.commands import train as cross_validation
from ds_jax.data import folds, leakage
from ds_jax.data.corpus import LABELS, Corpus, Utterance, load
from ds_jax.data.leakage import LeakError
from ds_jax.features import audio
from ds_jax.models import pretrained
from ds_jax.systems import classifiers
from ds_jax.training.fold import FoldState

PROTOCOLS = ("stratified", "split_70_30", "speakers", "leave_one_speaker_out", "sentences")


@pytest.fixture(autouse=True)
def given_weights(narrow, monkeypatch):
    monkeypatch.setattr(pretrained, "load", lambda backbone, path, full: tiny.pretrained())


def with_digests(corpus: Corpus, *groups: str) -> Corpus:
    """The corpus with a digest for each utterance; those of a group have the same one."""
    first = {name: group.split()[0] for group in groups for name in group.split()}
    known = [
        dataclasses.replace(u, digest=f"sha256 of {first.get(u.name, u.name)}")
        for u in corpus.utterances
    ]
    return dataclasses.replace(corpus, utterances=tuple(known))


def utterances(groups=(), speakers=6, sentences=7):
    """Every speaker says every sentence; recordings of a group are the same."""
    made = [
        Utterance(
            f"s{speaker}t{sentence}",
            LABELS[(speaker + sentence) % 7],
            f"s{speaker}",
            "unknown",
            f"t{sentence}",
            "normal",
            1.0,
            f"s{speaker}t{sentence}",
        )
        for speaker, sentence in itertools.product(range(speakers), range(sentences))
    ]
    first = {name: group[0] for group in groups for name in group}
    return [dataclasses.replace(u, digest=first.get(u.name, u.name)) for u in made]


# Of one speaker, as in RAVDESS; of two; of two sentences; and one that is there thrice.
GROUPS = [("s0t0", "s0t1"), ("s1t2", "s2t2"), ("s3t3", "s4t4"), ("s5t0", "s4t0", "s3t0")]


@pytest.mark.parametrize("select_on", ["dev", "test"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_equal_recording_is_on_one_side_and_all_are_tested_as_before(protocol, select_on):
    plain, doubled = utterances(), utterances(GROUPS)
    before, after = (folds.make_folds(u, protocol, 5, 0, select_on) for u in (plain, doubled))
    same = {name: group for group in GROUPS for name in group}
    assert [fold.test for fold in after] == [fold.test for fold in before]
    for one, other in zip(before, after, strict=True):
        leakage.check_splits(other.splits, doubled)
        judged = {*one.test, *one.dev}
        lost = {*one.train, *one.dev} - {*other.train, *other.dev}
        expected = {name for name in one.train if judged.intersection(same.get(name, ()))} | {
            name for name in one.dev if {*one.test}.intersection(same.get(name, ()))
        }
        assert lost == expected
    assert folds.shared(after, doubled)["recordings"] == 0
    assert folds.shared(before, doubled)["recordings"] > 0 or protocol.endswith("out")


def test_a_pair_of_one_speaker_costs_folds_of_speakers_nothing():
    pair = utterances([("s0t0", "s0t1")])
    assert folds.make_folds(pair, "leave_one_speaker_out", 1, 0) == folds.make_folds(
        utterances(), "leave_one_speaker_out", 1, 0
    )


def test_a_corpus_that_holds_everything_twice_keeps_its_folds_and_leaks_nothing():
    once = utterances()
    twice = once + [dataclasses.replace(u, name=f"{u.name}_copy") for u in once]
    for fold in folds.make_folds(twice, "stratified", 5, 0):
        leakage.check_splits(fold.splits, twice)
        assert len(fold.test) in (16, 17)
        assert len(fold.train) > len(once) / 2


def test_recordings_whose_digest_is_unknown_are_equal_to_none():
    unknown = [dataclasses.replace(u, digest="") for u in utterances()]
    assert folds.make_folds(unknown, "stratified", 5, 0) == folds.make_folds(
        utterances(), "stratified", 5, 0
    )
    assert leakage.same_recordings(["s0t0"], unknown) == {"s0t0"}


def test_equal_recordings_are_known_by_their_samples(tmp_path):
    """Whatever the file's format, its metadata and its name; nearly equal ones are others."""
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


# Files of folds.


def write_folds(path, *sides):
    entries = [dict(zip(("train", "dev", "test"), one, strict=True)) for one in sides]
    path.write_text(json.dumps({"folds": entries}))
    return path


def test_a_file_with_an_equal_recording_on_two_sides_is_refused(tmp_path):
    known = utterances(GROUPS)
    good = (["s0t0", "s0t1"], ["s1t2"], ["s3t3"])
    assert folds.read_folds(write_folds(tmp_path / "good.json", good), known)
    for train, dev, test, said in (
        (["s0t0"], ["s5t1"], ["s0t1"], r"fold 1: 's0t0' in train and 's0t1' in test"),
        (["s5t1"], ["s3t0"], ["s4t0"], r"fold 1: 's3t0' in dev and 's4t0' in test"),
        (["s5t1", "s1t2"], ["s2t2"], ["s4t0"], r"fold 1: 's1t2' in train and 's2t2' in dev"),
    ):
        path = write_folds(tmp_path / "bad.json", good, (train, dev, test))
        with pytest.raises(LeakError, match=f"{said} are the same recording: leave 's.t.' out"):
            folds.read_folds(path, known)


# Runs.


def config(**fields):
    config = tiny.config()
    config.corpus = "tiny"
    config.folds.protocol, config.folds.count = "stratified", 3
    config.update_from_flattened_dict({"model.freeze": "block4", "train.epochs": 1} | fields)
    return config


def test_a_run_leaves_equal_recordings_out_says_so_and_reports_it(tmp_path, capsys):
    corpus = with_digests(tiny.corpus(21), "u00 u07")  # of one label, so in two folds of three
    assert cross_validation.run(config(), corpus, tmp_path)
    printed = capsys.readouterr().out
    assert "left out of training where the same recording, called otherwise, judges: u0" in printed
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["n"], report["shared"]["recordings"]) == (21, 0)
    assert report["equal_left_out"] == 2
    page = (tmp_path / "report.html").read_text()
    assert "no recordings" in page
    assert "2 recordings are left out of training in the folds in which the same" in page
    for fold in json.loads((tmp_path / "folds.json").read_text())["folds"]:
        assert not {"u00", "u07"} <= {*fold["train"], *fold["dev"], *fold["test"]} or (
            {"u00", "u07"} <= {*fold["train"]} or {"u00", "u07"} <= {*fold["test"]}
        )


def test_folds_that_were_tampered_with_end_the_run(tmp_path):
    corpus = with_digests(tiny.corpus(21), "u00 u07")
    cross_validation.run(config(), corpus, tmp_path, [])
    path = tmp_path / "folds.json"
    written = path.read_text()
    for change in (
        lambda fold: fold["train"].append(fold["test"][0]),  # the same name
        lambda fold: fold["train"].append("u07" if "u00" in fold["test"] else "u00"),
        lambda fold: fold["dev"].append(fold["test"][0]),
    ):

        def change_one(content, change=change):
            folds = (
                fold for fold in content["folds"] if len({"u00", "u07"} & {*fold["test"]}) == 1
            )
            change(next(folds))

        path.write_text(written)
        tiny.tamper(path, change_one)
        with pytest.raises(ValueError, match=r"folds\.json, fold \d: "):
            cross_validation.run(config(), corpus, tmp_path)
        assert not list(tmp_path.glob("fold_*/predictions.csv"))


def feed(monkeypatch, target, name, stray):
    """Makes a method add a row to those that it gives."""
    method = getattr(target, name)
    monkeypatch.setattr(
        target, name, lambda self, *args: np.append(method(self, *args), np.int32(stray))
    )


def test_a_row_of_the_test_side_in_training_ends_the_run(tmp_path, monkeypatch):
    corpus = with_digests(tiny.corpus(21))
    cross_validation.run(config(), corpus, tmp_path, [])
    stray = json.loads((tmp_path / "folds.json").read_text())["folds"][0]["test"][0]
    feed(monkeypatch, FoldState, "order", int(stray[1:]))
    with pytest.raises(LeakError, match=f"fold 0: training was given '{stray}', which is not of"):
        cross_validation.run(config(), corpus, tmp_path)
    assert not list(tmp_path.glob("fold_*/predictions.csv"))


def test_a_row_of_the_test_side_in_the_choice_of_the_epoch_ends_the_run(tmp_path, monkeypatch):
    corpus = with_digests(tiny.corpus(21))
    cross_validation.run(config(), corpus, tmp_path, [])
    fold = json.loads((tmp_path / "folds.json").read_text())["folds"][0]
    stray, rows_of = fold["test"][0], Corpus.rows_of

    def with_a_stray(self, names):
        strays = [int(stray[1:])] * ([*names] == fold["dev"])
        return np.append(rows_of(self, names), np.asarray(strays, np.int32))

    monkeypatch.setattr(Corpus, "rows_of", with_a_stray)
    with pytest.raises(LeakError, match=f"fold 0: the choice of the epoch was given '{stray}'"):
        cross_validation.run(config(), corpus, tmp_path)


@pytest.mark.parametrize("system", ["network", "classifier"])
def test_names_that_lead_to_other_rows_end_the_run(system, tmp_path, monkeypatch):
    corpus = with_digests(tiny.corpus(21))
    what, experiment = "scaling", config()
    if system == "classifier":
        what, experiment = "the fit", base.get_config()
        base.use_mlr(experiment, "mfcc")
        experiment.corpus, experiment.folds.count = "tiny", 3
        vectors = np.random.default_rng(0).normal(size=(21, 60)).astype(np.float32)
        corpus = dataclasses.replace(corpus, inputs=vectors)
    cross_validation.run(experiment, corpus, tmp_path, [])
    stray = json.loads((tmp_path / "folds.json").read_text())["folds"][0]["test"][0]
    feed(monkeypatch, Corpus, "rows_of", int(stray[1:]))
    with pytest.raises(LeakError, match=f"fold 0: {what} was given '{stray}'"):
        cross_validation.run(experiment, corpus, tmp_path)
    assert not list(tmp_path.glob("fold_*/checkpoints/*"))


@pytest.mark.parametrize(
    ("allowed", "stray", "passes"),
    [
        (("train",), "s0t0", True),
        (("train",), "s0t1", False),
        (("train",), "s0t2", False),
        (("train", "dev"), "s0t1", True),
        (("train", "dev"), "s0t2", False),
        (("dev",), "s0t0", False),
        (("test",), "s0t2", True),  # the paper's way of choosing
        (("train",), "s0t3", False),  # of no side
        (("train",), "s5t6", False),  # trained on, and the same as one that is tested
    ],
)
def test_rows_are_of_the_sides_that_they_may_be_of(allowed, stray, passes):
    known = utterances([("s5t5", "s5t6")])
    corpus = Corpus("c", tuple(known), np.zeros((84, 2)), np.arange(42).repeat(2).astype(np.int32))
    sides = {"train": ["s0t0", "s5t6"], "dev": ["s0t1"], "test": ["s0t2", "s5t5"]}
    rows = corpus.rows_of([stray])[1:]
    if passes:
        leakage.check_rows("a fit", rows, corpus, sides, allowed)
        return
    with pytest.raises(LeakError, match=f"a fit was given '{stray}', which is not of {allowed[0]}"):
        leakage.check_rows("a fit", rows, corpus, sides, allowed)


def test_inner_folds_fit_nothing_that_they_hold_out(tmp_path, monkeypatch):
    given = []

    def fit(system, model, inputs, labels, inner, seed):
        given.append((inputs, inner))
        raise ValueError("enough")

    monkeypatch.setattr(classifiers, "fit", fit)
    experiment = base.get_config()
    base.use_svc(experiment, "mfcc", "linear")
    experiment.corpus, experiment.folds.count = "tiny", 3
    corpus = with_digests(tiny.corpus(21), "u00 u07 u14", "u01 u09")
    vectors = np.arange(21 * 60, dtype=np.float32).reshape(21, 60)
    corpus = dataclasses.replace(corpus, inputs=vectors)
    with pytest.raises(ValueError, match="enough"):
        cross_validation.run(experiment, corpus, tmp_path)
    ((inputs, inner),) = given
    digest = [corpus.utterances[int(row[0]) // 60].digest for row in inputs]
    held = [digest[row] for _, held_out in inner for row in held_out]
    assert sorted(held) == sorted(digest)  # each is held out once
    assert len(set(digest)) < len(digest)  # some of those that train are equal
    for fitted, held_out in inner:
        assert not {digest[row] for row in fitted} & {digest[row] for row in held_out}


def test_recordings_known_from_training_are_left_out_of_another_corpus(run, tmp_path, capsys):
    trained = with_digests(tiny.corpus(21))
    cross_validation.run(config(), trained, tmp_path)
    other = dataclasses.replace(with_digests(tiny.corpus(21)), name="other")
    renamed = [dataclasses.replace(u, name=f"other_{u.name}") for u in other.utterances]
    strangers = [dataclasses.replace(u, digest=f"{u.digest}, louder") for u in renamed[3:]]
    other = dataclasses.replace(other, utterances=(*renamed[:3], *strangers))
    report = evaluate.run(tmp_path, other)
    assert (report["n"], report["equal_left_out"]) == (18, 3)
    assert report["shared"]["recordings"] == 0
    assert "3 recordings of other are left out" in capsys.readouterr().out
    page = (tmp_path / "evaluations" / "other" / "report.html").read_text()
    assert "3 recordings were left out, since the models were trained on the same ones" in page
