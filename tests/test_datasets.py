"""Builders: which file becomes which utterance, and what is prepared of it."""

import collections
import csv
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import filelock
import numpy as np
import pytest
import soundfile

from datasets import base, synthetic
from datasets.elra_s0329.elra_s0329_dataset_builder import Builder as Elra
from datasets.emodb.emodb_dataset_builder import Builder as EmoDb
from datasets.emomatch_spanish_db.emomatch_spanish_db_dataset_builder import Builder as EmoMatch
from datasets.emovo.emovo_dataset_builder import Builder as Emovo
from datasets.manifest.manifest_dataset_builder import Builder as Manifest
from datasets.prepare import KNOWN, full_name, prepare
from datasets.ravdess.ravdess_dataset_builder import Builder as Ravdess
from ds_jax import audio, picture
from ds_jax.corpus import LABELS, load
from ds_jax.picture import PictureSettings

SMALL = PictureSettings(canvas=16)
RATE = 16_000
REAL = os.environ.get("DS_JAX_CORPORA")
needs_recordings = pytest.mark.skipif(not REAL, reason="DS_JAX_CORPORA names no recordings")


@pytest.fixture(autouse=True)
def _without_totals(monkeypatch):
    for builder in (Elra, EmoDb, EmoMatch, Emovo, Ravdess):
        monkeypatch.setattr(builder, "totals", ())


