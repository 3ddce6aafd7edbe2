"""Builders know which file is which utterance, and on which terms."""

import collections
import importlib
import os
import re
import sys
from pathlib import Path

import pytest
from recordings import SMALL, found, sound, sounds

from datasets.elra_s0329.elra_s0329_dataset_builder import Builder as Elra
from datasets.emodb.emodb_dataset_builder import Builder as EmoDb
from datasets.emomatch_spanish_db.emomatch_spanish_db_dataset_builder import Builder as EmoMatch
from datasets.emovo.emovo_dataset_builder import Builder as Emovo
from datasets.mesd.mesd_dataset_builder import Builder as Mesd
from datasets.prepare import KNOWN, prepare
from datasets.ravdess.ravdess_dataset_builder import Builder as Ravdess
from ds_jax.data.corpus import load
from ds_jax.data.labels import LABELS
from ds_jax.features import ffmpeg

REAL = os.environ.get("DS_JAX_CORPORA")


@pytest.fixture(autouse=True)
def _without_totals(monkeypatch):
    for builder in (Elra, EmoDb, EmoMatch, Emovo, Ravdess):
        monkeypatch.setattr(builder, "totals", ())


def test_known_corpora_are_the_folders_with_a_builder():
    assert KNOWN == ("elra_s0329", "emodb", "emomatch_spanish_db", "emovo", "mesd", "ravdess")
    for name in KNOWN:
        builder = importlib.import_module(f"datasets.{name}.{name}_dataset_builder").Builder
        assert all((builder.title, builder.licence, builder.layout, builder.source)), name
        # A report may play recordings only where known terms allow it.
        assert bool(builder.audio_terms) == (name in ("emodb", "mesd", "ravdess"))


def test_mesd_says_what_is_spoken_and_not_by_whom(tmp_path, capsys):
    sounds(
        tmp_path,
        *("Anger_C_A_abajo.wav", "Happiness_C_A_lento_dentro.wav", "deep/Sadness_M_A_afuera.wav"),
        *("disgust_f_b_por_favor.WAV", "Neutral_F_B_Fuera.flac"),
    )
    assert found(Mesd, tmp_path) == {
        "Anger_C_A_abajo": ("ANGER", "", "child", "abajo", "normal"),
        "Happiness_C_A_lento_dentro": ("JOY", "", "child", "lento", "normal"),
        "Neutral_F_B_Fuera": ("NEUTRAL", "", "female", "fuera", "normal"),
        "Sadness_M_A_afuera": ("SADNESS", "", "male", "fuera", "normal"),
        "disgust_f_b_por_favor": ("DISGUST", "", "female", "por_favor", "normal"),
    }
    assert "5 utterances found where 862 or 864 are published" in capsys.readouterr().out
    sounds(tmp_path, "Surprise_C_A_abajo.wav")
    Mesd.find(tmp_path)
    assert "Surprise_C_A_abajo.wav" in capsys.readouterr().out


def test_emodb_reads_german_letters(tmp_path):
    sounds(
        tmp_path,
        *("wav/03a01Fa.wav", "wav/08b02Ac.wav", "09A05wB.WAV", "deep/er/10a07Ea.flac"),
        *("wav/11b10Nd.wav", "wav/13a04Tb.wav", "wav/14a01Lb.wav"),
    )
    (tmp_path / "erkennung.txt").write_text("a table")
    assert found(EmoDb, tmp_path) == {
        "03a01Fa": ("JOY", "03", "male", "a01", "normal"),
        "08b02Ac": ("FEAR", "08", "female", "b02", "normal"),
        "09A05wB": ("ANGER", "09", "female", "a05", "normal"),
        "10a07Ea": ("DISGUST", "10", "male", "a07", "normal"),
        "11b10Nd": ("NEUTRAL", "11", "male", "b10", "normal"),
        "13a04Tb": ("SADNESS", "13", "female", "a04", "normal"),
        "14a01Lb": ("BOREDOM", "14", "female", "a01", "normal"),
    }


def test_emovo_reads_italian_syllables(tmp_path):
    emotions = ("rab", "dis", "pau", "gio", "neu", "tri", "sor")
    sounds(tmp_path, *(f"f1/{emotion}-f1-b1.wav" for emotion in emotions), "M2/SOR-M2-D2.WAV")
    assert found(Emovo, tmp_path) == {"SOR-M2-D2": ("SURPRISE", "m2", "male", "d2", "normal")} | {
        f"{emotion}-f1-b1": (label, "f1", "female", "b1", "normal")
        for emotion, label in zip(emotions, LABELS, strict=True)
    }


