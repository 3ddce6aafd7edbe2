"""Recordings are decoded, resampled and cut as promised; unusable ones raise an error."""

import re
import tracemalloc

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from ds_jax.features import audio
from ds_jax.features.audio import Windowing

TONE = (0.5 * np.sin(2 * np.pi * 440 * np.arange(4800) / 48_000)).astype(np.float32)
PCM = (20_000 * TONE).astype(np.int16)


def write(path, samples, rate=48_000, subtype="FLOAT"):
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


def noise(seconds, rate, channels=1):
    shape = (int(seconds * rate), channels)
    return np.random.default_rng(0).normal(0, 0.1, shape).astype(np.float32)


@pytest.mark.parametrize("name", ["a.l16", "a.raw", "A.L16"])
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


@pytest.mark.parametrize("block", [1, 777, 4799, 4800, 4801])
def test_blocks_do_not_change_a_recording(tmp_path, monkeypatch, block):
    path = write(tmp_path / "a.wav", noise(0.1, 48_000, 3))
    whole = {rate: audio.read(path, rate)[0] for rate in (0, 16_000)}
    monkeypatch.setattr(audio, "BLOCK", block)
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
    "text.wav": ("decoded", b"This is not audio.\n" * 20),
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
    monkeypatch.setattr(audio, "BLOCK", 1000)
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


# The sizes of the whole file and of its data that recorders write into a pipe.
PIPED = {
    "ffmpeg": (2**32 - 1, 2**32 - 1),
    "arecord": (2**31 + 36, 2**31),
    "sox": (0x7FFFF024, 0x7FFFF000),
}


@pytest.mark.parametrize("recorder", PIPED)
def test_a_wav_with_the_sizes_of_a_pipe_is_read(tmp_path, recorder):
    path = write(tmp_path / "a.wav", PCM, subtype="PCM_16")
    content = path.read_bytes()
    assert content[36:40] == b"data"
    riff, data = (size.to_bytes(4, "little") for size in PIPED[recorder])
    path.write_bytes(content[:4] + riff + content[8:40] + data + content[44:])
    assert len(audio.read(path, 0)[0]) == len(TONE)


# Windows.


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
    monkeypatch.setattr(audio, "BLOCK", 3000)
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
