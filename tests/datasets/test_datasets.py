"""Builders know which file is which utterance, and on which terms."""

import collections
import importlib
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from recordings import SMALL, sound, sounds

from datasets.elra_s0329.elra_s0329_dataset_builder import Builder as Elra
from datasets.emodb.emodb_dataset_builder import Builder as EmoDb
from datasets.emomatch_spanish_db.emomatch_spanish_db_dataset_builder import Builder as EmoMatch
from datasets.emovo.emovo_dataset_builder import Builder as Emovo
from datasets.manifest.manifest_dataset_builder import Builder as Manifest
from datasets.prepare import KNOWN, prepare
from datasets.ravdess.ravdess_dataset_builder import Builder as Ravdess
from ds_jax.data.corpus import load
from ds_jax.data.labels import LABELS
from ds_jax.features import audio, spectrogram

REAL = os.environ.get("DS_JAX_CORPORA")


@pytest.fixture(autouse=True)
def _without_totals(monkeypatch):
    for builder in (Elra, EmoDb, EmoMatch, Emovo, Ravdess):
        monkeypatch.setattr(builder, "totals", ())


def found(builder, folder: Path) -> dict[str, tuple]:
    """Label, speaker, gender, sentence and style of each utterance, by its name."""
    return {recording.name: facts(recording) for recording in builder.find(folder)}


def facts(of) -> tuple:
    return of.label, of.speaker, of.gender, of.sentence, of.style


def test_known_corpora_are_the_folders_with_a_builder():
    assert KNOWN == ("elra_s0329", "emodb", "emomatch_spanish_db", "emovo", "ravdess")
    for name in KNOWN:
        builder = importlib.import_module(f"datasets.{name}.{name}_dataset_builder").Builder
        assert all((builder.title, builder.licence, builder.layout, builder.source)), name
        # A report may play recordings only where known terms allow it.
        assert bool(builder.audio_terms) == (name in ("emodb", "ravdess"))


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


def test_elra_believes_folders_and_names_the_file_that_contradicts(tmp_path, caplog):
    sounds(tmp_path, "f/sessa001/spm1j004.l16", "f/sessa001/spf1a005.l16", "f/sessa001/take6.l16")
    recordings = found(Elra, tmp_path)
    assert recordings["f/sessa001/spm1j004"] == ("ANGER", "f", "female", "004", "normal")
    assert recordings["f/sessa001/take6"][3] == "6"
    assert os.path.join("f", "sessa001", "spm1j004.l16") in caplog.text
    assert "spf1a005" not in caplog.text


def test_elra_reads_names_where_folders_are_missing(tmp_path, caplog):
    sounds(tmp_path, "spf2d003.wav", "noise.wav")
    expected = {"f/sessd002/spf2d003": ("DISGUST", "f", "female", "003", "normal")}
    assert found(Elra, tmp_path) == expected
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


def test_a_linked_folder_is_searched_and_audio_of_other_names_warned_about(tmp_path, caplog):
    sounds(tmp_path / "disk", "03a01Fa.wav", "._03a01Fa.wav", "test.wav", "03a01Xa.wav")
    (tmp_path / "emodb").mkdir()
    (tmp_path / "emodb/wav").symlink_to(tmp_path / "disk", target_is_directory=True)
    assert list(found(EmoDb, tmp_path / "emodb")) == ["03a01Fa"]
    for named in ("2 audio files", "test.wav", "03a01Xa.wav"):
        assert named in caplog.text


def test_an_unpublished_number_of_utterances_is_warned_about(tmp_path, caplog, monkeypatch):
    sounds(tmp_path, "03a01Fa.wav", "03a02Fa.wav")
    monkeypatch.setattr(EmoDb, "totals", (2, 3))
    EmoDb.find(tmp_path)
    assert not caplog.text
    monkeypatch.setattr(EmoDb, "totals", (3, 4))
    EmoDb.find(tmp_path)
    assert "3 or 4" in caplog.text


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