def test_ravdess_drops_song_and_video(tmp_path):
    labels = ["NEUTRAL", "CALM", "JOY", "SADNESS", "ANGER", "FEAR", "DISGUST", "SURPRISE"]
    names = [f"03-01-{code:02d}-01-02-01-12" for code in range(1, 9)]
    sounds(tmp_path, *(f"Actor_12/{name}.wav" for name in names))
    sounds(tmp_path, *(f"Actor_01/{kind}-05-01-01-01-01.wav" for kind in ("03-01", "03-02")))
    (tmp_path / "Actor_01/01-01-05-01-01-01-01.mp4").write_bytes(b"video")
    other = {"03-01-05-01-01-01-01": ("ANGER", "01", "male", "01", "normal")}
    assert found(Ravdess, tmp_path) == other | {
        name: (label, "12", "female", "02", "normal")
        for name, label in zip(names, labels, strict=True)
    }


def test_emomatch_forgives_case_and_doubled_underscores(tmp_path):
    sounds(
        tmp_path,
        *("01_Ira_01.WAV", "03_Alegria_02.WAV", "04_Asco__12.wav", "14_MIEDO_3.wav"),
        *("5_neutro_04.Wav", "49_Tristeza_05.WAV", "50_Sorpresa_06.WAV"),
    )
    assert found(EmoMatch, tmp_path) == {
        "01_Ira_01": ("ANGER", "01", "male", "01", "normal"),
        "03_Alegria_02": ("JOY", "03", "female", "02", "normal"),
        "04_Asco__12": ("DISGUST", "04", "female", "12", "normal"),
        "14_MIEDO_3": ("FEAR", "14", "unknown", "03", "normal"),
        "5_neutro_04": ("NEUTRAL", "05", "male", "04", "normal"),
        "49_Tristeza_05": ("SADNESS", "49", "female", "05", "normal"),
        "50_Sorpresa_06": ("SURPRISE", "50", "unknown", "06", "normal"),
    }


def test_elra_reads_emotions_and_neutral_styles_from_folders(tmp_path):
    labels = dict(zip("adfjnsr", LABELS, strict=True))
    letters = {letter: (label, "normal") for letter, label in labels.items()}
    styles = dict(zip("hlwz", ("loud", "soft", "slow", "fast"), strict=True))
    letters |= {letter: ("NEUTRAL", style) for letter, style in styles.items()}
    for letter in letters:
        sounds(tmp_path, f"S0329/INTER1SP_01/m/sess{letter}001/spm1{letter}184.l16")
    sounds(tmp_path, "S0329/INTER1SP_01/F/SESSA002/SPF2A007.L16")
    (tmp_path / "S0329/INTER1SP_01/F/SESSA002/labels.txt").write_text("labels")
    other = {"f/sessa002/SPF2A007": ("ANGER", "f", "female", "007", "normal")}
    assert found(Elra, tmp_path) == other | {
        f"m/sess{letter}001/spm1{letter}184": (label, "m", "male", "184", style)
        for letter, (label, style) in letters.items()
    }


def test_elra_with_two_unknown_letters_is_an_error_that_lists_them(tmp_path):
    sounds(tmp_path, "f/sessu001/spf1u001.l16", "f/sessp001/spf1p001.l16", "f/sessa001/x.l16")
    with pytest.raises(ValueError, match=r"unknown styles p, u"):
        Elra.find(tmp_path)


def test_elra_believes_folders_and_names_the_file_that_contradicts(tmp_path, capsys):
    sounds(tmp_path, "f/sessa001/spm1j004.l16", "f/sessa001/spf1a005.l16", "f/sessa001/take6.l16")
    recordings = found(Elra, tmp_path)
    assert recordings["f/sessa001/spm1j004"] == ("ANGER", "f", "female", "004", "normal")
    assert recordings["f/sessa001/take6"][3] == "6"
    printed = capsys.readouterr().out
    assert os.path.join("f", "sessa001", "spm1j004.l16") in printed
    assert "spf1a005" not in printed


def test_elra_reads_names_where_folders_are_missing(tmp_path, capsys):
    sounds(tmp_path, "spf2d003.wav", "noise.wav")
    expected = {"f/sessd002/spf2d003": ("DISGUST", "f", "female", "003", "normal")}
    assert found(Elra, tmp_path) == expected
    assert "noise.wav" in capsys.readouterr().out


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


