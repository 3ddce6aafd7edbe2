"""Utterances are found in a stream, whatever its rate and however it comes."""

import itertools
import os
import threading
import types

import numpy as np
import pytest
import soxr
from speaking import babble

from ds_jax.serving import speech
from ds_jax.serving.speech import Begun, Cutter, Utterance

RATE = 16_000


def stream(*parts, rate=RATE):
    """Speech and silence in turn; the numbers are seconds, those of silence below 0."""
    pieces = [
        babble(p, seed=i) if p > 0 else np.zeros(round(-p * RATE)) for i, p in enumerate(parts)
    ]
    quiet = np.random.default_rng(0).normal(0, 1e-4, sum(map(len, pieces)))
    samples = np.concatenate(pieces) + quiet
    return (
        samples.astype(np.float32)
        if rate == RATE
        else soxr.resample(samples, RATE, rate).astype(np.float32)
    )


def hear(samples, rate=RATE, block=4000, longest=16.0):
    cutter = Cutter(rate, longest)
    found = []
    for start in range(0, len(samples), block):
        found += cutter.add(samples[start : start + block])
    return found + cutter.end()


def utterances(found):
    return [each for each in found if isinstance(each, Utterance)]


def test_two_utterances_are_told_apart_and_lie_where_they_were_said():
    samples = stream(-1.0, 2.0, -1.5, 1.0, -1.0)
    found = hear(samples)
    assert [type(each) for each in found] == [Begun, Utterance, Begun, Utterance]
    for said, (start, end) in zip(utterances(found), [(1.0, 3.0), (4.5, 5.5)], strict=True):
        assert said.start == pytest.approx(start, abs=0.3)
        assert said.end == pytest.approx(end, abs=0.3)
        np.testing.assert_array_equal(
            said.samples, samples[round(said.start * RATE) : round(said.end * RATE)]
        )
    assert found[0].start == found[1].start


@pytest.mark.parametrize("rate", [8000, 44_100, 48_000])
def test_other_rates_give_the_same_utterances(rate):
    wanted = utterances(hear(stream(-0.8, 1.5, -1.0)))
    samples = stream(-0.8, 1.5, -1.0, rate=rate)
    found = utterances(hear(samples, rate))
    assert len(found) == len(wanted) == 1
    assert found[0].start == pytest.approx(wanted[0].start, abs=0.15)
    assert found[0].end == pytest.approx(wanted[0].end, abs=0.15)
    assert len(found[0].samples) == pytest.approx((found[0].end - found[0].start) * rate, abs=1)


@pytest.mark.parametrize("block", [7, 511, 100_000])
def test_the_size_of_messages_changes_nothing(block):
    samples = stream(-0.5, 0.8, -0.6)
    one, other = utterances(hear(samples, block=4000)), utterances(hear(samples, block=block))
    assert [(each.start, each.end) for each in one] == [(each.start, each.end) for each in other]
    assert one
    np.testing.assert_array_equal(one[0].samples, other[0].samples)


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(3 * RATE, np.float32),
        np.random.default_rng(0).normal(0, 0.05, 3 * RATE).astype(np.float32),
        (0.4 * np.sin(np.arange(3 * RATE) * 0.17)).astype(np.float32),
        np.where(np.arange(3 * RATE) % RATE < 20, 0.9, 0.0).astype(np.float32),
    ],
    ids=["silence", "noise", "tone", "clicks"],
)
def test_what_is_no_speech_is_none(samples):
    assert hear(samples) == []


def test_the_end_of_the_stream_ends_an_utterance():
    samples = stream(-0.5, 1.5)
    (said,) = utterances(hear(samples))
    assert said.end == pytest.approx(2.0, abs=0.1)
    assert said.end <= len(samples) / RATE


@pytest.mark.parametrize("rate", [RATE, 44_100])
def test_the_end_hears_the_last_part_of_a_chunk(rate):
    """What the resampler and the detector hold back is heard too, and no more than that."""
    cutter, heard = Cutter(rate, 16.0), []
    cutter._detector = types.SimpleNamespace(
        process_samples=lambda chunk: heard.extend(chunk) or float(any(chunk))
    )
    samples = np.full(rate // 2 + 7, 0.5, np.float32)
    found = cutter.add(samples) + cutter.end()
    assert len(heard) % speech.CHUNK == 0
    assert 0 <= len(heard) - len(samples) * RATE / rate < speech.CHUNK + 1
    assert [type(each) for each in found] == [Begun, Utterance]
    np.testing.assert_array_equal(found[1].samples, samples)


def test_long_speech_is_cut_without_a_gap_and_the_rest_is_kept():
    found = utterances(hear(stream(-0.5, 7.0, -1.0), longest=2.0))
    assert len(found) >= 3
    assert all(len(said.samples) <= 2.0 * RATE for said in found)
    for one, other in itertools.pairwise(found):
        assert other.start == pytest.approx(one.end, abs=1e-9)


def test_a_stream_is_forgotten_as_it_goes():
    cutter = Cutter(RATE, 16.0)
    for _ in range(40):
        for _ in range(10):
            cutter.add(np.zeros(RATE // 10, np.float32))
        assert sum(map(len, cutter._kept)) < RATE / 2
    assert cutter._count == 40 * RATE


def test_the_detector_starts_no_threads():
    """Threads that wait for each other would cost ten times what the network does."""
    counts = []

    def listen():
        counts.append(len(os.listdir("/proc/self/task")))
        hear(stream(-0.1))
        counts.append(len(os.listdir("/proc/self/task")))

    thread = threading.Thread(target=listen)  # each thread would have had others of its own
    thread.start()
    thread.join()
    assert counts[0] == counts[1]


@pytest.mark.parametrize("rate", [None, "16000", True, 16_000.0, 7999, 96_001])
def test_an_impossible_rate_is_named(rate):
    with pytest.raises(ValueError, match="rate=") as raised:
        Cutter(rate, 16.0)
    assert str(speech.RATES[0]) in str(raised.value)
