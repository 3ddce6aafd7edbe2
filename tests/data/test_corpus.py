"""A prepared corpus in memory: labels become classes, and pictures may stay on the disk."""

import dataclasses
import functools

import numpy as np
import pytest
import tiny
from recordings import sound

from configs import base
from datasets import prepare
from ds_jax.data import corpus
from ds_jax.data.corpus import StoredPictures, keep_last
from ds_jax.data.extension import with_variants
from ds_jax.data.labels import LABELS
from ds_jax.features import audio, spectrogram
from ds_jax.features.spectrogram import PictureSettings


@pytest.fixture(scope="module")
def prepare_labels(tmp_path_factory):
    """A function that prepares a corpus of one utterance for each label that it is given."""

    def prepared(*labels):
        folder = tmp_path_factory.mktemp("labels")
        lines = ["path,label,speaker"]
        for number, label in enumerate(labels):
            sound(folder / "corpora" / "mine" / f"{number}.wav", number, 1.0, 8000)
            lines.append(f"{number}.wav,{label},s{number}")
        (folder / "corpora" / "mine" / "manifest.csv").write_text("\n".join(lines), "utf-8")
        settings = PictureSettings(sample_rate=8000, canvas=16)
        return prepare.prepare("mine", folder / "corpora", folder / "data", settings)

    return prepared


def test_labels_of_four_languages_stand_for_the_seven(prepare_labels):
    builder = prepare_labels("Alegría", "ira", "Ekel", "paura", "NEUTRAL", "sad", "surprised")
    found = corpus.load(builder, "mine")
    labels = [utterance.label for utterance in found.utterances]
    assert labels == ["JOY", "ANGER", "DISGUST", "FEAR", "NEUTRAL", "SADNESS", "SURPRISE"]
    assert found.labels.tolist() == [3, 0, 1, 2, 4, 5, 6]


def test_the_classes_of_a_run_may_be_any(prepare_labels, capsys):
    builder = prepare_labels("3", "calm", "bored", "Joy", "7")
    found = corpus.load(
        builder, "mine", ("bored", "glad"), ("3=glad", "calm=", "joy=glad", "7="), True
    )
    assert [utterance.label for utterance in found.utterances] == ["glad", "bored", "glad"]
    assert (found.classes, found.labels.tolist()) == (("bored", "glad"), [1, 0, 1])
    assert found.left_out == {"1.wav": "calm", "4.wav": "7"}
    assert "calm (1)" in capsys.readouterr().out
    assert len(found.inputs) == 3


def test_the_users_own_labels_are_never_left_out_unasked(prepare_labels):
    builder = prepare_labels("joy", "hapy", "calm", "hapy")
    with pytest.raises(ValueError, match=r"mine has .*: calm \(1\), hapy \(2\)"):
        corpus.load(builder, "mine")
    tested = corpus.load(builder, "mine", LABELS, (), trains=False)
    assert tested.left_out == {"1.wav": "hapy", "2.wav": "calm", "3.wav": "hapy"}
    with pytest.raises(ValueError, match="mine has"):
        corpus.load(builder, "mine", ("x", "y"), (), trains=False)


def test_a_map_that_was_made_for_another_corpus_is_told(prepare_labels, capsys):
    builder = prepare_labels("3", "calm", "joy", "3")
    load = functools.partial(corpus.load, builder, "mine", LABELS, ("3=JOY", "calm=", "4=FEAR"))
    load()
    assert "3=JOY" not in capsys.readouterr().out
    load(trains=False)
    assert "mine: config.label_map holds for this corpus too: 3=JOY (2), calm= (1)" in (
        capsys.readouterr().out
    )


def test_a_published_label_that_is_no_class_is_left_out(prepare_labels, monkeypatch):
    builder = prepare_labels("joy", "boredom")
    monkeypatch.setattr(type(builder), "own_labels", False)
    assert corpus.load(builder, "mine").left_out == {"1.wav": "boredom"}
    both = corpus.load(builder, "mine", ("JOY", "BOREDOM"), (), trains=True)
    assert [utterance.label for utterance in both.utterances] == ["JOY", "BOREDOM"]


def noise(folder, recordings):
    """A corpus of noise, each recording of so many seconds."""
    lines = ["path,label,speaker"]
    for seed, (name, seconds) in enumerate(recordings):
        sound(folder / name, seed, seconds, 8000)
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
        np.testing.assert_array_equal(spectrogram.unpadded(row), picture)
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


@pytest.mark.parametrize("stored", [False, True])
def test_rows_of_variants_follow_those_of_the_recordings(stored):
    recorded = tiny.timelines(tiny.corpus(5, windows=2))
    varied = tiny.timelines(tiny.corpus(4, seed=1))  # one has no usable variant
    if stored:
        inputs, shape = varied.inputs, varied.inputs.shape[1:]
        pictures = StoredPictures(inputs.__getitem__, np.arange(len(inputs)), shape)
        varied = dataclasses.replace(varied, inputs=pictures)
    both = with_variants(recorded, [varied, varied])
    assert (len(both.inputs), both.extra) == (18, 8)
    assert both.rows_of(["u01", "u04"]).tolist() == [2, 3, 8, 9]
    assert both.training_rows(["u01", "u04"]).tolist() == [2, 3, 8, 9, 11, 15]
    np.testing.assert_array_equal(both.labels[10:14], varied.labels)
    for row, source in ((9, recorded.inputs[9]), (11, varied.inputs[1]), (17, varied.inputs[3])):
        width = source.shape[1]
        np.testing.assert_array_equal(both.inputs[row][:, :width], source)
        assert not both.inputs[row][:, width:].any()


def test_another_reading_is_another_corpus():
    loaded = []
    load = keep_last(lambda config, name: loaded.append(name) or name)
    config = base.get_config()
    config.corpus = "emodb"
    changes = {"trim": 50.0}, {"variants": ("speed=0.9",)}, {"auxiliary": ("emovo=1",)}
    for change in ({}, {}, *changes, {"folds.seed": 2}, {"train.epochs": 3}):
        config.update_from_flattened_dict(change)
        load(config, "emodb")
    assert len(loaded) == 4
    load(config, "emovo")
    config.update_from_flattened_dict({"variants": (), "folds.seed": 3})
    load(config, "emovo")  # of which no run is trained
    config.corpus, config.auxiliary = "emovo", ()
    load(config, "emovo")  # of which nothing else is wanted in training
    assert loaded == ["emodb"] * 4 + ["emovo"]
