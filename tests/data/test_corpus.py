"""Pictures that stay on the disk equal those in memory."""

import numpy as np
import soundfile

from datasets import prepare
from ds_jax.data import corpus
from ds_jax.data.corpus import StoredPictures
from ds_jax.features.spectrogram import PictureSettings


def test_pictures_that_are_too_many_for_memory_are_read_when_indexed(tmp_path, monkeypatch):
    folder, rng = tmp_path / "corpora" / "mine", np.random.default_rng(0)
    folder.mkdir(parents=True)
    lines = ["path,label,speaker"]
    for name, seconds in (("b.wav", 3.5), ("a.wav", 2.0), ("c.wav", 1.0)):
        soundfile.write(folder / name, 0.1 * rng.standard_normal(int(8000 * seconds)), 8000)
        lines.append(f"{name},FEAR,{name[0]}")
    (folder / "manifest.csv").write_text("\n".join(lines))
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