def test_a_linked_folder_is_searched_and_audio_of_other_names_warned_about(tmp_path, capsys):
    sounds(tmp_path / "disk", "03a01Fa.wav", "._03a01Fa.wav", "test.wav", "03a01Xa.wav")
    (tmp_path / "emodb").mkdir()
    (tmp_path / "emodb/wav").symlink_to(tmp_path / "disk", target_is_directory=True)
    assert list(found(EmoDb, tmp_path / "emodb")) == ["03a01Fa"]
    printed = capsys.readouterr().out
    for named in ("2 audio files", "test.wav", "03a01Xa.wav"):
        assert named in printed


def test_an_unpublished_number_of_utterances_is_warned_about(tmp_path, capsys, monkeypatch):
    sounds(tmp_path, "03a01Fa.wav", "03a02Fa.wav")
    monkeypatch.setattr(EmoDb, "totals", (2, 3))
    EmoDb.find(tmp_path)
    assert not capsys.readouterr().out
    monkeypatch.setattr(EmoDb, "totals", (3, 4))
    EmoDb.find(tmp_path)
    assert "3 or 4" in capsys.readouterr().out


@pytest.mark.parametrize("name", KNOWN)
def test_the_error_about_a_missing_corpus_says_what_its_folder_holds(tmp_path, name):
    messages = []
    for content in (None, "", "readme.txt"):
        folder = tmp_path / name
        if content is not None:
            folder.mkdir(exist_ok=True)
        if content:
            (folder / content).write_text("hello")
        with pytest.raises(FileNotFoundError) as error:
            prepare(name, tmp_path, tmp_path / "data", SMALL)
        messages.append(str(error.value))
        assert messages[-1].startswith(f"{name}: ")
        assert str(folder) in messages[-1]
        assert re.search(r"(http|doi)", messages[-1])
    assert len(set(messages)) == 3
    assert "readme.txt" in messages[2]
    assert not list((tmp_path / "data").glob("**/dataset_info.json"))


def test_a_published_corpus_may_have_other_formats(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    sounds(tmp_path / "emodb", "03a01Fa.wav", "03a02Fa.ogg")
    (tmp_path / "emodb/03a04Fa.m4a").write_bytes(b"of a format that only ffmpeg knows")
    (tmp_path / "emodb/03a01Fa.mp3").write_bytes(b"a copy of the first")
    corpus = load(prepare("emodb", tmp_path, tmp_path / "data", SMALL), "emodb")
    assert [utterance.name for utterance in corpus.utterances] == ["03a01Fa", "03a02Fa"]
    assert [name for name, *_ in corpus.skipped] == ["03a04Fa"]
    assert ffmpeg.ABSENT in (corpus.directory / "skipped.csv").read_text()
    assert "1 skipped" in capsys.readouterr().out
    # It is decoded as soon as ffmpeg is there.
    monkeypatch.setenv("PATH", str(tmp_path))
    prepare("emodb", tmp_path, tmp_path / "data", SMALL)
    assert "as prepared" in capsys.readouterr().out
    (tmp_path / "ffmpeg").write_text(f"#!{sys.executable}\nraise SystemExit('no sound in it')")
    (tmp_path / "ffmpeg").chmod(0o755)
    corpus = load(prepare("emodb", tmp_path, tmp_path / "data", SMALL), "emodb")
    assert "prepared anew" in capsys.readouterr().out
    assert "no sound in it" in (corpus.directory / "skipped.csv").read_text()


@pytest.mark.skipif(not REAL, reason="DS_JAX_CORPORA names no recordings")
def test_emodb_and_emovo_hold_what_is_published(capsys, monkeypatch):
    monkeypatch.undo()
    recordings = EmoDb.find(Path(REAL) / "emodb")
    counts = collections.Counter(recording.label for recording in recordings)
    published = {"ANGER": 127, "DISGUST": 46, "FEAR": 69, "JOY": 71, "NEUTRAL": 79, "SADNESS": 62}
    assert counts == published | {"BOREDOM": 81}
    assert {recording.gender for recording in recordings} == {"female", "male"}
    counts = collections.Counter((r.speaker, r.label) for r in Emovo.find(Path(REAL) / "emovo"))
    assert (len(counts), set(counts.values())) == (6 * 7, {14})
    assert not capsys.readouterr().out