def sound(path: Path, seed: int = 0, seconds: float = 0.2, rate: int = RATE, channels: int = 1):
    """Writes noise in the format that the path's suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (int(seconds * rate), channels)
    samples = np.random.default_rng(seed).normal(0, 3000, shape).astype("<i2")
    if path.suffix.lower() in (".l16", ".raw"):
        path.write_bytes(samples.tobytes())
    else:
        soundfile.write(path, samples, rate, subtype="PCM_16")
    return path


def sounds(folder: Path, *names: str):
    for seed, name in enumerate(names):
        sound(folder / name, seed)


def found(builder, folder: Path) -> dict:
    return {recording.name: recording for recording in builder.find(folder)}


def facts(recording) -> tuple:
    return (
        recording.label,
        recording.speaker,
        recording.gender,
        recording.sentence,
        recording.style,
    )


# Names.


def test_emodb_reads_german_letters_and_drops_boredom(tmp_path):
    sounds(
        tmp_path / "emodb",
        "wav/03a01Fa.wav",
        "wav/08b02Ac.wav",
        "09A05wB.WAV",
        "deep/er/10a07Ea.flac",
        "wav/11b10Nd.wav",
        "wav/13a04Tb.wav",
        "wav/14a01Lb.wav",
    )
    (tmp_path / "emodb/erkennung.txt").write_text("a table")
    recordings = found(EmoDb, tmp_path / "emodb")
    assert {name: facts(recording) for name, recording in recordings.items()} == {
        "03a01Fa": ("JOY", "03", "male", "a01", "normal"),
        "08b02Ac": ("FEAR", "08", "female", "b02", "normal"),
        "09A05wB": ("ANGER", "09", "female", "a05", "normal"),
        "10a07Ea": ("DISGUST", "10", "male", "a07", "normal"),
        "11b10Nd": ("NEUTRAL", "11", "male", "b10", "normal"),
        "13a04Tb": ("SADNESS", "13", "female", "a04", "normal"),
    }


def test_emovo_reads_italian_syllables(tmp_path):
    emotions = ("rab", "dis", "pau", "gio", "neu", "tri", "sor")
    sounds(tmp_path / "emovo", *(f"f1/{emotion}-f1-b1.wav" for emotion in emotions))
    sounds(tmp_path / "emovo", "M2/SOR-M2-D2.WAV")
    recordings = found(Emovo, tmp_path / "emovo")
    assert [recordings[f"{emotion}-f1-b1"].label for emotion in emotions] == list(LABELS)
    assert facts(recordings["SOR-M2-D2"]) == ("SURPRISE", "m2", "male", "d2", "normal")
    assert facts(recordings["dis-f1-b1"]) == ("DISGUST", "f1", "female", "b1", "normal")


def test_ravdess_drops_calm_song_and_video(tmp_path):
    labels = ["NEUTRAL", None, "JOY", "SADNESS", "ANGER", "FEAR", "DISGUST", "SURPRISE"]
    names = [f"03-01-{code:02d}-01-02-01-12" for code in range(1, 9)]
    sounds(tmp_path / "ravdess", *(f"Actor_12/{name}.wav" for name in names))
    sounds(tmp_path / "ravdess", "Actor_01/03-02-05-01-01-01-01.wav")
    sounds(tmp_path / "ravdess", "Actor_01/03-01-05-01-01-01-01.wav")
    (tmp_path / "ravdess/Actor_01/01-01-05-01-01-01-01.mp4").write_bytes(b"video")
    recordings = found(Ravdess, tmp_path / "ravdess")
    assert len(recordings) == 8
    for name, label in zip(names, labels, strict=True):
        if label:
            assert facts(recordings[name]) == (label, "12", "female", "02", "normal")
    assert facts(recordings["03-01-05-01-01-01-01"]) == ("ANGER", "01", "male", "01", "normal")


def test_emomatch_forgives_case_and_doubled_underscores(tmp_path):
    sounds(
        tmp_path / "emomatch",
        "01_Ira_01.WAV",
        "03_Alegria_02.WAV",
        "04_Asco__12.wav",
        "14_MIEDO_3.wav",
        "5_neutro_04.Wav",
        "49_Tristeza_05.WAV",
        "50_Sorpresa_06.WAV",
    )
    recordings = found(EmoMatch, tmp_path / "emomatch")
    assert {name: facts(recording) for name, recording in recordings.items()} == {
        "01_Ira_01": ("ANGER", "01", "male", "01", "normal"),
        "03_Alegria_02": ("JOY", "03", "female", "02", "normal"),
        "04_Asco__12": ("DISGUST", "04", "female", "12", "normal"),
        "14_MIEDO_3": ("FEAR", "14", "unknown", "03", "normal"),
        "5_neutro_04": ("NEUTRAL", "05", "male", "04", "normal"),
        "49_Tristeza_05": ("SADNESS", "49", "female", "05", "normal"),
        "50_Sorpresa_06": ("SURPRISE", "50", "unknown", "06", "normal"),
    }


def test_elra_reads_emotions_and_neutral_styles_from_folders(tmp_path):
    letters = {
        "a": ("ANGER", "normal"),
        "d": ("DISGUST", "normal"),
        "f": ("FEAR", "normal"),
        "j": ("JOY", "normal"),
        "s": ("SADNESS", "normal"),
        "n": ("NEUTRAL", "normal"),
        "h": ("NEUTRAL", "loud"),
        "l": ("NEUTRAL", "soft"),
        "w": ("NEUTRAL", "slow"),
        "z": ("NEUTRAL", "fast"),
        "r": ("SURPRISE", "normal"),
    }
    root = tmp_path / "elra_s0329"
    for letter in letters:
        sounds(root, f"S0329/INTER1SP_01/m/sess{letter}001/spm1{letter}184.l16")
    sounds(root, "S0329/INTER1SP_01/F/SESSA002/SPF2A007.L16")
    (root / "S0329/INTER1SP_01/f/sessa002/labels.txt").parent.mkdir(parents=True, exist_ok=True)
    (root / "S0329/INTER1SP_01/f/sessa002/labels.txt").write_text("labels")
    recordings = found(Elra, root)
    assert len(recordings) == 12
    for letter, (label, style) in letters.items():
        recording = recordings[f"m/sess{letter}001/spm1{letter}184"]
        assert facts(recording) == (label, "m", "male", "184", style)
    assert facts(recordings["f/sessa002/SPF2A007"]) == ("ANGER", "f", "female", "007", "normal")


def test_elra_with_two_unknown_letters_is_an_error_that_lists_them(tmp_path):
    sounds(tmp_path, "f/sessu001/spf1u001.l16", "f/sessp001/spf1p001.l16", "f/sessa001/x.l16")
    with pytest.raises(ValueError, match=r"unknown styles p, u"):
        Elra.find(tmp_path)


def test_elra_believes_folders_and_names_the_file_that_contradicts(tmp_path, caplog):
    sounds(tmp_path, "f/sessa001/spm1j004.l16", "f/sessa001/spf1a005.l16", "f/sessa001/take6.l16")
    recordings = found(Elra, tmp_path)
    assert facts(recordings["f/sessa001/spm1j004"]) == ("ANGER", "f", "female", "004", "normal")
    assert recordings["f/sessa001/take6"].sentence == "6"
    assert "1 audio files disagree" in caplog.text
    assert os.path.join("f", "sessa001", "spm1j004.l16") in caplog.text
    assert "spf1a005" not in caplog.text


def test_elra_names_say_what_missing_folders_do_not(tmp_path, caplog):
    sounds(tmp_path, "spf2d003.wav", "noise.wav")
    recordings = found(Elra, tmp_path)
    assert list(recordings) == ["f/sessd002/spf2d003"]
    assert facts(recordings["f/sessd002/spf2d003"])[:2] == ("DISGUST", "f")
    assert "noise.wav" in caplog.text


def test_the_published_format_is_preferred_to_a_conversion(tmp_path):
    sounds(tmp_path, "f/sessa001/spf1a001.wav", "f/sessa001/spf1a001.l16")
    sounds(tmp_path, "wavs/f/sessa001/spf1a002.wav", "f/sessa001/spf1a002.raw")
    assert [r.path.suffix for r in Elra.find(tmp_path)] == [".l16", ".raw"]
    sounds(tmp_path / "emodb", "03a01Fa.flac", "wav/03a01Fa.wav")
    assert [r.path.suffix for r in EmoDb.find(tmp_path / "emodb")] == [".wav"]


def test_equal_copies_count_once_and_different_ones_are_an_error(tmp_path):
    for copy in ("Actor_01", "all/Actor_01"):
        sound(tmp_path / copy / "03-01-05-01-01-01-01.wav", seed=1)
    assert [r.path.parent for r in Ravdess.find(tmp_path)] == [tmp_path / "Actor_01"]
    sound(tmp_path / "all/Actor_01/03-01-05-01-01-01-01.wav", seed=2)
    with pytest.raises(ValueError, match=r"Actor_01.*all.*differ.*remove") as error:
        Ravdess.find(tmp_path)
    assert "03-01-05-01-01-01-01" in str(error.value)


def test_audio_of_other_names_is_passed_over_with_a_warning(tmp_path, caplog):
    sounds(tmp_path, "wav/03a01Fa.wav", "wav/._03a01Fa.wav", "wav/test.wav", "wav/03a01Xa.wav")
    assert list(found(EmoDb, tmp_path)) == ["03a01Fa"]
    assert "2 audio files not named as published" in caplog.text
    assert "test.wav" in caplog.text
    assert "03a01Xa.wav" in caplog.text


def test_folders_reached_by_a_link_are_searched(tmp_path):
    sounds(tmp_path / "disk", "03a01Fa.wav")
    (tmp_path / "emodb").mkdir()
    (tmp_path / "emodb/wav").symlink_to(tmp_path / "disk", target_is_directory=True)
    assert list(found(EmoDb, tmp_path / "emodb")) == ["03a01Fa"]


def test_an_unpublished_number_of_utterances_is_warned_about(tmp_path, caplog, monkeypatch):
    sounds(tmp_path, "03a01Fa.wav", "03a02Fa.wav")
    monkeypatch.setattr(EmoDb, "totals", (2, 3))
    EmoDb.find(tmp_path)
    assert not caplog.text
    monkeypatch.setattr(EmoDb, "totals", (3, 4))
    EmoDb.find(tmp_path)
    assert "2 utterances found where 3 or 4 are published" in caplog.text


@pytest.mark.parametrize("name", KNOWN)
def test_missing_empty_and_other_folders_are_told_apart(tmp_path, name):
    said = []
    for content in (None, "", "readme.txt"):
        folder = tmp_path / name
        if content is not None:
            folder.mkdir(exist_ok=True)
        if content:
            (folder / content).write_text("hello")
        with pytest.raises(FileNotFoundError) as error:
            prepare(name, tmp_path, tmp_path / "data", SMALL)
        said.append(str(error.value))
        assert f"{name}: looked for files named like " in said[-1]
        assert str(folder) in said[-1]
        assert re.search(r"(http|doi)", said[-1])
    assert "no such folder" in said[0]
    assert "is empty" in said[1]
    assert "1 files there (such as readme.txt)" in said[2]
    assert not list((tmp_path / "data").glob("**/dataset_info.json"))


# Preparing.


def test_prepared_records_are_the_drawn_recordings(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(base, "SHARD", 2)
    names = ("03a01Fa", "03a02Wa", "08a01Nb", "09b01Ta", "10b02Ac")
    for seed, name in enumerate(reversed(names)):
        sound(tmp_path / f"emodb/wav/{name}.wav", seed, 0.2 + 0.1 * seed, 48_000, channels=2)
    builder = prepare("emodb", tmp_path, tmp_path / "data", SMALL)
    assert builder.info.splits["full"].num_examples == 5
    assert capsys.readouterr().out == "emodb: 5 utterances\n"
    corpus = load(builder, "emodb")
    assert tuple(utterance.name for utterance in corpus.utterances) == names
    assert [utterance.label for utterance in corpus.utterances] == [
        "JOY",
        "ANGER",
        "NEUTRAL",
        "SADNESS",
        "FEAR",
    ]
    assert [utterance.gender for utterance in corpus.utterances] == [
        "male",
        "male",
        "female",
        "female",
        "male",
    ]
    np.testing.assert_allclose(
        [utterance.seconds for utterance in corpus.utterances], [0.6, 0.5, 0.4, 0.3, 0.2], atol=1e-6
    )
    for name, pixels in zip(names, corpus.inputs, strict=True):
        samples, rate = audio.read(tmp_path / f"emodb/wav/{name}.wav", 16_000)
        np.testing.assert_array_equal(pixels, picture.draw(samples, rate, SMALL))


def test_windows_are_numbered_examples_of_one_utterance(tmp_path):
    sound(tmp_path / "emodb/03a01Fa.wav", 0, 1.0)
    sound(tmp_path / "emodb/03a02Fa.wav", 1, 0.3)
    settings = PictureSettings(canvas=16, window=0.25)
    builder = prepare("emodb", tmp_path, tmp_path / "data", settings)
    examples = builder.as_data_source(split="full")
    assert [(bytes(e["utterance"]), int(e["window"])) for e in examples] == [
        (b"03a01Fa", 0),
        (b"03a01Fa", 1),
        (b"03a01Fa", 2),
        (b"03a01Fa", 3),
        (b"03a02Fa", 0),
    ]
    samples, rate = audio.read(tmp_path / "emodb/03a01Fa.wav", 16_000)
    third = picture.draw(samples[8000:12_000], rate, settings)
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
    skipped = Path(builder.data_path) / "skipped.csv"
    assert f"2 utterances, 4 skipped (see {skipped})" in capsys.readouterr().out
    with skipped.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [f"03_Ira_0{i}.WAV" for i in range(1, 5)]
    assert [row["utterance"] for row in rows] == [f"03_Ira_0{i}" for i in range(1, 5)]
    for row, reason in zip(rows, ["empty", "decoded", "finite", "silent"], strict=True):
        assert reason in row["reason"]


def test_generated_licensed_layouts_with_strays(tmp_path, monkeypatch):
    """Odd case, doubled underscores, a conversion, an unknown letter, and three broken files."""
    synthetic.write_corpora(tmp_path, speakers=2, sentences=1, elra_sentences=2)
    emomatch, elra = tmp_path / "emomatch_spanish_db", tmp_path / "elra_s0329"
    spoken = sorted(emomatch.glob("*.WAV"))
    spoken[0].rename(emomatch / spoken[0].name.swapcase())
    spoken[1].rename(emomatch / spoken[1].name.replace("_", "__").replace("__", "_", 1))
    spoken[2].write_bytes(spoken[2].read_bytes()[:1000])
    spoken[3].write_bytes(b"")
    spoken[4].write_text("no audio")
    uttered = sorted(elra.rglob("*.l16"))
    conversion, letters = uttered[0], {path.parent.name[4] for path in uttered}
    samples, rate = audio.read(conversion, 0)
    soundfile.write(conversion.with_suffix(".wav"), samples, rate)
    conversion.unlink()
    uttered[1].rename(uttered[1].with_name(uttered[1].name.upper()))
    uttered[2].write_bytes(uttered[2].read_bytes()[:1001])
    uttered[3].write_bytes(b"")
    uttered[4].with_suffix(".wav").write_text("no audio")
    uttered[4].unlink()
    for name, files in (("emomatch", spoken), ("elra", uttered)):
        builder = prepare(name, tmp_path, tmp_path / "data", SMALL)
        corpus = load(builder, name)
        assert len(corpus.utterances) == len(files) - 3
        assert {utterance.label for utterance in corpus.utterances} >= {"ANGER", "SURPRISE"}
        rows = list(csv.reader((builder.data_path / "skipped.csv").read_text().splitlines()))[1:]
        assert {Path(row[1]).stem for row in rows} == {path.stem for path in files[2:5]}
        assert corpus.skipped == 3
    assert letters - set("adfjsnhlwz") == {"u"}  # unknown, and so SURPRISE


def test_a_corpus_of_unusable_recordings_is_an_error_and_leaves_nothing(tmp_path):
    break_files(tmp_path / "emomatch_spanish_db")
    with pytest.raises(ValueError, match=r"none of the 4 recordings.*03_Ira_01\.WAV.*empty"):
        prepare("emomatch", tmp_path, tmp_path / "data", SMALL)
    assert [path for path in (tmp_path / "data").rglob("*") if path.suffix != ".lock"] == [
        tmp_path / "data/emomatch_spanish_db",
        tmp_path / "data/emomatch_spanish_db" / SMALL.key(),
    ]


def test_what_is_prepared_is_found_without_the_recordings(tmp_path, monkeypatch):
    sounds(tmp_path / "emodb", "03a01Fa.wav")
    first = load(prepare("emodb", tmp_path, tmp_path / "data", SMALL), "emodb")
    shutil.rmtree(tmp_path / "emodb")
    monkeypatch.setattr(EmoDb, "find", None)  # calling it would fail
    again = load(prepare("emodb", tmp_path, tmp_path / "data", SMALL), "emodb")
    assert again.utterances == first.utterances
    np.testing.assert_array_equal(again.inputs, first.inputs)


@pytest.mark.parametrize(
    ("name", "recording"),
    [
        ("elra_s0329", "S0329/INTER1SP_01/f/sessa001/spf1a001.l16"),
        ("emomatch_spanish_db", "03_Alegria_02.WAV"),
        ("emovo", "f1/dis-f1-b1.wav"),
    ],
)
def test_recordings_that_may_not_be_passed_on_are_refused_before_any_work(
    tmp_path, name, recording
):
    sounds(tmp_path / name, recording)
    with pytest.raises(ValueError, match=f"the known terms of {name} do not .*: leave --audio out"):
        prepare(name, tmp_path, tmp_path / "data", SMALL, audio=True)
    assert not (tmp_path / "data").exists()
    assert not load(prepare(name, tmp_path, tmp_path / "data", SMALL), name).recordings


@pytest.mark.parametrize(
    ("name", "recording", "said"),
    [
        ("emodb", "wav/03a01Fa.wav", "Burkhardt"),
        ("ravdess", "Actor_12/03-01-05-02-01-01-12.wav", "CC BY-NC-SA 4.0"),
    ],
)
def test_recordings_are_found_again_if_reports_may_play_them(tmp_path, name, recording, said):
    sounds(tmp_path / name, recording)
    corpus = load(prepare(name, tmp_path, tmp_path / "data", SMALL, audio=True), name)
    assert corpus.recordings == {corpus.utterances[0].name: tmp_path / name / recording}
    assert said in corpus.audio_terms
    shutil.rmtree(tmp_path / name)  # what is prepared does without them, and sound does not
    with pytest.raises(FileNotFoundError, match=name):
        load(prepare(name, tmp_path, tmp_path / "data", SMALL, audio=True), name)


def test_synthetic_speech_may_be_heard_whatever_corpus_it_stands_for(tmp_path):
    synthetic.write_corpora(tmp_path, speakers=2, sentences=1, elra_sentences=2)
    for name in synthetic.NAMES:
        corpus = load(prepare(name, tmp_path, tmp_path / "data", SMALL, audio=True), name)
        assert set(corpus.recordings) == {utterance.name for utterance in corpus.utterances}
        assert "synthetic" in corpus.audio_terms


def test_other_settings_are_prepared_beside(tmp_path):
    sounds(tmp_path / "emodb", "03a01Fa.wav")
    larger = PictureSettings(canvas=32)
    one = prepare("emodb", tmp_path, tmp_path / "data", SMALL)
    other = prepare("emodb", tmp_path, tmp_path / "data", larger)
    assert one.data_path != other.data_path
    assert load(one, "emodb").inputs.shape == (1, 16, 16)
    assert load(other, "emodb").inputs.shape == (1, 32, 32)
    coloured = PictureSettings(canvas=16, colour_map="magma")  # acts on the device only
    shutil.rmtree(tmp_path / "emodb")
    assert prepare("emodb", tmp_path, tmp_path / "data", coloured).data_path == one.data_path


def test_remains_of_a_killed_preparation_are_removed(tmp_path):
    sounds(tmp_path / "emodb", "03a01Fa.wav")
    remains = tmp_path / "data/emodb" / SMALL.key() / "incomplete.AB12CD_1.0.0"
    remains.mkdir(parents=True)
    builder = prepare("emodb", tmp_path, tmp_path / "data", SMALL)
    assert [path.name for path in Path(builder.data_path).parent.iterdir()] == ["1.0.0"]


def test_a_second_process_waits_and_says_so(tmp_path, capsys):
    sounds(tmp_path / "emodb", "03a01Fa.wav")
    (tmp_path / "data").mkdir()
    prepared = []

    def second():
        prepared.append(prepare("emodb", tmp_path, tmp_path / "data", SMALL))

    thread = threading.Thread(target=second)
    with filelock.FileLock(tmp_path / "data/emodb.lock"):
        thread.start()
        thread.join(1.0)
        assert thread.is_alive()
        assert not prepared
    thread.join(20)
    assert len(load(prepared[0], "emodb").utterances) == 1
    assert "waiting for another process" in capsys.readouterr().out


def test_neither_tensorflow_nor_jax_is_imported_nor_a_connection_opened(tmp_path):
    sounds(tmp_path / "emodb", "03a01Fa.wav", "03a02Fa.wav")
    program = f"""
