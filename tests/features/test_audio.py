"""Recordings are decoded, resampled and cut as promised; unusable ones raise an error."""

import os
import re
import shutil
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from ds_jax.features import audio
from ds_jax.features.audio import Source, Windowing

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


SIZE = 2 * len(PCM)  # bytes of the samples; the header takes 44
# The sizes of the whole file, without 8 bytes, and of its samples that recorders write into a pipe
# or a stream, or leave behind where they are ended.
OPEN = {
    "ffmpeg": (2**32 - 1, 2**32 - 1),
    "arecord": (2**31 + 36, 2**31),
    "sox": (0x7FFFF024, 0x7FFFF000),
    "a stream": (2_000_000_036, 2_000_000_000),
    "zeros": (0, 0),
    "a header without samples": (36, 0),
    "only the samples' size is open": (SIZE + 36, 2**32 - 1),
    "only the samples' size is 0": (SIZE + 36, 0),
    "the largest, and 0": (2**32 - 1, 0),
}


def write_sizes(path, whole, samples, content=PCM):
    """Writes a wav with other sizes in its header."""
    bytes_of = write(path, content, subtype="PCM_16").read_bytes()
    assert bytes_of[36:40] == b"data"
    whole, samples = (size.to_bytes(4, "little") for size in (whole, samples))
    path.write_bytes(bytes_of[:4] + whole + bytes_of[8:40] + samples + bytes_of[44:])
    return path


@pytest.mark.parametrize("recorder", OPEN)
def test_a_wav_without_a_length_is_read_to_its_end_and_remarked_on(tmp_path, recorder):
    path = write_sizes(tmp_path / "a.wav", *OPEN[recorder])
    content = path.read_bytes()
    samples, rate = audio.read(path, 0)
    np.testing.assert_array_equal(samples, PCM.astype(np.float32) / 32768)
    assert rate == 48_000
    assert remarked(path, 8000) == [["no length"]]
    assert path.read_bytes() == content
    ((seconds, *_),) = audio.windows(path, 0, Windowing(0.1))
    assert seconds == 0.1


def test_a_wav_with_its_length_is_not_remarked_on(tmp_path):
    assert remarked(write(tmp_path / "a.wav", PCM, subtype="PCM_16"), 8000) == []
    assert remarked(write(tmp_path / "a.flac", PCM, 16_000, "PCM_16"), 8000) == []
    # The size of the file is unknown, and that of the samples is not.
    path = write_sizes(tmp_path / "b.wav", 2**32 - 1, SIZE)
    assert (len(audio.read(path, 0)[0]), remarked(path, 8000)) == (len(PCM), [])


@pytest.mark.parametrize(
    ("whole", "samples"), [(SIZE + 36, SIZE), (0, SIZE), (2**32 - 1, SIZE), (10**9, SIZE)]
)
def test_a_wav_that_is_shorter_than_its_length_is_cut_short(tmp_path, whole, samples):
    path = write_sizes(tmp_path / "a.wav", whole, samples)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="cut short"):
        audio.read(path, 0)


def test_a_wav_without_samples_is_empty_whatever_follows(tmp_path):
    path = write(tmp_path / "a.wav", np.zeros(0), subtype="PCM_16")
    content = path.read_bytes() + b"LIST\4\0\0\0INFO"
    path.write_bytes(content[:4] + (len(content) - 8).to_bytes(4, "little") + content[8:])
    with pytest.raises(ValueError, match="empty"):
        audio.read(path, 0)


# What is odd.


def remarked(path, rate=16_000):
    """A word of each remark."""
    words = ("telephone", "of 8000 Hz", "channels", "no length", "silence")
    return [[word for word in words if word in remark] for remark in audio.remarks(path, rate)]


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT", "ULAW"])
def test_recordings_of_the_band_of_a_telephone_are_remarked_on(tmp_path, subtype):
    wide = noise(2, 16_000)
    narrow = soxr.resample(wide, 16_000, 8000)
    for name, samples, rate in (
        ("wide", wide, 16_000),
        ("at 8 kHz", narrow, 8000),
        ("at 16 kHz", soxr.resample(narrow, 8000, 16_000), 16_000),
        ("at 48 kHz", soxr.resample(narrow, 8000, 48_000), 48_000),
    ):
        path = write(tmp_path / f"{name}.wav", samples, rate, subtype)
        if subtype == "ULAW" and rate > 8000:  # whose noise is white
            continue
        expected = {"wide": [], "at 8 kHz": [["of 8000 Hz"]]}.get(name, [["telephone"]])
        assert remarked(path) == expected, name
        assert remarked(path, 8000) == []
    assert remarked(tmp_path / "at 8 kHz.wav", 0) == []