# Corpora described by a manifest.


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
    assert corpus.recordings["ana/2.l16"].path == tmp_path / "mine/ana/2.l16"
    assert corpus.audio_terms
    corpus = load(builder, "mine")
    assert (corpus.recordings, corpus.title, corpus.licence) == ({}, "", "")
    assert {u.name: facts(u) for u in corpus.utterances} == {
        "ana/1.wav": ("ANGER", "ana", "female", "s1", "loud"),
        "ana/2.l16": ("JOY", "ana", "unknown", "s2", "normal"),
        "ben/1.ogg.wav": ("SURPRISE", "ben", "unknown", "", "normal"),
    }


ROWS = {
    "ana/1.wav": ("ANGER", "ana", "female", "s1", "normal"),
    "ben/2.wav": ("JOY", "ben", "male", "s2", "normal"),
}


@pytest.mark.parametrize(
    "text",
    [
        "path;label;speaker;sentence;gender\nana/1.wav;ANGER;ana;s1;F\nben/2.wav;JOY;ben;s2;M\n",
        "sep=;\r\nFile;Emotion;Speaker_ID;Text;Sex\r\n"
        "ana/1.wav;anger;ana;s1;f\r\nben/2.wav;joy;ben;s2;m\r\n;;;;\r\n;;;;\r\n",
        "filename\tclass\tspk\tutterance\tgender\n"
        "ana/1.wav\tanger\tana\ts1\tFemale\nben/2.wav\tjoy\tben\ts2\tmale\n",
        ' Wav , EMOTION ,Subject,Sentence ID,"sex"\n'
        'ana\\1.wav, anger, ana,"s1",woman\n"ben/2.wav", joy, ben, s2, Man\n,,,,\n',
        "archivo;emoción;locutor;frase;género;;\n"
        "ana/1.wav;anger;ana;s1;mujer;;\nben/2.wav;joy;ben;s2;hombre;;\n\n",
        "Datei;Emotion;Sprecher;Satz;Geschlecht\n"
        "ana/1.wav;anger;ana;s1;weiblich\nben/2.wav;joy;ben;s2;männlich\n",
        "file;emozione;parlante;testo;sesso\n"
        "ana/1.wav;anger;ana;s1;femmina\nben/2.wav;joy;ben;s2;Maschio\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_manifest_is_read_as_people_have_it(tmp_path, caplog, text, encoding):
    sounds(tmp_path, *ROWS)
    (tmp_path / "manifest.csv").write_bytes(text.encode(encoding))
    rows = found(Manifest, tmp_path)
    assert {name: (label.upper(), *rest) for name, (label, *rest) in rows.items()} == ROWS
    assert not caplog.text


def test_columns_without_a_use_are_named(tmp_path, caplog):
    sounds(tmp_path, "a.wav", "b.wav")
    write_manifest(
        tmp_path, ",path,label,speaker,Age,file\n0,a.wav,JOY,ana,3,x\n1,b.wav,JOY,ben,,y\n"
    )
    assert list(found(Manifest, tmp_path)) == ["a.wav", "b.wav"]  # path goes before file
    assert "one without a name, Age, file" in caplog.text


@pytest.mark.parametrize(
    "column",
    [
        "start",
        "end",
        "start_ms",
        "End Frame",
        "offset",
        "fold 1",
        "folds",
        "train_split",
        "channel",
    ],
)
def test_columns_that_may_matter_are_refused(tmp_path, column):
    sounds(tmp_path, "a.wav")
    write_manifest(tmp_path, f"path,label,speaker,{column}\na.wav,JOY,ana,1\n")
    with pytest.raises(ValueError, match=f"line 1: .*'{column}'"):
        Manifest.find(tmp_path)


def test_all_missing_files_are_named_at_once(tmp_path):
    sounds(tmp_path, "a.wav")
    rows = [f"{number}.wav,JOY,ana" for number in range(30)]
    write_manifest(tmp_path, "\n".join(["path,label,speaker", "a.wav,JOY,ana", *rows]))
    with pytest.raises(ValueError, match="line 3, path: ") as error:
        Manifest.find(tmp_path)
    for number in (0, 1, 9):
        assert f"line {number + 3}, {tmp_path}/{number}.wav" in str(error.value).replace(
            " path: there is no file", ""
        )
    assert "29 others" in str(error.value)
    assert "and 20 more" in str(error.value)
    write_manifest(tmp_path, "path,label,speaker\na.wav,JOY,ana\nb.wav,JOY,ana\n")
    with pytest.raises(ValueError, match=r"line 3, path: [^;]*$"):
        Manifest.find(tmp_path)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("3", "3.0"), ("3", "03"), ("Spk03", "spk03"), ("spk 3", "SPK_003"), ("ana b", "Ana-B."),
        ("Íñigo", "Inigo"), ("e\N{COMBINING ACUTE ACCENT}", "é"), ("Strauß", "STRAUSS"),
    ],
)  # fmt: skip
def test_speakers_of_almost_one_name_are_refused(tmp_path, one, other):
    sounds(tmp_path, "a.wav", "b.wav")
    write_manifest(tmp_path, f"path,label,speaker\na.wav,JOY,{one}\nb.wav,JOY,{other}\n")
    with pytest.raises(ValueError, match="line 3, speaker: ") as error:
        Manifest.find(tmp_path)
    assert repr(one) in str(error.value)
    assert repr(other) in str(error.value)


