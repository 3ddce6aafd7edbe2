"""Preparing writes what is drawn or computed of recordings, once, and finds it again."""

import csv
import dataclasses
import functools
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import filelock
import numpy as np
import pytest
import soundfile
import tiny
from recordings import RATE, SMALL, sound, sounds

from datasets import base, synthetic
from datasets.emodb.emodb_dataset_builder import Builder as EmoDb
from datasets.prepare import KNOWN, Corpora, full_name, prepare
from ds_jax.data.corpus import load
from ds_jax.data.labels import LABELS
from ds_jax.features import audio, extract, spectrogram
from ds_jax.features.extract import FeatureSettings
from ds_jax.features.spectrogram import PictureSettings

MFCC = FeatureSettings("mfcc")


def test_prepared_records_are_the_drawn_recordings(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(base, "SHARD", 2)
    labels = {"03a01Fa": "JOY", "03a02Wa": "ANGER", "08a01Nb": "NEUTRAL", "10b02Ac": "FEAR"}
    for seed, name in enumerate(reversed(labels)):
        sound(tmp_path / f"emodb/wav/{name}.wav", seed, 0.2 + 0.1 * seed, 48_000, channels=2)
    builder = prepare("emodb", tmp_path, tmp_path / "data", SMALL)
    assert builder.info.splits["full"].num_examples == 4
    assert capsys.readouterr().out.endswith("\nemodb: 4 utterances\n")
    corpus = load(builder, "emodb")
    assert (corpus.title, corpus.licence) == (EmoDb.title, EmoDb.licence)
    assert {u.name: u.label for u in corpus.utterances} == labels
    assert [u.gender for u in corpus.utterances] == ["male", "male", "female", "male"]
    seconds = [utterance.seconds for utterance in corpus.utterances]
    np.testing.assert_allclose(seconds, [0.5, 0.4, 0.3, 0.2], atol=1e-6)
    for name, pixels in zip(labels, corpus.inputs, strict=True):
        samples, rate = audio.read(tmp_path / f"emodb/wav/{name}.wav", 16_000)
        np.testing.assert_array_equal(pixels, spectrogram.draw(samples, rate, SMALL))


@pytest.mark.parametrize("name", ["mfcc", "mfcc_frames"])
def test_prepared_records_are_the_computed_features(tmp_path, name):
    settings, names = FeatureSettings(name), ("03a01Fa", "03a01Wa")
    for number, utterance in enumerate(names):
        sound(tmp_path / f"emodb/{utterance}.wav", number, 0.2 + 0.1 * number)
    corpus = load(prepare("emodb", tmp_path, tmp_path / "data", settings), "emodb")
    assert tuple(utterance.name for utterance in corpus.utterances) == names
    assert corpus.inputs.dtype == np.float32
    for row, utterance in zip(corpus.inputs, names, strict=True):
        samples, _ = audio.read(tmp_path / f"emodb/{utterance}.wav", 16_000)
        expected = extract.compute(samples, settings)
        np.testing.assert_array_equal(row[: len(expected)], expected)
        assert np.isnan(row[len(expected) :]).all()


def test_windows_are_numbered_examples_of_one_utterance(tmp_path):
    sound(tmp_path / "emodb/03a01Fa.wav", 0, 1.0)
    sound(tmp_path / "emodb/03a02Fa.wav", 1, 0.3)
    settings = PictureSettings(canvas=16, window=0.25)
    builder = prepare("emodb", tmp_path, tmp_path / "data", settings)
    examples = builder.as_data_source(split="full")
    found = [(bytes(e["utterance"]), int(e["window"])) for e in examples]
    assert found == [*((b"03a01Fa", window) for window in range(4)), (b"03a02Fa", 0)]
    samples, rate = audio.read(tmp_path / "emodb/03a01Fa.wav", 16_000)
    third = spectrogram.draw(samples[8000:12_000], rate, settings)
    np.testing.assert_array_equal(examples[2]["picture"][..., 0], third)


def break_files(folder: Path):
    """Writes four recordings that cannot be used."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "03_Ira_01.WAV").write_bytes(b"")
    (folder / "03_Ira_02.WAV").write_text("no audio at all\n" * 20)
    soundfile.write(folder / "03_Ira_03.WAV", np.full(3200, np.nan), RATE, subtype="FLOAT")
    soundfile.write(folder / "03_Ira_04.WAV", np.zeros(3200), RATE)


@pytest.mark.parametrize("shard", [2, 256])
def test_unusable_recordings_are_skipped_counted_and_named(tmp_path, monkeypatch, capsys, shard):
    monkeypatch.setattr(base, "SHARD", shard)  # with 2, some files of records stay empty
    folder = tmp_path / "emomatch_spanish_db"
    break_files(folder)
    sounds(folder, "03_Asco_01.WAV", "07_Neutro_01.WAV")
    builder = prepare("emomatch", tmp_path, tmp_path / "data", SMALL)
    corpus = load(builder, "emomatch")
    assert [u.name for u in corpus.utterances] == ["03_Asco_01", "07_Neutro_01"]
    assert len(corpus.skipped) == 4
    skipped = Path(builder.data_path) / "skipped.csv"
    assert f"2 utterances, 4 skipped (see {skipped})" in capsys.readouterr().out
    with skipped.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [f"03_Ira_0{number}" for number in range(1, 5)]
    assert [row["utterance"] for row in rows] == names
    assert [row["file"] for row in rows] == [f"{name}.WAV" for name in names]
    for row, reason in zip(rows, ["empty", "decoded", "finite", "silent"], strict=True):
        assert reason in row["reason"]


def test_a_corpus_of_unusable_recordings_is_an_error_and_leaves_nothing(tmp_path):
    break_files(tmp_path / "emomatch_spanish_db")
    with pytest.raises(
        ValueError, match=r"of 4 recordings .* none can be used.*03_Ira_01\.WAV.*empty"
    ):
        prepare("emomatch", tmp_path, tmp_path / "data", SMALL)
    assert [path for path in (tmp_path / "data").rglob("*") if path.suffix != ".lock"] == [
        tmp_path / "data/emomatch_spanish_db",
        tmp_path / "data/emomatch_spanish_db" / SMALL.key(),
    ]


# What was prepared before.


def test_prepared_data_is_found_without_the_recordings_and_beside_other_settings(tmp_path):
    sounds(tmp_path / "emodb", "03a01Fa.wav")
    larger, coloured = PictureSettings(canvas=32), PictureSettings(canvas=16, colour_map="magma")
    first = {s: prepare("emodb", tmp_path, tmp_path / "data", s) for s in (SMALL, larger, MFCC)}
    assert len({builder.data_path for builder in first.values()}) == 3
    assert len({builder.data_path.parents[1] for builder in first.values()}) == 1
    loaded = {settings: load(builder, "emodb") for settings, builder in first.items()}
    assert [corpus.inputs.shape for corpus in loaded.values()] == [
        (1, 16, 16),
        (1, 32, 32),
        (1, 60),
    ]
    shutil.rmtree(tmp_path / "emodb")
    for settings, corpus in loaded.items():
        again = load(prepare("emodb", tmp_path, tmp_path / "data", settings), "emodb")
        assert again.utterances == corpus.utterances
        np.testing.assert_array_equal(again.inputs, corpus.inputs)
    # The device applies colours, so that they need no other records.
    builder = prepare("emodb", tmp_path, tmp_path / "data", coloured)
    assert builder.data_path == first[SMALL].data_path


def prepared_names(tmp_path, name="emodb", **options) -> list[str]:
    builder = prepare(name, tmp_path, tmp_path / "data", SMALL, **options)
    return [utterance.name for utterance in load(builder, name).utterances]


def test_changed_recordings_are_prepared_anew_and_said(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(EmoDb, "totals", (4,))
    sounds(tmp_path / "emodb", "03a01Fa.wav", "03a02Fa.wav")
    assert prepared_names(tmp_path) == ["03a01Fa", "03a02Fa"]
    assert capsys.readouterr().out.count("2 utterances found where 4") == 1
    for _ in range(2):
        prepared_names(tmp_path)
        printed = capsys.readouterr().out
        assert "anew" not in printed
        assert printed.count("2 utterances found where 4") == 1  # at each run

    sound(tmp_path / "emodb/wav/03a04Fa.wav", 2)
    assert prepared_names(tmp_path) == ["03a01Fa", "03a02Fa", "03a04Fa"]
    assert "1 new (such as wav/03a04Fa.wav): it is prepared anew" in capsys.readouterr().out
    (tmp_path / "emodb/03a02Fa.wav").unlink()
    assert prepared_names(tmp_path) == ["03a01Fa", "03a04Fa"]
    assert "1 gone (such as 03a02Fa.wav)" in capsys.readouterr().out

    before = load(prepare("emodb", tmp_path, tmp_path / "data", SMALL), "emodb")
    sound(tmp_path / "emodb/03a01Fa.wav", 7)  # of the same size
    after = load(prepare("emodb", tmp_path, tmp_path / "data", SMALL), "emodb")
    assert "1 changed (such as 03a01Fa.wav)" in capsys.readouterr().out
    digests = [[u.digest for u in corpus.utterances] for corpus in (before, after)]
    assert [one == other for one, other in zip(*digests, strict=True)] == [False, True]

    shutil.rmtree(tmp_path / "emodb")
    assert prepared_names(tmp_path) == ["03a01Fa", "03a04Fa"]
    printed = capsys.readouterr().out
    assert "2 utterances found where 4" in printed
    assert "there are no recordings" in printed
    assert "anew" not in printed


def test_changed_recordings_of_a_manifest_are_prepared_anew(tmp_path, capsys):
    sounds(tmp_path / "mine", "a.wav", "b.wav")
    table = tmp_path / "mine/manifest.csv"
    table.write_text("path,label,speaker\na.wav,JOY,ana\nb.wav,FEAR,ben\n")
    assert prepared_names(tmp_path, "mine") == ["a.wav", "b.wav"]
    sound(tmp_path / "mine/a.wav", 7)
    assert prepared_names(tmp_path, "mine") == ["a.wav", "b.wav"]
    assert "1 changed (such as a.wav)" in capsys.readouterr().out
    (tmp_path / "mine/b.wav").unlink()
    with pytest.raises(ValueError, match=r"line 3, path: .*b\.wav"):
        prepared_names(tmp_path, "mine")
    (tmp_path / "mine/a.wav").unlink()  # the table alone says which corpus was prepared
    assert prepared_names(tmp_path, "mine") == ["a.wav", "b.wav"]


def test_what_is_odd_about_recordings_is_said_once_a_call_even_if_they_are_prepared(
    tmp_path, capsys
):
    sounds(tmp_path / "emodb", "03a01Fa.wav", "03a02Fa.wav")
    content = (tmp_path / "emodb/03a02Fa.wav").read_bytes()
    for name in ("03a02Fa.wav", "03a04Fa.wav"):
        path = tmp_path / "emodb" / name
        path.write_bytes(content[:4] + bytes(4) + content[8:40] + bytes(4) + content[44:])
    experiment = tiny.run_config(**{"picture.canvas": 16}, corpus="emodb")
    for gone in (False, True):
        if gone:  # the prepared data alone says so
            shutil.rmtree(tmp_path / "emodb")
        corpora = Corpora(tmp_path, tmp_path / "data")
        for _ in range(2):
            corpora.load(experiment, "emodb")
        printed = capsys.readouterr().out
        assert printed.count("note: 2 recordings read to the end") == 1
        assert "03a02Fa, 03a04Fa" in printed


def test_a_channel_that_is_chosen_is_prepared_beside_the_mean(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    columns = np.random.default_rng(0).normal(0, 0.1, (4000, 2))
    soundfile.write(folder / "a.wav", columns, 16_000, subtype="FLOAT")
    (folder / "manifest.csv").write_text("path,label,speaker\na.wav,JOY,ana\n")
    digests = {}
    for channel in ("mix", "left", "right"):
        settings = dataclasses.replace(MFCC, channel=channel)
        builder = prepare("mine", tmp_path, tmp_path / "data", settings, audio=True)
        corpus = load(builder, "mine")
        digests[channel] = corpus.utterances[0].digest
        assert corpus.recordings["a.wav"].channel == channel  # what reports play
    assert len(set(digests.values())) == 3
    soundfile.write(folder / "a.wav", columns[:, 1], 16_000, subtype="FLOAT")
    mono = load(prepare("mine", tmp_path, tmp_path / "data", MFCC), "mine")
    assert mono.utterances[0].digest == digests["right"]


def test_remains_of_a_killed_preparation_are_removed(tmp_path):
    sounds(tmp_path / "emodb", "03a01Fa.wav")
    remains = tmp_path / "data/emodb" / SMALL.key() / "incomplete.AB12CD_2.1.0"
    remains.mkdir(parents=True)
    builder = prepare("emodb", tmp_path, tmp_path / "data", SMALL)
    assert [path.name for path in Path(builder.data_path).parent.iterdir()] == ["2.1.0"]


def test_a_second_process_waits_and_prints_so(tmp_path, capsys):
    sounds(tmp_path / "emodb", "03a01Fa.wav")
    (tmp_path / "data").mkdir()
    prepared = []

    def second():
        prepared.append(prepare("emodb", tmp_path, tmp_path / "data", SMALL))

    thread = threading.Thread(target=second)
    with filelock.FileLock(tmp_path / "data/emodb.lock"):
        thread.start()
        thread.join(0.4)
        assert thread.is_alive()
        assert not prepared
    thread.join(20)
    assert len(load(prepared[0], "emodb").utterances) == 1
    assert "waiting" in capsys.readouterr().out


def test_a_missing_package_is_an_error_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "opensmile", None)
    sounds(tmp_path / "emodb", "03a01Fa.wav")
    with pytest.raises(ValueError, match=r"requirements-opensmile\.txt"):
        prepare("emodb", tmp_path, tmp_path / "data", FeatureSettings("egemaps"))
    assert not (tmp_path / "data").exists()


# Sound in reports.


def test_recordings_without_terms_to_pass_them_on_are_refused_before_any_work(tmp_path):
    sounds(tmp_path / "emovo", "f1/dis-f1-b1.wav")
    with pytest.raises(ValueError, match=r"--audio.*emovo"):
        prepare("emovo", tmp_path, tmp_path / "data", SMALL, audio=True)
    assert not (tmp_path / "data").exists()
    assert not load(prepare("emovo", tmp_path, tmp_path / "data", SMALL), "emovo").recordings


def test_recordings_are_found_again_if_reports_are_to_play_them(tmp_path):
    recording = sound(tmp_path / "emodb/wav/03a01Fa.wav")
    corpus = load(prepare("emodb", tmp_path, tmp_path / "data", SMALL, audio=True), "emodb")
    assert corpus.recordings == {"03a01Fa": audio.Source(recording)}
    assert corpus.audio_terms == EmoDb.audio_terms
    shutil.rmtree(tmp_path / "emodb")  # which prepared data does not need, but sound does
    with pytest.raises(FileNotFoundError, match="emodb"):
        load(prepare("emodb", tmp_path, tmp_path / "data", SMALL, audio=True), "emodb")


def test_synthetic_speech_is_written_when_it_is_loaded_and_may_be_played(
    tmp_path, monkeypatch, capsys
):
    """Whatever the terms of the corpus are in whose layout it is."""
    write = functools.partial(synthetic.write_corpora, speakers=2, sentences=1, elra_sentences=2)
    monkeypatch.setattr(synthetic, "write_corpora", write)
    corpora = Corpora(tmp_path / "raw", tmp_path / "data", synthetic=True, audio=True)
    experiment = tiny.run_config(**{"picture.canvas": 16})
    for name, count in (("emomatch", 14), ("emomatch", 14), ("elra", 64)):
        corpus = corpora.load(experiment, name)
        assert corpora.check("corpus", name) == corpus.name
        assert len(corpus.utterances) == count
        assert {utterance.label for utterance in corpus.utterances} == {*LABELS}
        assert {utterance.name for utterance in corpus.utterances} == {*corpus.recordings}
        assert "synthetic" in corpus.licence
        assert "synthetic" in corpus.audio_terms
        printed = capsys.readouterr().out
        assert "SYNTHETIC" in printed
        assert "published" not in printed  # so few utterances are no reason to say so


# Names.


@pytest.mark.parametrize(
    ("name", "full"),
    [
        *zip(("elra", "emod", "emomatch", "emov", "mes", "r"), KNOWN, strict=True),
        *dict.fromkeys(("EmoDB", "emo-db", "EMO DB", "Emo_db"), "emodb").items(),
        ("mine", "mine"),
    ],
)
def test_a_unique_beginning_in_any_spelling_names_a_corpus(tmp_path, name, full):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/manifest.csv").touch()
    assert full_name(name, tmp_path) == Corpora(tmp_path, tmp_path).check("corpus", name) == full


@pytest.mark.parametrize("name", ["emdb", "emo", "", "../emodb", "nothing/like"])
def test_an_unknown_corpus_is_an_error_with_the_known_the_nearest_and_the_manifest(tmp_path, name):
    with pytest.raises(ValueError, match="there is no corpus") as error:
        prepare(name, tmp_path, tmp_path / "data", SMALL)
    assert all(known in str(error.value) for known in KNOWN)
    assert "manifest.csv" in str(error.value)
    if name == "emdb":
        assert str(error.value).count("emodb") == 2
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/manifest.csv").touch()
    with pytest.raises(ValueError, match=r" ravdess, mine \(the nearest is mine\)"):
        prepare("Mine", tmp_path, tmp_path / "data", SMALL)


def test_a_table_under_another_name_is_seen(tmp_path):
    sounds(tmp_path / "mine", "a.wav")
    (tmp_path / "mine" / "labels.csv").write_text("path,label,speaker\na.wav,JOY,ana\n")
    with pytest.raises(ValueError, match=r"mine has no manifest.csv: .*there is labels\.csv"):
        prepare("mine", tmp_path, tmp_path / "data", SMALL)


def test_a_changed_manifest_and_another_corpus_are_prepared_beside(tmp_path):
    paths = set()
    for name, label in (("mine", "JOY"), ("mine", "FEAR"), ("yours", "FEAR")):
        sounds(tmp_path / name, "a.wav")
        (tmp_path / name / "manifest.csv").write_text(f"path,label,speaker\na.wav,{label},ana\n")
        builder = prepare(name, tmp_path, tmp_path / "data", SMALL)
        assert load(builder, name).utterances[0].label == label
        paths.add(builder.data_path)
    assert len(paths) == 3


def test_neither_tensorflow_nor_jax_is_imported_nor_a_connection_opened(tmp_path):
    sounds(tmp_path / "emodb", "03a01Fa.wav", "03a02Fa.wav")
    program = f"""
import socket, sys
from pathlib import Path
def refuse(*arguments): raise AssertionError("a connection was opened")
socket.socket.connect = refuse
socket.getaddrinfo = refuse
from datasets.prepare import prepare
from ds_jax.data.corpus import load
from ds_jax.data.labels import LABELS
from ds_jax.features.spectrogram import PictureSettings
folder = Path({str(tmp_path)!r})
builder = prepare("emodb", folder, folder / "data", PictureSettings())
assert len(load(builder, "emodb").inputs) == 2
assert not {{"tensorflow", "jax", "matplotlib"}} & set(sys.modules)
"""
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("name", ["EmoDB", "emod"])
def test_a_folder_of_exactly_this_name_is_meant_if_it_has_a_manifest(tmp_path, name):
    (tmp_path / name).mkdir()
    assert full_name(name, tmp_path) == "emodb"
    (tmp_path / name / "manifest.csv").write_text("path,label,speaker\n")
    assert full_name(name, tmp_path) == name


@pytest.mark.parametrize(
    ("name", "synthetic"), [("emo", False), ("E-M", False), ("-", False), ("emovo", True)]
)
def test_no_corpus_is_guessed_and_synthetic_speech_has_two(tmp_path, name, synthetic):
    with pytest.raises(ValueError, match=f"^--eval_on='{name}': "):
        Corpora(tmp_path, tmp_path, synthetic).check("--eval_on", name)
