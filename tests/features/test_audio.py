"""Recordings are decoded, resampled and cut as promised; unusable ones raise an error."""

import re
import tracemalloc

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from signals import PCM, TONE, noise, padded, write

from ds_jax.features import audio
from ds_jax.features import source as sources
from ds_jax.features.audio import Windowing
from ds_jax.features.silence import find_speech
from ds_jax.features.source import Source


@pytest.mark.parametrize("name", ["a.l16", "a.raw", "a.pcm", "A.L16"])
def test_headerless_files_are_little_endian_16_bit_at_16_khz(tmp_path, name):
    values = np.array([0, 1, -1, 256, 32767, -32768])
    content = b"".join(int(value).to_bytes(2, "little", signed=True) for value in values)
    (tmp_path / name).write_bytes(content)
    samples, rate = audio.read(tmp_path / name, 0)
    assert (rate, samples.dtype) == (16_000, np.float32)
    np.testing.assert_array_equal(samples, values / 32768)


def test_equal_samples_in_other_formats_are_equal(tmp_path):
    (tmp_path / "a.l16").write_bytes(PCM.astype("<i2").tobytes())
    for name in ("a.wav", "a.flac"):
        write(tmp_path / name, PCM, 16_000, "PCM_16")
    first, *others = (audio.read(tmp_path / f"a.{end}", 8000)[0] for end in ("l16", "wav", "flac"))
    for other in others:
        np.testing.assert_array_equal(other, first)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_U8", "FLOAT", "ULAW"])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_samples_are_the_mean_of_libsndfile_s_channels(tmp_path, subtype, channels):
    path = write(tmp_path / "a.wav", noise(0.1, 16_000, channels), 16_000, subtype)
    expected, _ = soundfile.read(path, dtype="float32", always_2d=True)
    samples, rate = audio.read(path, 0)
    assert rate == 16_000
    np.testing.assert_array_equal(samples, expected.mean(axis=1))


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_one_channel_can_be_taken(tmp_path, subtype):
    columns = noise(0.1, 16_000, 3)
    for count, places in ((1, (0, 0)), (2, (0, 1)), (3, (0, 1))):
        path = write(tmp_path / "a.wav", columns[:, :count], 16_000, subtype)
        expected, _ = soundfile.read(path, dtype="float32", always_2d=True)
        for channel, place in zip(("left", "right"), places, strict=True):
            samples, _ = audio.read(Source(path, channel=channel), 0)
            np.testing.assert_array_equal(samples, expected[:, place])


def test_a_silent_channel_is_named(tmp_path):
    path = write(tmp_path / "a.wav", np.stack([TONE, 0 * TONE], axis=1))
    assert len(audio.read(Source(path, channel="left"), 0)[0]) == len(TONE)
    with pytest.raises(ValueError, match=r"a\.wav is silent: .*right"):
        audio.read(Source(path, channel="right"), 0)


@pytest.mark.parametrize("block", [1, 777, 4799, 4800, 4801])
def test_blocks_do_not_change_a_recording(tmp_path, monkeypatch, block):
    path = write(tmp_path / "a.wav", noise(0.1, 48_000, 3))
    whole = {rate: audio.read(path, rate)[0] for rate in (0, 16_000)}
    monkeypatch.setattr(sources, "BLOCK", block)
    for rate, samples in whole.items():
        np.testing.assert_array_equal(audio.read(path, rate)[0], samples)


def test_resampling_keeps_duration_pitch_and_level_without_aliases(tmp_path):
    samples, rate = audio.read(write(tmp_path / "a.wav", TONE), 16_000)
    assert (rate, samples.dtype, len(samples)) == (16_000, np.float32, 1600)
    inner = slice(200, -200)  # the filter rings at the ends
    np.testing.assert_allclose(samples[inner], TONE[::3][inner], atol=1e-3)
    high = np.sin(2 * np.pi * 15_000 * np.arange(48_000) / 48_000)
    samples, _ = audio.read(write(tmp_path / "a.wav", high), 16_000)
    assert np.abs(samples[500:-500]).max() < 1e-3