@pytest.mark.parametrize(
    ("one", "other"), [("1", "10"), ("s1_2", "s12"), ("ana", "anna"), ("?", "!"), ("3.5", "3")]
)
def test_other_speakers_are_others(tmp_path, one, other):
    sounds(tmp_path, "a.wav", "b.wav")
    write_manifest(tmp_path, f"path,label,speaker\na.wav,JOY,{one}\nb.wav,JOY,{other}\n")
    assert {facts[1] for facts in found(Manifest, tmp_path).values()} == {one, other}


def test_sentences_of_almost_one_text_are_warned_of(tmp_path, caplog):
    sounds(tmp_path, "a.wav", "b.wav")
    write_manifest(tmp_path, "path,label,speaker,text\na.wav,JOY,ana,Hello.\nb.wav,JOY,ana,hello\n")
    assert len(found(Manifest, tmp_path)) == 2
    assert "'hello' and 'Hello.' in line 2" in caplog.text


SEGMENTS = """file;emotion;speaker;start;end;fold
long.wav;anger;ana;0;1,5;1
long.wav;joy;ben;1.5;2.25;2
long.wav;fear;ben;2.5;9;2
a.wav;joy;ana;;;1.0
"""


def test_parts_of_recordings_are_utterances(tmp_path, caplog):
    sound(tmp_path / "mine/long.wav", 0, 3.0)
    sound(tmp_path / "mine/a.wav", 1, 0.5)
    write_manifest(tmp_path / "mine", SEGMENTS)
    corpus = load(prepare("mine", tmp_path, tmp_path / "data", SMALL, audio=True), "mine")
    names = ["a.wav", "long.wav_0-1.5", "long.wav_1.5-2.25"]
    assert [utterance.name for utterance in corpus.utterances] == names
    assert [utterance.seconds for utterance in corpus.utterances] == [0.5, 1.5, 0.75]
    assert corpus.folds == dict(zip([*names, "long.wav_2.5-9"], "1122", strict=True))
    assert len({utterance.digest for utterance in corpus.utterances}) == 3
    samples, rate = audio.read(tmp_path / "mine/long.wav", 16_000)
    for row, part in ((1, samples[:24_000]), (2, samples[24_000:36_000])):
        expected = spectrogram.draw(part, rate, SMALL)
        np.testing.assert_array_equal(corpus.inputs[row], expected)
    source = corpus.recordings["long.wav_1.5-2.25"]
    np.testing.assert_array_equal(audio.read(source, 0)[0], samples[24_000:36_000])
    assert corpus.skipped == 1
    assert "2.5 to 9 s" in (corpus.directory / "skipped.csv").read_text()
    assert not caplog.text


@pytest.mark.parametrize(
    ("rows", "place"),
    [
        (["1,x"], "line 2, end: 'x'"),
        (["1,"], "line 2, end: ''"),
        (["-1,2"], "line 2, start: '-1'"),
        (["2,1"], "line 2, end: 1"),
        (["nan,1"], "line 2, start: 'nan'"),
        (["0:01,0:02"], "line 2, start: '0:01'"),
        (["0,1", "0,1.0"], "line 3, path: .*line 2"),
    ],
)
def test_impossible_parts_are_refused(tmp_path, rows, place):
    sounds(tmp_path, "a.wav")
    lines = [f"a.wav,JOY,ana,{row}" for row in rows]
    write_manifest(tmp_path, "\n".join(["path,label,speaker,start,end", *lines]))
    with pytest.raises(ValueError, match=place):
        Manifest.find(tmp_path)


