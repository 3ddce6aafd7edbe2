"""Pictures that stay on the disk equal those in memory."""

import numpy as np
import soundfile

from datasets import prepare
from ds_jax.data import corpus
from ds_jax.data.corpus import StoredPictures
from ds_jax.features import audio, spectrogram
from ds_jax.features.spectrogram import PictureSettings


def noise(folder, recordings):
    """A corpus of noise, each recording of so many seconds."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    lines = ["path,label,speaker"]
    for name, seconds in recordings:
        soundfile.write(folder / name, 0.1 * rng.standard_normal(int(8000 * seconds)), 8000)
        lines.append(f"{name},FEAR,{name[0]}")
    (folder / "manifest.csv").write_text("\n".join(lines))


def test_timelines_are_stored_as_wide_as_they_are_and_padded_in_memory(tmp_path, monkeypatch):
    recordings = (("b.wav", 3.5), ("a.wav", 2.0), ("c.wav", 1.0))
    noise(tmp_path / "corpora" / "mine", recordings)
    settings = PictureSettings(sample_rate=8000, layout="timeline", mel_bands=32)
    builder = prepare.prepare("mine", tmp_path / "corpora", tmp_path / "data", settings)
    found = corpus.load(builder, "mine")
    expected = []
    for name in ("a.wav", "b.wav", "c.wav"):
        samples, rate = audio.read(tmp_path / "corpora" / "mine" / name, 8000)
        expected.append(spectrogram.draw(samples, rate, settings))
    widths = [picture.shape[1] for picture in expected]
    assert len(set(widths)) == 3
    assert found.inputs.shape == (3, 32, max(widths))
    assert spectrogram.widths(found.inputs).tolist() == widths
    for row, picture in zip(found.inputs, expected, strict=True):
        np.testing.assert_array_equal(spectrogram.trim(row), picture)
    monkeypatch.setattr(corpus, "HOST_SHARE", 0)
    stored = corpus.load(builder, "mine").inputs
    assert isinstance(stored, StoredPictures)
    assert stored.shape == found.inputs.shape
    np.testing.assert_array_equal(stored[np.asarray([2, 0])], found.inputs[[2, 0]])
    assert spectrogram.widths(stored).tolist() == widths


def test_pictures_that_are_too_many_for_memory_are_read_when_indexed(tmp_path, monkeypatch):
    noise(tmp_path / "corpora" / "mine", (("b.wav", 3.5), ("a.wav", 2.0), ("c.wav", 1.0)))
    settings = PictureSettings(sample_rate=8000, window=1.0, canvas=32)
    builder = prepare.prepare("mine", tmp_path / "corpora", tmp_path / "data", settings)
    expected = corpus.load(builder, "mine")
    assert isinstance(expected.inputs, np.ndarray)
    assert len(np.unique(expected.inputs, axis=0)) == len(expected.inputs) == 6  # no two alike
    monkeypatch.setattr(corpus, "HOST_SHARE", 0)
    found = corpus.load(builder, "mine")
    assert isinstance(found.inputs, StoredPictures)
    assert found.inputs.shape == expected.inputs.shape
    assert found.utterances == expected.utterances
    np.testing.assert_array_equal(found.owners, expected.owners)
    np.testing.assert_array_equal(found.inputs[:], expected.inputs)
    rows = np.asarray([[4, 1], [1, 5]])
    np.testing.assert_array_equal(found.inputs[rows], expected.inputs[rows])