import socket, sys
from pathlib import Path
def refuse(*arguments): raise AssertionError("a connection was opened")
socket.socket.connect = refuse
socket.getaddrinfo = refuse
from datasets.prepare import prepare
from ds_jax.corpus import load
from ds_jax.picture import PictureSettings
folder = Path({str(tmp_path)!r})
builder = prepare("emodb", folder, folder / "data", PictureSettings())
assert len(load(builder, "emodb").inputs) == 2
assert "tensorflow" not in sys.modules
assert "jax" not in sys.modules
"""
    root = Path(__file__).parents[1]
    run = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


# Names of corpora, and corpora described by a manifest.


def test_a_unique_beginning_names_a_corpus():
    assert [full_name(name) for name in ("elra", "emomatch", "emod", "emov", "r", "emovo")] == [
        "elra_s0329",
        "emomatch_spanish_db",
        "emodb",
        "emovo",
        "ravdess",
        "emovo",
    ]
    assert full_name("emo") == "emo"  # not unique
    assert full_name("mine") == "mine"


@pytest.mark.parametrize("name", ["emdb", "emo", "", "../emodb", "nothing/like"])
def test_an_unknown_corpus_lists_the_known_the_nearest_and_the_manifest(tmp_path, name):
    with pytest.raises(ValueError, match="there is no corpus") as error:
        prepare(name, tmp_path, tmp_path / "data", SMALL)
    assert ", ".join(KNOWN) in str(error.value)
    assert "manifest.csv" in str(error.value)
    if name == "emdb":
        assert "the nearest is emodb" in str(error.value)


def write_manifest(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.csv").write_text(text, encoding="utf-8")
    return folder


def test_a_manifest_describes_a_corpus(tmp_path, capsys):
    sounds(tmp_path / "mine", "ana/1.wav", "ana/2.l16", "ben/1.ogg.wav")
    write_manifest(
        tmp_path / "mine",
        "\ufeffpath,label,speaker,sentence,style,gender,remark\n"
        "ben/1.ogg.wav,SURPRISE,ben,,,,\n"
        "ana/1.wav,anger,ana,s1,loud,Female,\n"
        '"ana/2.l16", JOY,ana,s2,,,"a, b"\n',
    )
    builder = prepare("mine", tmp_path, tmp_path / "data", SMALL)
    assert capsys.readouterr().out == "mine: 3 utterances\n"
    corpus = load(prepare("mine", tmp_path, tmp_path / "data", SMALL, audio=True), "mine")
    assert corpus.recordings["ana/2.l16"] == tmp_path / "mine/ana/2.l16"
    assert "your own" in corpus.audio_terms
    corpus = load(builder, "mine")
    assert (corpus.recordings, corpus.audio_terms) == ({}, "")
    assert {u.name: facts(u) for u in corpus.utterances} == {
        "ana/1.wav": ("ANGER", "ana", "female", "s1", "loud"),
        "ana/2.l16": ("JOY", "ana", "unknown", "s2", "normal"),
        "ben/1.ogg.wav": ("SURPRISE", "ben", "unknown", "", "normal"),
    }


def test_a_changed_manifest_and_another_corpus_are_prepared_beside(tmp_path):
    paths = set()
    for name, label in (("mine", "JOY"), ("mine", "FEAR"), ("yours", "FEAR")):
        sounds(tmp_path / name, "a.wav")
        write_manifest(tmp_path / name, f"path,label,speaker\na.wav,{label},ana\n")
        builder = prepare(name, tmp_path, tmp_path / "data", SMALL)
        assert load(builder, name).utterances[0].label == label
        paths.add(builder.data_path)
    assert len(paths) == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path;label;speaker\na.wav;JOY;ana\n", r"line 1: there is no column 'path'"),
        ("path,label\na.wav,JOY\n", r"line 1: there is no column 'speaker' among path, label"),
        ("path,label,speaker\na.wav,JOY,ana\nb.wav,HAPPY,ana\n", r"line 3, label: 'HAPPY'.*ANGER"),
        ("path,label,speaker\na.wav,JOY,\n", r"line 2, speaker: the field is empty"),
        ("path,label,speaker\na.wav,JOY\n", r"line 2, speaker: the field is empty"),
        ("path,label,speaker\n\nc.wav,JOY,ana\n", r"line 3, path: there is no file .*c\.wav"),
        ("path,label,speaker\na.wav,JOY,ana,x\n", r"line 2: more fields"),
        ("path,label,speaker,gender\na.wav,JOY,ana,x\n", r"line 2, gender: 'x' is none of female"),
        ("path,label,speaker\na.wav,JOY,ana\na.wav,JOY,ana\n", r"line 3, path:.*line 2 already"),
        ("", r"line 1: there is no column 'path' among none"),
    ],
)
def test_a_faulty_manifest_is_named_with_line_and_field(tmp_path, text, said):
    sounds(tmp_path, "a.wav", "b.wav")
    write_manifest(tmp_path, text)
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / "manifest.csv")) + ".*" + said):
        Manifest.find(tmp_path)


def test_a_manifest_without_rows_or_of_another_encoding_is_refused(tmp_path):
    write_manifest(tmp_path / "mine", "path,label,speaker\n")
    with pytest.raises(FileNotFoundError, match=r"recordings listed in manifest\.csv"):
        Manifest.find(tmp_path / "mine")
    (tmp_path / "mine/manifest.csv").write_bytes(
        "path,label,speaker\na.wav,JOY,Íñigo\n".encode("latin-1")
    )
    with pytest.raises(ValueError, match="not UTF-8"):
        Manifest.find(tmp_path / "mine")


# The published recordings.


@needs_recordings
def test_emodb_holds_what_is_published(caplog, monkeypatch):
    monkeypatch.undo()
    recordings = EmoDb.find(Path(REAL) / "emodb")
    counts = collections.Counter(recording.label for recording in recordings)
    assert counts == {
        "ANGER": 127,
        "DISGUST": 46,
        "FEAR": 69,
        "JOY": 71,
        "NEUTRAL": 79,
        "SADNESS": 62,
    }
    assert {recording.gender for recording in recordings} == {"female", "male"}
    assert not caplog.text


@needs_recordings
def test_emovo_holds_what_is_published(caplog, monkeypatch):
    monkeypatch.undo()
    recordings = Emovo.find(Path(REAL) / "emovo")
    counts = collections.Counter((r.speaker, r.label) for r in recordings)
    assert len(counts) == 6 * 7
    assert set(counts.values()) == {14}
    assert not caplog.text
