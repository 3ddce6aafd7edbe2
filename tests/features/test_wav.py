"""A .wav is read to its end where its header is open, and refused where it is cut short."""

import numpy as np
import pytest
from signals import PCM, write, write_sizes

from ds_jax.features import audio, wav
from ds_jax.features.audio import Windowing

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


@pytest.mark.parametrize("recorder", OPEN)
def test_a_wav_without_a_length_is_read_to_its_end(tmp_path, recorder):
    path = write_sizes(tmp_path / "a.wav", *OPEN[recorder])
    content = path.read_bytes()
    samples, rate = audio.read(path, 0)
    np.testing.assert_array_equal(samples, PCM.astype(np.float32) / 32768)
    assert rate == 48_000
    assert wav.read_header(path).is_open
    assert path.read_bytes() == content
    ((seconds, *_),) = audio.windows(path, 0, Windowing(0.1))
    assert seconds == 0.1


def test_a_wav_without_a_length_may_have_an_odd_size(tmp_path):
    path = write(tmp_path / "a.wav", PCM[:-1], subtype="PCM_24")
    content = path.read_bytes()[: 44 + 3 * (len(PCM) - 1)]
    path.write_bytes(content[:4] + b"\xff" * 4 + content[8:40] + b"\xff" * 4 + content[44:])
    assert path.stat().st_size % 2
    samples, _ = audio.read(path, 0)
    expected = PCM.astype(np.float32)[: len(samples)] / 32768
    assert len(PCM) - len(samples) <= 2  # the last one may be lost
    np.testing.assert_allclose(samples, expected, atol=1e-4)


def test_a_wav_with_its_length_is_not_open(tmp_path):
    for name in ("a.wav", "a.flac"):
        path = write(tmp_path / name, PCM, 16_000, "PCM_16")
        assert not wav.read_header(path).is_open
    # The size of the file is unknown, and that of the samples is not.
    path = write_sizes(tmp_path / "b.wav", 2**32 - 1, SIZE)
    assert (len(audio.read(path, 0)[0]), wav.read_header(path).is_open) == (len(PCM), False)


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