def test_parts_that_overlap_are_warned_of(tmp_path, caplog):
    sounds(tmp_path, "a.wav", "b.wav")
    lines = ["a.wav,JOY,ana,0,1", "b.wav,JOY,ben,0.5,2", "a.wav,JOY,ben,1,2", "a.wav,JOY,ana,1.5,3"]
    write_manifest(tmp_path, "\n".join(["path,label,speaker,start,end", *lines]))
    assert len(found(Manifest, tmp_path)) == 4
    assert "overlap" in caplog.text
    assert "lines 4 and 5" in caplog.text
    assert "lines 2" not in caplog.text


def test_a_published_corpus_may_have_other_formats(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    sounds(tmp_path / "emodb", "03a01Fa.wav", "03a02Fa.ogg")
    (tmp_path / "emodb/03a04Fa.m4a").write_bytes(b"of a format that only ffmpeg knows")
    (tmp_path / "emodb/03a01Fa.mp3").write_bytes(b"a copy of the first")
    corpus = load(prepare("emodb", tmp_path, tmp_path / "data", SMALL), "emodb")
    assert [utterance.name for utterance in corpus.utterances] == ["03a01Fa", "03a02Fa"]
    assert corpus.skipped == 1
    assert '03a04Fa.m4a,"needs ffmpeg' in (corpus.directory / "skipped.csv").read_text()
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


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("path|label|speaker\na.wav|JOY|ana\n", "line 1: .*'path'.*commas"),
        ("path;label,speaker\na.wav;JOY,ana\n", "line 1: .*commas or by semicolons"),
        ("path;label\na.wav;JOY\n", "line 1: .*'speaker'.*semicolons.*path, label"),
        ("file,wav,label,speaker\na.wav,a.wav,JOY,ana\n", "line 1: .*'file' and 'wav'"),
        ("path,label,speaker,gendre\na.wav,JOY,ana,f\n", "line 1: .*'gendre'.*'gender'"),
        ('path,label,speaker\n"a.wav,JOY,ana\n', "line "),
        ("path,label\na.wav,JOY\n", "line 1: .*'speaker'"),
        ("path,label,speaker\na.wav,JOY,\n", "line 2, speaker: "),
        ("path,label,speaker\na.wav,JOY\n", "line 2, speaker: "),
        ("path,label,speaker\n\nc.wav,JOY,ana\na.wav,JOY,ana\n", r"line 3, path: .*c\.wav"),
        ("path,label,speaker\na.wav,JOY,ana,x\n", "line 2: "),
        ("path,label,speaker,gender\na.wav,JOY,ana,x\n", "line 2, gender: 'x'"),
        ("path,label,speaker\na.wav,JOY,ana\na.wav,JOY,ana\n", "line 3, path: .*line 2"),
        ("", "line 1: .*'path'"),
    ],
)
def test_a_faulty_manifest_is_an_error_with_line_and_field(tmp_path, text, place):
    sounds(tmp_path, "a.wav", "b.wav")
    write_manifest(tmp_path, text)
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / "manifest.csv")) + ", " + place):
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


@pytest.mark.skipif(not REAL, reason="DS_JAX_CORPORA names no recordings")
def test_emodb_and_emovo_hold_what_is_published(caplog, monkeypatch):
    monkeypatch.undo()
    recordings = EmoDb.find(Path(REAL) / "emodb")
    counts = collections.Counter(recording.label for recording in recordings)
    published = {"ANGER": 127, "DISGUST": 46, "FEAR": 69, "JOY": 71, "NEUTRAL": 79, "SADNESS": 62}
    assert counts == published | {"BOREDOM": 81}
    assert {recording.gender for recording in recordings} == {"female", "male"}
    counts = collections.Counter((r.speaker, r.label) for r in Emovo.find(Path(REAL) / "emovo"))
    assert (len(counts), set(counts.values())) == (6 * 7, {14})
    assert not caplog.text
