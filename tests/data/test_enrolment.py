"""Speakers are standardised by their own recordings, and by nothing else."""

import dataclasses

import numpy as np
import pytest
import tiny
from sklearn.preprocessing import StandardScaler

from ds_jax.data import enrolment

CORPUS = tiny.corpus(42)  # of three speakers, in turn
SPEAKERS = np.arange(42) % 3


def vectors(seed=0):
    """float32 [42, 5]; the last feature is another constant for each speaker, but for rounding."""
    drawn = np.random.default_rng(seed).normal(3, 2, (42, 5))
    drawn[:, 4] = 1e4 * SPEAKERS * (1 + 1e-7 * drawn[:, 0])
    return drawn.astype(np.float32)


def named(*speakers):
    """The corpus, with these speakers in turn."""
    utterances = [
        dataclasses.replace(u, speaker=speakers[i % len(speakers)])
        for i, u in enumerate(CORPUS.utterances)
    ]
    return dataclasses.replace(CORPUS, utterances=tuple(utterances))


def test_each_speaker_is_standardised_alone():
    found = enrolment.standardise_speakers(vectors(), CORPUS)
    assert found.dtype == np.float32
    for speaker in range(3):
        rows = speaker == SPEAKERS
        wanted = StandardScaler().fit_transform(vectors()[rows, :4].astype(np.float64))
        np.testing.assert_allclose(found[rows, :4], wanted, atol=1e-5)
    assert np.abs(found[:, 4]).max() < 0.1  # what does not vary is not blown up


def test_variants_of_recordings_are_standardised_and_not_measured():
    """The last ten rows are variants of recordings of speakers in turn."""
    owners = np.concatenate([np.arange(42), np.arange(10)]).astype(np.int32)
    varied = dataclasses.replace(CORPUS, owners=owners, extra=10)
    features = np.concatenate([vectors(), vectors()[:10] + 100])
    found = enrolment.standardise_speakers(features, varied)
    np.testing.assert_array_equal(found[:42], enrolment.standardise_speakers(vectors(), CORPUS))
    assert (found[42:, :4] == enrolment.LIMIT).all()


def test_frames_count_alike_and_what_lies_beyond_a_sequence_stays():
    sequences = np.random.default_rng(0).normal(2, 3, (42, 6, 4)).astype(np.float32)
    lengths = np.random.default_rng(1).integers(1, 7, 42)
    beyond = np.arange(6) >= lengths[:, None]
    sequences[beyond] = np.nan
    found = enrolment.standardise_speakers(sequences, CORPUS)
    assert (np.isnan(found).all(axis=2) == beyond).all()
    for speaker in range(3):
        frames = found[speaker == SPEAKERS][~beyond[speaker == SPEAKERS]]
        np.testing.assert_allclose(frames.mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(frames.std(axis=0), 1, atol=1e-5)


def test_what_an_enrolment_has_never_seen_is_cut_off():
    usual = enrolment.measure(vectors()[SPEAKERS == 1])
    strange = np.full((1, 5), 1e9, np.float32)
    np.testing.assert_array_equal(enrolment.standardise(strange, usual), [[enrolment.LIMIT] * 5])


@pytest.mark.parametrize("name", ["", "unknown", "N/A", "?", "Desconocido"])
def test_speakers_who_may_be_several_people_are_refused(name):
    enrolment.check(CORPUS)
    with pytest.raises(ValueError, match="may be several people"):
        enrolment.check(named("ana", name))


def test_speakers_of_few_recordings_are_refused():
    enrolment.check(named("ana", "eva", "ben", "jo"))  # 10 or 11 of each
    with pytest.raises(ValueError, match="tiny has 8 recordings of the speaker 's2'"):
        enrolment.check(named("s0", "s1", "s2", "s3", "s4"))
    enrolment.check_count(enrolment.LEAST)
    with pytest.raises(ValueError, match="1 recording "):
        enrolment.check_count(1)
