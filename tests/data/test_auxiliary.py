"""Recordings of other corpora train the models, and no fold, no choice and no test has them."""

import dataclasses

import numpy as np
import pytest
import tiny

from ds_jax.data import auxiliary, leakage
from ds_jax.data.corpus import StoredPictures
from ds_jax.data.extension import with_variants
from ds_jax.data.leakage import LeakError
from ds_jax.runtime.errors import ConfigError
from ds_jax.training.fold import FoldState


def named(name, count, seed=0, windows=1, **fields):
    """A corpus of timelines, whose recordings have digests of their own."""
    made = tiny.timelines(tiny.corpus(count, windows, seed=seed), seed)
    known = [dataclasses.replace(u, digest=f"{name}/{u.name}") for u in made.utterances]
    return dataclasses.replace(made, name=name, utterances=tuple(known), **fields)


@pytest.mark.parametrize("windows", [1, 2])
@pytest.mark.parametrize("stored", [False, True])
def test_rows_of_auxiliary_recordings_come_last_with_labels_of_their_own(windows, stored):
    recorded, other = named("mine", 10), named("other", 15, seed=1, windows=windows)
    if stored:
        inputs, shape = other.inputs, other.inputs.shape[1:]
        pictures = StoredPictures(inputs.__getitem__, np.arange(len(inputs)), shape)
        other = dataclasses.replace(other, inputs=pictures)
    varied = with_variants(recorded, [recorded])
    joined = auxiliary.join(varied, [(other, 0.5)], 0)
    [group] = joined.auxiliary
    assert len(group.utterances) == 5  # half of the ten
    assert (len(joined.inputs), joined.extra) == (20 + 5 * windows, 10 + 5 * windows)
    np.testing.assert_array_equal(joined.owners[:20], varied.owners)
    taken = other.rows_of(u.name for u in group.utterances)
    np.testing.assert_array_equal(joined.labels[20:], other.labels[taken])
    for row, source in zip(joined.inputs[20:], other.inputs[taken], strict=True):
        np.testing.assert_array_equal(row[:, : source.shape[1]], source)
        assert not row[:, source.shape[1] :].any()
    # An utterance of the corpus has the name of an auxiliary one, and not its rows.
    names = [u.name for u in group.utterances if u.name in joined.digests]
    assert names
    assert max(joined.rows_of(names)) < 10


def test_those_of_the_trained_classes_train_and_none_chooses_or_is_tested(tmp_path):
    joined = auxiliary.join(named("mine", 9), [(named("other", 14, seed=1), 9.0)], 0)
    assert len(joined.inputs) == 9 + 14
    fold = tiny.fold(range(3), range(3, 4), range(4, 9))  # trains the first three classes
    state = FoldState(tiny.config(), joined, 0, fold, tmp_path, False)
    assert state.trained == ["ANGER", "DISGUST", "FEAR"]
    assert state.rows["train"].tolist() == [0, 1, 2, 9, 10, 11, 16, 17, 18]
    assert (state.rows["dev"].tolist(), state.rows["test"].tolist()) == ([3], [4, 5, 6, 7, 8])
    assert set(state.measured_rows) <= {0, 1, 2}
    assert sorted(state.order().tolist()) == state.rows["train"].tolist()


def test_classes_of_the_corpus_decide_what_is_taken():
    recorded, other = named("mine", 3), named("other", 14, seed=1)
    [group] = auxiliary.join(recorded, [(other, 100.0)], 0).auxiliary
    assert [u.name for u in group.utterances] == ["u00", "u01", "u02", "u07", "u08", "u09"]
    last = dataclasses.replace(other, utterances=other.utterances[3:5], owners=np.arange(2))
    with pytest.raises(ValueError, match="other has no recording"):
        auxiliary.join(recorded, [(last, 1.0)], 0)


def test_corpora_that_hold_the_same_recording_are_refused():
    """Whether it would be taken or not: their speakers may be the same people."""
    recorded, other, third = named("mine", 3), named("other", 14, 1), named("third", 14, 2)

    def sharing(corpus, place, digest):
        utterances = list(corpus.utterances)
        utterances[place] = dataclasses.replace(utterances[place], digest=digest)
        return dataclasses.replace(corpus, utterances=tuple(utterances))

    overlapping = sharing(other, 5, "mine/u01")  # of a class that the corpus lacks
    with pytest.raises(ValueError, match=r"'u05' of other is .* 'u01' of mine: .* Take other out"):
        auxiliary.join(recorded, [(overlapping, 0.1)], 0)
    overlapping = sharing(third, 9, "other/u02")
    with pytest.raises(ValueError, match=r"'u09' of third is .* 'u02' of other: .* Take third out"):
        auxiliary.join(recorded, [(other, 0.1), (overlapping, 0.1)], 0)
    unknown = sharing(other, 5, "")
    assert auxiliary.join(sharing(recorded, 1, ""), [(unknown, 0.1)], 0).auxiliary


@pytest.mark.parametrize(("share", "verb"), [(0.01, "1 recording of 14 trains"), (9, "train")])
def test_how_many_train_is_told(share, verb, capsys):
    auxiliary.join(named("mine", 7), [(named("other", 14, seed=1), share)], 0)
    assert f"{verb} the models too" in capsys.readouterr().out


def test_each_seed_takes_others_and_the_order_of_a_corpus_does_not_matter():
    def taken(other, seed):
        [group] = auxiliary.join(named("mine", 7), [(other, 1.0)], seed).auxiliary
        return {u.name for u in group.utterances}

    other = named("other", 70)
    assert len({frozenset(taken(other, seed)) for seed in range(5)}) == 5
    backwards = dataclasses.replace(other, utterances=other.utterances[::-1])
    assert taken(backwards, 3) == taken(other, 3)


@pytest.mark.parametrize("entry", ["ravdess", "=0.3", "ravdess=", "ravdess=0", "ravdess=nan"])
def test_an_entry_needs_a_corpus_and_a_share(entry):
    with pytest.raises(ConfigError) as refused:
        auxiliary.parse(entry)
    assert (refused.value.field, refused.value.value) == ("auxiliary", entry)


def test_names_of_corpora_may_have_equals_signs():
    assert auxiliary.parse("my=corpus=0.25") == ("my=corpus", 0.25)


def test_a_tested_recording_under_another_corpus_name_ends_the_run():
    joined = auxiliary.join(named("mine", 9), [(named("other", 14, seed=1), 1.0)], 0)
    fold = tiny.fold(range(6), range(0), range(6, 9))
    rows = joined.training_rows(fold.train)
    leakage.check_rows("a fit", rows, joined, fold.splits, ("train",))
    with pytest.raises(LeakError):
        leakage.check_rows("a choice", rows, joined, fold.splits, ("dev",))
    [group] = joined.auxiliary
    first = next(u for u in group.utterances if u.label in {"ANGER", "DISGUST"})
    heard = dataclasses.replace(joined.utterances[7], digest=first.digest)
    utterances = (*joined.utterances[:7], heard, *joined.utterances[8:])
    leaking = dataclasses.replace(joined, utterances=utterances)
    with pytest.raises(LeakError, match=f"'{first.name}' of other"):
        leakage.check_rows("a fit", rows, leaking, fold.splits, ("train",))
