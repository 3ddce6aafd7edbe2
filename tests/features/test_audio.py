"""Reading recordings: what comes out, and what is refused with which words."""

import tracemalloc

import numpy as np
import pytest
import soundfile

from ds_jax.features import audio, windows
from ds_jax.features.spectrogram import PictureSettings, split_windows

TONE = (0.5 * np.sin(2 * np.pi * 440 * np.arange(4800) / 48_000)).astype(np.float32)


def write(path, samples, rate, subtype="FLOAT"):
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


@pytest.mark.parametrize("name", ["a.l16", "a.raw", "A.L16"])
def test_headerless_files_are_little_endian_16_bit_at_16_khz(tmp_path, name):
    values = np.array([0, 1, -1, 256, 32767, -32768])
    (tmp_path / name).write_bytes(
        b"".join(int(v).to_bytes(2, "little", signed=True) for v in values)
    )
    samples, rate = audio.read(tmp_path / name, 0)
    assert rate == 16_000
    assert samples.dtype == np.float32
    np.testing.assert_array_equal(samples, values / 32768)


def test_headerless_and_wav_of_the_same_samples_are_equal(tmp_path):
    values = np.arange(-3000, 3000, dtype=np.int16)
    (tmp_path / "a.l16").write_bytes(values.astype("<i2").tobytes())
    write(tmp_path / "a.wav", values, 16_000, "PCM_16")
    for ours, theirs in zip(
        audio.read(tmp_path / "a.l16", 8000), audio.read(tmp_path / "a.wav", 8000), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_channels_are_averaged(tmp_path):
    stereo = np.stack([TONE, 0.5 * TONE], axis=1)
    samples, rate = audio.read(write(tmp_path / "a.wav", stereo, 48_000), 0)
    assert rate == 48_000
    np.testing.assert_allclose(samples, 0.75 * TONE, atol=1e-7)


@pytest.mark.parametrize("block", [1, 7, 1600, 4799, 4800, 4801])
def test_blocks_do_not_show(tmp_path, monkeypatch, block):
    channels = np.random.default_rng(0).normal(0, 0.1, (4800, 3)).astype(np.float32)
    monkeypatch.setattr(audio, "BLOCK", block)
    samples, _ = audio.read(write(tmp_path / "a.wav", channels, 48_000), 0)
    np.testing.assert_array_equal(samples, channels.mean(axis=1))


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_U8", "FLOAT", "ULAW"])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_samples_are_those_of_libsndfile(tmp_path, subtype, channels):
    noise = np.random.default_rng(0).uniform(-1, 1, (1600, channels))
    path = write(tmp_path / "a.wav", noise, 16_000, subtype)
    expected, _ = soundfile.read(path, dtype="float32", always_2d=True)
    np.testing.assert_array_equal(audio.read(path, 0)[0], expected.mean(axis=1))


def test_resampling_keeps_duration_pitch_and_level(tmp_path):
    samples, rate = audio.read(write(tmp_path / "a.wav", TONE, 48_000), 16_000)
    assert (rate, samples.dtype, len(samples)) == (16_000, np.float32, 1600)
    inner = slice(200, -200)  # the filter rings at the ends
    np.testing.assert_allclose(samples[inner], TONE[::3][inner], atol=1e-3)


def test_resampling_removes_what_would_fold_back(tmp_path):
    high = np.sin(2 * np.pi * 15_000 * np.arange(48_000) / 48_000)
    samples, _ = audio.read(write(tmp_path / "a.wav", high, 48_000), 16_000)
    assert np.abs(samples[500:-500]).max() < 1e-3


def test_flac_gives_the_samples_of_wav(tmp_path):
    values = (20_000 * TONE).astype(np.int16)
    ours, _ = audio.read(write(tmp_path / "a.flac", values, 48_000, "PCM_16"), 0)
    theirs, _ = audio.read(write(tmp_path / "a.wav", values, 48_000, "PCM_16"), 0)
    np.testing.assert_array_equal(ours, theirs)


def broken_files(folder):
    """Writes recordings that cannot be used; yields each with the word that says why."""
    write(folder / "whole.flac", np.random.default_rng(0).normal(0, 0.1, 16_000), 16_000, "PCM_16")
    whole = (folder / "whole.flac").read_bytes()
    wav = write(folder / "whole.wav", TONE, 48_000).read_bytes()
    contents = {
        "nothing.wav": (b"", "empty"),
        "nothing.l16": (b"", "empty"),
        "text.wav": (b"This is not audio.\n" * 20, "decoded"),
        "half.flac": (whole[: len(whole) // 2], "decoded"),
        "half.wav": (wav[: len(wav) // 2], "cut short: it has"),
        "odd.l16": (b"\0\1\2", "damaged"),
    }
    for name, (content, reason) in contents.items():
        (folder / name).write_bytes(content)
        yield folder / name, reason
    signals = {
        "empty.wav": (np.zeros(0), "empty"),
        "nan.wav": (np.where(np.arange(4800) == 7, np.nan, TONE), "finite"),
        "infinite.wav": (np.where(np.arange(4800) == 7, np.inf, TONE), "finite"),
        "zeros.wav": (np.zeros(4800), "silent"),
        "constant.wav": (np.full(4800, 0.25), "silent"),
        "hiss.wav": (1e-5 * TONE, "silent"),
        "opposite.wav": (np.stack([TONE, -TONE], axis=1), "silent"),
    }
    for name, (signal, reason) in signals.items():
        yield write(folder / name, signal, 48_000), reason


def test_what_cannot_be_used_is_refused_by_name_with_the_reason(tmp_path):
    for path, reason in broken_files(tmp_path):
        with pytest.raises(ValueError, match=reason) as refusal:
            audio.read(path, 16_000)
        assert str(path) in str(refusal.value)


def test_a_wav_whose_recorder_left_the_size_open_is_read(tmp_path):
    path = write(tmp_path / "a.wav", TONE, 48_000)
    content = path.read_bytes()
    path.write_bytes(content[:4] + b"\xff\xff\xff\xff" + content[8:])
    assert len(audio.read(path, 0)[0]) == len(TONE)


def test_quiet_speech_is_not_silence(tmp_path):
    samples, _ = audio.read(write(tmp_path / "a.wav", 1e-3 * TONE, 48_000), 0)
    assert len(samples) == len(TONE)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.wav"):
        audio.read(tmp_path / "none.wav", 0)


PIPED = {
    "ffmpeg": (2**32 - 1, 2**32 - 1),
    "arecord": (2**31 + 36, 2**31),
    "sox": (0x7FFFF024, None),
}


@pytest.mark.parametrize("recorder", PIPED)
def test_a_wav_from_a_pipe_is_read(tmp_path, recorder):
    path = write(tmp_path / "a.wav", (20_000 * TONE).astype(np.int16), 48_000, "PCM_16")
    content, (riff, data) = path.read_bytes(), PIPED[recorder]
    data = riff - 36 if data is None else data
    assert content[36:40] == b"data"
    sizes = [size.to_bytes(4, "little") for size in (riff, data)]
    path.write_bytes(content[:4] + sizes[0] + content[8:40] + sizes[1] + content[44:])
    assert len(audio.read(path, 0)[0]) == len(TONE)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(audio, "BLOCK", 1000)


def noise(seconds, rate, channels=1):
    shape = (int(seconds * rate), channels)
    return np.random.default_rng(0).normal(0, 0.1, shape).astype(np.float32)


def test_blocks_leave_a_recording_as_it_is(tmp_path, monkeypatch):
    path = write(tmp_path / "a.wav", noise(1.3, 44_100, 2), 44_100)
    whole = audio.read(path, 16_000)[0]
    monkeypatch.setattr(audio, "BLOCK", 777)
    np.testing.assert_array_equal(audio.read(path, 16_000)[0], whole)


LENGTHS = (0.1, 0.4, 0.99, 1.0, 1.7, 2.53)
WINDOWS = ((1.0, 0.0), (0.5, 0.2), (0.2, 0.5), (0.3, 0.3), (0.0001, 0.1))


@pytest.mark.parametrize(("window", "hop"), WINDOWS)
@pytest.mark.parametrize(("own", "wanted"), [(16_000, 16_000), (44_100, 16_000), (22_050, 0)])
def test_windows_are_those_that_training_cuts(tmp_path, small_blocks, own, wanted, window, hop):
    settings = PictureSettings(window=window, window_hop=hop)
    for seconds in LENGTHS:
        path = write(tmp_path / "a.wav", noise(seconds, own, 2), own)
        samples, rate = audio.read(path, wanted)
        expected = split_windows(samples, rate, settings)
        found = list(audio.windows(path, wanted, window, hop))
        assert len(found) == len(expected)
        step = int((hop or window) * rate)
        for number, ((whole, start, at_rate, own_samples), other) in enumerate(
            zip(found, expected, strict=True)
        ):
            assert whole == soundfile.info(path).duration
            assert (start, at_rate) == (pytest.approx(number * step / rate), rate)
            assert own_samples.dtype == np.float32
            np.testing.assert_array_equal(own_samples, other)


@pytest.mark.parametrize(("window", "hop"), WINDOWS)
@pytest.mark.parametrize(("own", "wanted"), [(16_000, 16_000), (44_100, 16_000)])
def test_windows_to_the_end_are_those_and_what_remains(
    tmp_path, small_blocks, own, wanted, window, hop
):
    for seconds in LENGTHS:
        path = write(tmp_path / "a.wav", noise(seconds, own, 2), own)
        samples, rate = audio.read(path, wanted)
        usual = list(audio.windows(path, wanted, window, hop))
        found = list(audio.windows(path, wanted, window, hop, to_end=True))
        length, step = windows.in_samples(window, hop, rate)
        heard = np.zeros(len(samples), bool)
        for number, (_, start, _, own_samples) in enumerate(found):
            first = number * step
            assert start == pytest.approx(first / rate)
            np.testing.assert_array_equal(own_samples, samples[first : first + length])
            assert own_samples.size
            heard[first : first + length] = True
        assert len(found) - len(usual) in (0, 1)
        if step <= length:
            assert heard.all()


def test_what_cannot_be_used_is_refused_before_its_first_window(tmp_path, small_blocks):
    for path, reason in broken_files(tmp_path):
        with pytest.raises(ValueError, match=reason) as refusal:
            next(audio.windows(path, 16_000, 0.01, 0))
        assert str(path) in str(refusal.value)
    late = np.concatenate([noise(1, 16_000), np.full((9, 1), np.nan, np.float32)])
    with pytest.raises(ValueError, match="finite"):
        next(audio.windows(write(tmp_path / "late.wav", late, 16_000), 16_000, 0.1, 0))
    with pytest.raises(FileNotFoundError, match="none"):
        next(audio.windows(tmp_path / "none.wav", 16_000, 1, 0))


def test_windows_of_a_long_recording_need_the_memory_of_a_few(tmp_path):
    path = tmp_path / "long.wav"
    with soundfile.SoundFile(path, "w", 48_000, 2, "PCM_16") as file:
        for _ in range(60):
            file.write(noise(1, 48_000, 2))  # 23 MB as float32
    tracemalloc.start()
    count = sum(1 for _ in audio.windows(path, 16_000, 2.0, 1.0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 60
    assert peak < 8e6