BROKEN = {
    "nothing.wav": ("empty", b""),
    "nothing.l16": ("empty", b""),
    "text.wav": ("not recognised", b"This is not audio.\n" * 20),
    "half.flac": ("decoded", "half"),
    "half.wav": ("cut short", "half"),
    "odd.l16": ("damaged", b"\0\1\2"),
    "no sample.wav": ("empty", np.zeros(0)),
    "nan.wav": ("finite", np.where(np.arange(4800) == 7, np.nan, TONE)),
    "late nan.wav": ("finite", np.where(np.arange(4800) == 4799, np.nan, TONE)),
    "infinite.wav": ("finite", np.where(np.arange(4800) == 7, np.inf, TONE)),
    "zeros.wav": ("silent", np.zeros(4800)),
    "constant.wav": ("silent", np.full(4800, 0.25)),
    "hiss.wav": ("silent", 1e-5 * TONE),
    "opposite.wav": ("silent", np.stack([TONE, -TONE], axis=1)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_unusable_recording_raises_an_error_with_its_name_and_the_reason(
    tmp_path, monkeypatch, name
):
    monkeypatch.setattr(sources, "BLOCK", 1000)
    path, (reason, content) = tmp_path / name, BROKEN[name]
    if isinstance(content, str):
        content = write(path, noise(1, 16_000), 16_000, "PCM_16").read_bytes()
        content = content[: len(content) // 2]
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        write(path, content)
    message = f"^{re.escape(str(path))} .*{reason}"
    with pytest.raises(ValueError, match=message):
        audio.read(path, 16_000)
    with pytest.raises(ValueError, match=message):  # before the first window
        next(audio.windows(path, 16_000, Windowing(0.01)))


def test_a_missing_file_is_an_error_with_its_name(tmp_path):
    for read in (audio.read, lambda *args: next(audio.windows(*args, Windowing(1)))):
        with pytest.raises(FileNotFoundError, match=r"none\.wav"):
            read(tmp_path / "none.wav", 16_000)


def test_quiet_speech_is_not_silence(tmp_path):
    samples, _ = audio.read(write(tmp_path / "a.wav", 1e-3 * TONE), 0)
    assert len(samples) == len(TONE)


def test_windows_of_trimmed_recordings_start_with_the_speech(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "BLOCK", 3000)
    path = write(tmp_path / "a.wav", padded(1.0, 1.0, 2.0, 44_100), 44_100)
    samples, rate = audio.read(path, 16_000)
    first, stop = find_speech([samples], rate, 40.0)
    assert (first, stop) != (0, len(samples))
    windowing = Windowing(0.5, 0.25, to_end=True)
    expected = windowing.split(samples[first:stop], rate)
    found = zip(audio.windows(path, rate, windowing, 40.0), expected, strict=True)
    for number, ((seconds, start, _, part), wanted) in enumerate(found):
        assert seconds == pytest.approx(4.0)
        assert start == pytest.approx(first / rate + 0.25 * number)
        np.testing.assert_array_equal(part, wanted)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.l16"])
def test_a_part_is_cut_before_it_is_resampled(tmp_path, monkeypatch, name):
    monkeypatch.setattr(sources, "BLOCK", 3000)
    path, samples = tmp_path / name, (10_000 * noise(1, 16_000)[:, 0]).astype(np.int16)
    if name == "a.l16":
        path.write_bytes(samples.astype("<i2").tobytes())
    else:
        write(path, samples, 16_000, "PCM_16")
    (tmp_path / "cut.l16").write_bytes(samples[4000:12_008].astype("<i2").tobytes())
    source = Source(path, 0.25, 0.7505)
    for rate in (0, 8000):
        expected = audio.read(tmp_path / "cut.l16", rate)[0]
        np.testing.assert_array_equal(audio.read(source, rate)[0], expected)
        parts = list(audio.windows(source, rate, Windowing(0.1, to_end=True)))
        np.testing.assert_array_equal(np.concatenate([part for *_, part in parts]), expected)
        assert parts[0][0] == pytest.approx(0.5005)


def test_a_part_must_lie_in_its_recording(tmp_path):
    path = write(tmp_path / "a.wav", noise(1, 16_000), 16_000)
    assert len(audio.read(Source(path, 0.5, 1.04), 0)[0]) == 8000  # as rounded by a person
    for start, end in ((0.5, 1.5), (1.5, 2.0)):
        with pytest.raises(ValueError, match=rf"a\.wav from {start} to {end:g} s cannot be read"):
            audio.read(Source(path, start, end), 0)


def test_a_part_of_a_recording_that_is_too_long_can_be_read(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "LONGEST", 0.5)
    path = write(tmp_path / "a.wav", noise(1, 16_000), 16_000)
    assert len(audio.read(Source(path, 0.5, 0.8), 0)[0]) == 4800
    for source in (path, Source(path, 0.2, 0.8)):
        with pytest.raises(ValueError, match="too long"):
            audio.read(source, 0)


def test_headerless_files_of_another_rate(tmp_path):
    (tmp_path / "a.raw").write_bytes(PCM.astype("<i2").tobytes())
    write(tmp_path / "a.wav", PCM, 8000, "PCM_16")
    samples, rate = audio.read(Source(tmp_path / "a.raw", raw_rate=8000), 0)
    assert (len(samples), rate) == (len(PCM), 8000)
    expected = audio.read(tmp_path / "a.wav", 16_000)[0]
    for source in (Source(tmp_path / "a.raw", raw_rate=8000), tmp_path / "a.wav"):
        np.testing.assert_array_equal(audio.read(source, 16_000)[0], expected)
    np.testing.assert_array_equal(
        audio.read(Source(tmp_path / "a.wav", raw_rate=44_100), 16_000)[0], expected
    )


def test_seconds_become_samples():
    assert Windowing(3.0).samples(16_000) == (48_000, 48_000)
    assert Windowing(0.5, 0.2).samples(22_050) == (11_025, 4_410)
    assert Windowing(1e-9, 1e-9).samples(8_000) == (1, 1)


def test_deepspectrum_takes_a_window_for_every_whole_hop():
    assert [audio.count_windows(n, 10) for n in (1, 9, 10, 19, 20, 59)] == [1, 1, 1, 1, 2, 5]


def test_windows_are_cut_at_every_whole_hop():
    samples = np.arange(1000)

    def ends(seconds, *windowing):
        pieces = Windowing(*windowing).split(samples[: int(seconds * 100)], 100)
        return [(piece[0], piece[-1] + 1) for piece in pieces]

    assert ends(10) == [(0, 1000)]
    assert ends(10, 4.0) == [(0, 400), (400, 800)]
    assert ends(10, 4.0, 2.0) == [(0, 400), (200, 600), (400, 800), (600, 1000), (800, 1000)]
    assert ends(10, 4.0, 0.0, True) == [(0, 400), (400, 800), (800, 1000)]
    assert ends(3, 4.0) == [(0, 300)]
    assert ends(0.01, 4.0, 2.0) == [(0, 1)]


@settings(deadline=None)
@given(total=st.integers(1, 99), length=st.integers(1, 30), step=st.integers(1, 30))
def test_to_the_end_is_one_window_more_where_something_would_be_missed(total, length, step):
    def covered(count):
        assert (count - 1) * step < total  # no window is empty
        return {n for index in range(count) for n in range(index * step, index * step + length)}

    usual, to_end = (Windowing(length, step, to_end).count(total, 1) for to_end in (False, True))
    assert usual == audio.count_windows(total, step)
    missed = {*range(usual * step, total)} - covered(usual)
    assert to_end == usual + bool(missed)
    if step <= length:
        assert {*range(total)} <= covered(to_end)


@pytest.mark.parametrize(
    ("window", "hop"), [(1.0, 0.0), (0.5, 0.2), (0.2, 0.5), (0.3, 0.3), (0.01, 0.1)]
)
@pytest.mark.parametrize(("rate", "wanted"), [(16_000, 16_000), (44_100, 16_000), (22_050, 0)])
def test_windows_are_those_of_training(tmp_path, monkeypatch, rate, wanted, window, hop):
    monkeypatch.setattr(sources, "BLOCK", 3000)
    for seconds in (0.1, 0.4, 1.0, 1.73):
        path = write(tmp_path / "a.wav", noise(seconds, rate, 2), rate)
        samples, read_rate = audio.read(path, wanted)
        for to_end in (False, True):
            windowing = Windowing(window, hop, to_end)
            expected = windowing.split(samples, read_rate)
            _, step = windowing.samples(read_rate)
            found = zip(audio.windows(path, wanted, windowing), expected, strict=True)
            for number, ((whole, start, at_rate, decoded), part) in enumerate(found):
                assert whole == soundfile.info(path).duration
                assert (start, at_rate) == (pytest.approx(number * step / read_rate), read_rate)
                assert decoded.dtype == np.float32
                np.testing.assert_array_equal(decoded, part)


def test_windows_of_a_long_recording_need_the_memory_of_a_few(tmp_path):
    path = tmp_path / "long.wav"
    with soundfile.SoundFile(path, "w", 48_000, 2, "PCM_16") as file:
        for _ in range(60):
            file.write(noise(1, 48_000, 2))  # 23 MB as float32
    tracemalloc.start()
    count = sum(1 for _ in audio.windows(path, 16_000, Windowing(2.0, 1.0)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 60
    assert peak < 8e6