def test_channels_that_differ_are_remarked_on(tmp_path):
    one, other = noise(1, 16_000), noise(2, 16_000)[16_000:]
    for name, second, expected in (
        ("same", one, []),
        ("near", 0.5 * one + 0.1 * other, []),
        ("other", other, [["channels"]]),
        ("silent", 0 * one, []),
        ("opposite", -0.5 * one, [["channels"]]),
    ):
        samples = np.concatenate([one, second], axis=1)
        path = write(tmp_path / f"{name}.wav", samples, 16_000)
        assert remarked(path) == expected, name


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [(2.0, 0.1, [["silence"]]), (0.1, 2.0, [["silence"]]), (1.0, 1.0, [])],
)
def test_long_silence_is_remarked_on_unless_it_is_cut_off(tmp_path, before, after, expected):
    samples = padded(before, 0.5, after) + 1e-4 * noise(before + 0.5 + after, 16_000)[:, 0]
    path = write(tmp_path / "a.wav", samples, 16_000)
    assert remarked(path, 8000) == expected
    assert audio.remarks(path, 8000, trim=30.0) == []


def test_a_recording_may_be_remarked_on_twice(tmp_path):
    samples = (10_000 * noise(1, 8000)[:, 0]).astype(np.int16)
    path = write(tmp_path / "a.wav", samples, 8000, "PCM_16")
    content = path.read_bytes()
    path.write_bytes(content[:40] + bytes(4) + content[44:])
    assert remarked(path) == [["no length"], ["of 8000 Hz"]]


# Silence before and after speech.


def padded(before, speech, after, rate=16_000):
    """A tone of -9 dB between noise of -70 dB, float32 [n]."""
    tone = 0.5 * np.sin(np.arange(int(speech * rate)) * 0.17)
    quiet = 3e-4 * np.random.default_rng(0).normal(0, 1, int((before + after) * rate))
    start = int(before * rate)
    return np.concatenate([quiet[:start], tone, quiet[start:]]).astype(np.float32)


@pytest.mark.parametrize(
    ("before", "speech", "after", "found"),
    [
        (1.0, 0.5, 2.0, (0.9, 1.6)),
        (0.05, 0.5, 0.05, (0.0, 0.6)),
        (0.0, 0.5, 0.0, (0.0, 0.5)),
        (0.0, 0.01, 0.0, (0.0, 0.01)),
    ],
)
@pytest.mark.parametrize("block", [16_000 * 9, 777, 1])
def test_speech_is_found_with_a_margin(before, speech, after, found, block):
    samples = padded(before, speech, after)
    blocks = [samples[start : start + block] for start in range(0, len(samples), block)]
    first, stop = audio.find_speech(iter(blocks), 16_000, 40.0)
    np.testing.assert_allclose((first / 16_000, stop / 16_000), found, atol=audio.TRIM_FRAME)
    assert audio.find_speech(iter(blocks), 16_000, 0.0) == (0, len(samples))
    assert audio.find_speech(iter(blocks), 16_000, 100.0) == (0, len(samples))


def test_windows_of_trimmed_recordings_start_with_the_speech(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "BLOCK", 3000)
    path = write(tmp_path / "a.wav", padded(1.0, 1.0, 2.0, 44_100), 44_100)
    samples, rate = audio.read(path, 16_000)
    first, stop = audio.find_speech([samples], rate, 40.0)
    assert (first, stop) != (0, len(samples))
    windowing = Windowing(0.5, 0.25, to_end=True)
    expected = windowing.split(samples[first:stop], rate)
    found = zip(audio.windows(path, rate, windowing, 40.0), expected, strict=True)
    for number, ((seconds, start, _, part), wanted) in enumerate(found):
        assert seconds == pytest.approx(4.0)
        assert start == pytest.approx(first / rate + 0.25 * number)
        np.testing.assert_array_equal(part, wanted)


# Parts of recordings.


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.l16"])
def test_a_part_is_cut_before_it_is_resampled(tmp_path, monkeypatch, name):
    monkeypatch.setattr(audio, "BLOCK", 3000)
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


# Formats of ffmpeg.


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A function that puts a program called ffmpeg on the PATH, and nothing else."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def install(program):
        (folder / "ffmpeg").write_text(f"#!{sys.executable}\n{program}")
        (folder / "ffmpeg").chmod(0o755)

    return install


# It answers with the samples in a file, and leaves its arguments and its process there.
ANSWER = """
import os, pathlib, sys
folder = pathlib.Path(__file__).parent
(folder / "arguments").write_text("\\n".join(sys.argv))
(folder / "process").write_text(str(os.getpid()))
sys.stdout.buffer.write((folder / "a.au").read_bytes())
"""


