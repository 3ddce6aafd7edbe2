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
    joined = auxiliary.join(varied, [(other, 0.5)])
    [group] = joined.auxiliary
    assert (group.share, group.utterances) == (0.5, other.utterances)
    assert (len(joined.inputs), joined.extra) == (20 + 15 * windows, 10 + 15 * windows)
    np.testing.assert_array_equal(joined.owners[:20], varied.owners)
    np.testing.assert_array_equal(joined.labels[20:], other.labels)
    for row, source in zip(joined.inputs[20:], other.inputs, strict=True):
        np.testing.assert_array_equal(row[:, : source.shape[1]], source)
        assert not row[:, source.shape[1] :].any()
    # An utterance of the corpus has the name of an auxiliary one, and not its rows.
    assert joined.rows_of(u.name for u in other.utterances).tolist() == [*range(10)]


def test_those_of_the_trained_classes_train():
    joined = auxiliary.join(named("mine", 9), [(named("other", 14, seed=1), 9.0)])
    assert len(joined.inputs) == 9 + 14
    rows = joined.training_rows(["u00", "u01", "u02"])
    assert rows.tolist() == [0, 1, 2, 9, 10, 11, 16, 17, 18]
    assert joined.rows_of(["u00", "u01", "u02"]).tolist() == [0, 1, 2]


def test_classes_of_the_corpus_decide_what_is_taken():
    recorded, other = named("mine", 3), named("other", 14, seed=1)
    [group] = auxiliary.join(recorded, [(other, 1.0)]).auxiliary
    assert [u.name for u in group.utterances] == ["u00", "u01", "u02", "u07", "u08", "u09"]
    last = dataclasses.replace(other, utterances=other.utterances[3:5], owners=np.arange(2))
    with pytest.raises(ValueError, match="other has no recording"):
        auxiliary.join(recorded, [(last, 1.0)])


def test_corpora_that_hold_the_same_recording_are_refused():
    """Whether it would be taken or not: their speakers may be the same people."""
    recorded, other, third = named("mine", 3), named("other", 14, 1), named("third", 14, 2)

    def sharing(corpus, place, digest):
        utterances = list(corpus.utterances)
        utterances[place] = dataclasses.replace(utterances[place], digest=digest)
        return dataclasses.replace(corpus, utterances=tuple(utterances))

    overlapping = sharing(other, 5, "mine/u01")  # of a class that the corpus lacks
    with pytest.raises(ValueError, match=r"'u05' of other is .* 'u01' of mine: .* Take other out"):
        auxiliary.join(recorded, [(overlapping, 0.1)])
    overlapping = sharing(third, 9, "other/u02")
    with pytest.raises(ValueError, match=r"'u09' of third is .* 'u02' of other: .* Take third out"):
        auxiliary.join(recorded, [(other, 0.1), (overlapping, 0.1)])
    unknown = sharing(other, 5, "")
    assert auxiliary.join(sharing(recorded, 1, ""), [(unknown, 0.1)]).auxiliary


def test_recordings_weigh_their_share_of_the_training_split_together():
    corpora = [(named("other", 14, seed=1, windows=2), 0.5), (named("third", 7, seed=2), 2.0)]
    joined = auxiliary.join(named("mine", 14), corpora)
    rows = joined.training_rows(f"u{i:02}" for i in (0, 1, 2, 7))  # of three classes
    assert len(rows) == 4 + 6 * 2 + 3
    np.testing.assert_allclose(joined.weights(rows), [1] * 4 + [2 / 12] * 12 + [8 / 3] * 3)
    assert named("mine", 14).weights(np.arange(3)) is None


@pytest.mark.parametrize("entry", ["ravdess", "=0.3", "ravdess=", "ravdess=0", "ravdess=nan"])
def test_an_entry_needs_a_corpus_and_a_share(entry):
    with pytest.raises(ConfigError) as refused:
        auxiliary.parse(entry)
    assert (refused.value.field, refused.value.value) == ("auxiliary", entry)


def test_names_of_corpora_may_have_equals_signs():
    assert auxiliary.parse("my=corpus=0.25") == ("my=corpus", 0.25)


def test_a_tested_recording_under_another_corpus_name_ends_the_run():
    joined = auxiliary.join(named("mine", 9), [(named("other", 14, seed=1), 1.0)])
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