@pytest.mark.parametrize("name", ["a.m4a", "a.MP4", "a.webm", "a.wma", "a.amr", "a.aac"])
@pytest.mark.parametrize("channels", [1, 2])
def test_formats_of_ffmpeg_are_what_it_answers(tmp_path, stand_in, name, channels):
    stand_in(ANSWER)
    path, rate = tmp_path / name, 44_100
    path.write_bytes(b"of a format that only ffmpeg knows")
    answer = write(tmp_path / "programs/a.au", noise(0.5, rate, channels), rate)
    np.testing.assert_allclose(audio.read(path, 0)[0], audio.read(answer, 0)[0], atol=1e-7)
    arguments = (tmp_path / "programs/arguments").read_text().split("\n")
    assert arguments[arguments.index("-i") + 1] == f"file:{path}"
    part, whole = Source(path, 0.1, 0.3), Source(answer, 0.1, 0.3)
    np.testing.assert_allclose(audio.read(part, 16_000)[0], audio.read(whole, 16_000)[0], atol=1e-6)
    windows = list(audio.windows(path, 16_000, Windowing(0.2)))
    expected = list(audio.windows(answer, 16_000, Windowing(0.2)))
    assert [window[:3] for window in windows] == [window[:3] for window in expected]
    with pytest.raises(ValueError, match=r"0\.4 to 0\.6 s cannot be read"):
        audio.read(Source(path, 0.4, 0.6), 0)


def test_a_format_of_ffmpeg_under_another_name_is_known_by_its_beginning(tmp_path, stand_in):
    stand_in(ANSWER)
    write(tmp_path / "programs/a.au", noise(0.1, 16_000), 16_000)
    for index, beginning in enumerate((b"\0\0\0\x18ftypM4A ", b"\x1aE\xdf\xa3", b"#!AMR\n")):
        path = tmp_path / f"{index}.wav"
        path.write_bytes(beginning + bytes(100))
        assert len(audio.read(path, 0)[0]) == 1600


def test_without_ffmpeg_its_formats_are_refused_with_advice(tmp_path, stand_in):
    (tmp_path / "a.m4a").write_bytes(b"of a format that only ffmpeg knows")
    with pytest.raises(ValueError, match=r"a\.m4a needs ffmpeg .*install"):
        audio.read(tmp_path / "a.m4a", 0)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import sys; sys.exit('[mov @ 0x1] moov atom not found\\nmore')", "moov atom not found$"),
        ("import sys; sys.exit(3)", "exit status 3$"),
        ("", "has no sound"),
        (f"{ANSWER}\nsys.exit('[aac] partial file')", "partial file$"),
        (f"{ANSWER}\nprint('[aac] partial file', file=sys.stderr)", "partial file$"),
        ("import time; time.sleep(60)", "was ended after"),
        (f"{ANSWER}\nimport time; sys.stdout.close(); time.sleep(60)", "was ended after"),
        ("import sys; sys.stdout.buffer.write(b'.snd' + bytes(40))", "unknown encoding"),
    ],
)
def test_what_ffmpeg_says_is_the_reason(tmp_path, stand_in, monkeypatch, program, reason):
    monkeypatch.setattr(audio, "STALLED", 2.0)
    stand_in(program)
    write(tmp_path / "programs/a.au", noise(0.1, 16_000), 16_000)
    (tmp_path / "a.m4a").write_bytes(b"of a format that only ffmpeg knows")
    with pytest.raises(ValueError, match=rf"a\.m4a .*{reason}"):
        audio.read(tmp_path / "a.m4a", 0)


def test_ffmpeg_is_ended_with_the_reading(tmp_path, stand_in, monkeypatch):
    monkeypatch.setattr(audio, "LONGEST", 1.0)
    stand_in(f"{ANSWER}\nwhile True: sys.stdout.buffer.write(bytes(9999))")
    write(tmp_path / "programs/a.au", noise(0.1, 16_000), 16_000)
    (tmp_path / "a.m4a").write_bytes(b"of a format that only ffmpeg knows")
    with pytest.raises(ValueError, match="too long"):
        audio.read(tmp_path / "a.m4a", 0)
    process = int((tmp_path / "programs/process").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not on the PATH")
@pytest.mark.parametrize("name", ["a.m4a", "a.mp4", "a.aac", "a.wma", "a.webm", "a.mka"])
def test_real_files_of_ffmpeg_are_read(tmp_path, name):
    tone = write(tmp_path / "tone.wav", np.tile(TONE, 10))
    path = tmp_path / f"-it's {name}"
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-i",
        f"file:{tone}",
        *("-c:a", "libopus")[: 2 * (name == "a.webm")],
    ]
    subprocess.run([*command, f"file:{path}"], check=True)
    samples, rate = audio.read(path, 16_000)
    assert (rate, samples.dtype) == (16_000, np.float32)
    assert len(samples) / rate == pytest.approx(1.0, abs=0.1)
    spectrum = np.abs(np.fft.rfft(samples[4000:12_000]))
    assert spectrum.argmax() * 2 == 440
    path.write_bytes(path.read_bytes()[:-1500])
    with pytest.raises(ValueError, match="cannot be decoded by ffmpeg"):
        audio.read(path, 16_000)


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
