"""A manifest is read as people have it, and anything unclear is refused with its place."""

import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from recordings import SMALL, facts, found, sound, sounds

from configs import base
from datasets.manifest.manifest_dataset_builder import Builder as Manifest
from datasets.prepare import Corpora, prepare
from ds_jax.data import tables
from ds_jax.data.corpus import Utterance, load
from ds_jax.data.fold_files import given_folds
from ds_jax.data.labels import LABELS
from ds_jax.data.names import plain
from ds_jax.features import audio, spectrogram


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
    assert capsys.readouterr().out.endswith("\nmine: 3 utterances\n")
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
        "filename\tclass\tspk\tstatement\tgender\n"
        "ana/1.wav\tanger\tana\ts1\tFemale\nben/2.wav\tjoy\tben\ts2\tmale\n",
        ' Wav , EMOTION ,Subject,Sentence ID,"sex"\n'
        'ana\\1.wav, anger, ana,"s1",woman\n"ben/2.wav", joy, ben, s2, Man\n,,,,\n',
        "archivo;emoción;locutor;frase;género;;\n"
        "ana/1.wav;anger;ana;s1;mujer;;\nben/2.wav;joy;ben;s2;hombre;;\n\n",
        "Datei;Emotion;Sprecher;Satz;Geschlecht\n"
        "ana/1.wav;anger;ana;s1;weiblich\nben/2.wav;joy;ben;s2;männlich\n",
        "path|label|speaker|sentence|gender\n"
        "ana/1.wav|anger|ana|s1|f\nben/2.wav|joy|ben|s2|m\n||||\n",
        "file;emozione;parlante;testo;sesso\n"
        "ana/1.wav;anger;ana;s1;femmina\nben/2.wav;joy;ben;s2;Maschio\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_manifest_is_read_as_people_have_it(tmp_path, capsys, text, encoding):
    sounds(tmp_path, *ROWS)
    (tmp_path / "manifest.csv").write_bytes(text.encode(encoding))
    rows = found(Manifest, tmp_path)
    assert {name: (label.upper(), *rest) for name, (label, *rest) in rows.items()} == ROWS
    printed = capsys.readouterr().out
    foreign = [plain(name) for name in tables.read(tmp_path / "manifest.csv").columns]
    fields = ("path", "label", "speaker", "gender", "sentence")
    assert printed.count(" = ") == sum(name not in ("", *fields) for name in foreign)


def test_columns_without_a_use_are_named(tmp_path, capsys):
    sounds(tmp_path, "a.wav", "b.wav")
    write_manifest(
        tmp_path, ",path,label,speaker,Age,file\n0,a.wav,JOY,ana,3,x\n1,b.wav,JOY,ben,,y\n"
    )
    assert list(found(Manifest, tmp_path)) == ["a.wav", "b.wav"]  # path goes before file
    assert "one without a name, Age, file" in capsys.readouterr().out


@pytest.mark.parametrize(
    "column",
    ["start", "start_ms", "is_train", "End Frame", "offset", "fold 1", "train_split", "channel"],
)
def test_columns_that_may_matter_are_refused(tmp_path, column):
    sounds(tmp_path, "a.wav")
    write_manifest(tmp_path, f"path,label,speaker,{column}\na.wav,JOY,ana,1\n")
    with pytest.raises(ValueError, match=rf"{re.escape(repr(column))}(, and none| is not)"):
        Manifest.find(tmp_path)


def own_labels(folder: Path) -> tuple[Corpora, ConfigDict]:
    """A corpus "mine" of files that are no recordings, with labels beside the seven emotions."""
    labels = ("calm", "anger", "meh", "Calm")
    rows = [f"{number}.wav,{label},s{number}\n" for number, label in enumerate(labels)]
    write_manifest(folder / "mine", "path,label,speaker\n" + "".join(rows))
    for number in range(len(labels)):
        (folder / f"mine/{number}.wav").write_text("no audio")
    config = base.get_config()
    base.use_mlr(config, "mfcc")
    config.corpus = "mine"
    return Corpora(folder, folder / "data"), config


def test_labels_without_a_class_are_refused_before_a_recording_is_read(tmp_path):
    corpora, config = own_labels(tmp_path)
    wanted = r"""--config.classes='\("ANGER","calm","meh"\)'"""
    with pytest.raises(ValueError, match=rf"Calm \(1\), calm \(1\), meh \(1\).*{wanted}"):
        corpora.load(config, "mine")
    config.classes = ("anger", "calm", "meh")
    with pytest.raises(ValueError, match=r"none can be used.*0\.wav"):  # the next trouble
        corpora.load(config, "mine")
    config.classes, config.corpus = ("sad", "afraid"), "emodb"  # which it is only tested for
    with pytest.raises(ValueError, match="for no class"):
        corpora.load(config, "mine")
    assert not [*tmp_path.glob("data/manifest/*/*/skipped.csv")]


def test_a_description_takes_other_labels_for_classes(tmp_path, capsys):
    corpora, config = own_labels(tmp_path)
    config.label_map = ("meh=",)
    sounds(tmp_path / "mine", *(f"{number}.wav" for number in range(4)))
    corpus = corpora.load(config, "mine", describes=True)
    assert corpus.classes == (*LABELS, "calm")
    assert [utterance.label for utterance in corpus.utterances] == ["calm", "ANGER", "calm"]
    assert """ --config.classes='("ANGER","calm")'""" in capsys.readouterr().out


def test_all_missing_files_are_named_at_once(tmp_path):
    sounds(tmp_path, "a.wav")
    rows = [f"{number}.wav,JOY,ana" for number in range(30)]
    write_manifest(tmp_path, "\n".join(["path,label,speaker", "a.wav,JOY,ana", *rows]))
    with pytest.raises(ValueError, match=f"line 3, path: .*{tmp_path}/0.wav; .*29 others") as error:
        Manifest.find(tmp_path)
    for number in range(1, 30):
        assert f"line {number + 3}, {number}.wav" in str(error.value)
    write_manifest(tmp_path, "path,label,speaker\na.wav,JOY,ana\nb.wav,JOY,ana\n")
    with pytest.raises(ValueError, match=r"line 3, path: [^;]*$"):
        Manifest.find(tmp_path)


@pytest.mark.parametrize("path", ["Ana 1.wav", "ana_1", "ANA_1.WAV", "mine/clips/ana_1.wav"])
def test_a_missing_file_is_told_with_the_nearest(tmp_path, path):
    sounds(tmp_path, "clips/ana_1.wav", "clips/ana_2.wav")
    write_manifest(tmp_path, f"path,label,speaker\n{path},JOY,ana\n")
    with pytest.raises(FileNotFoundError, match=r" is clips/ana_1\.wav: "):
        Manifest.find(tmp_path)


def test_a_home_folder_is_meant_in_a_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    sounds(tmp_path, "a.wav")
    write_manifest(tmp_path / "mine", "path,label,speaker\n~/a.wav,JOY,ana\n")
    assert list(found(Manifest, tmp_path / "mine")) == [f"{tmp_path}/a.wav"]


@pytest.mark.parametrize(("written", "named"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_letters_with_accents_are_the_same_in_both_of_their_forms(tmp_path, written, named):
    name = unicodedata.normalize(named, "Iñigo/años.wav")
    sounds(tmp_path, name)
    row = unicodedata.normalize(written, "Iñigo\\años.wav,JOY,Iñigo")
    write_manifest(tmp_path, f"path,label,speaker\n{row}\n")
    assert list(found(Manifest, tmp_path)) == [name]


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


def test_sentences_of_almost_one_text_are_told(tmp_path, capsys):
    sounds(tmp_path, "a.wav", "b.wav")
    write_manifest(tmp_path, "path,label,speaker,text\na.wav,JOY,ana,Hello.\nb.wav,JOY,ana,hello\n")
    assert len(found(Manifest, tmp_path)) == 2
    assert "'hello' and 'Hello.' in line 2" in capsys.readouterr().out


SEGMENTS = """file;emotion;speaker;start;end;fold
long.wav;anger;ana;0;1,5;1
long.wav;joy;ben;1.5;2.25;2
long.wav;fear;ben;2.5;9;2
a.wav;joy;ana;;;1.0
"""


def test_parts_of_recordings_are_utterances(tmp_path):
    sound(tmp_path / "mine/long.wav", 0, 3.0)
    sound(tmp_path / "mine/a.wav", 1, 0.5)
    write_manifest(tmp_path / "mine", SEGMENTS)
    corpus = load(prepare("mine", tmp_path, tmp_path / "data", SMALL, audio=True), "mine")
    names = ["a.wav", "long.wav_0-1.5", "long.wav_1.5-2.25"]
    assert [utterance.name for utterance in corpus.utterances] == names
    assert [utterance.seconds for utterance in corpus.utterances] == [0.5, 1.5, 0.75]
    assert [utterance.fold for utterance in corpus.utterances] == ["1.0", "1", "2"]
    assert len({utterance.digest for utterance in corpus.utterances}) == 3
    samples, rate = audio.read(tmp_path / "mine/long.wav", 16_000)
    for row, part in ((1, samples[:24_000]), (2, samples[24_000:36_000])):
        expected = spectrogram.draw(part, rate, SMALL)
        np.testing.assert_array_equal(corpus.inputs[row], expected)
    source = corpus.recordings["long.wav_1.5-2.25"]
    np.testing.assert_array_equal(audio.read(source, 0)[0], samples[24_000:36_000])
    assert [name for name, *_ in corpus.skipped] == ["long.wav_2.5-9"]
    assert "2.5 to 9 s" in (corpus.directory / "skipped.csv").read_text()


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


@pytest.mark.parametrize(
    ("columns", "times"),
    [
        ("from,to", "0.5,1.5"),
        ("von,bis", "0.5,1.5"),
        ("Anfang [s],Ende [s]", "0.5,1.5"),
        ("desde,hasta", "0.5,1.5"),
        ("inizio,fine", "0.5,1.5"),
        ("t_start,t_end", "0.5,1.5"),
        ("Start Time (sec),End Time (sec)", "0.5,1.5"),
        ("onset,offset", "0.5,1.5"),
        ("onset,duration", "0.5,1.0"),
        ("offset,duration", "0.5,1.0"),
        ("Beginn,Dauer", "0.5,1.0"),
        ("start,end,duration", "0.5,1.5,7"),  # start and end are clear
    ],
)
def test_times_have_many_names(tmp_path, columns, times):
    sounds(tmp_path, "a.wav")
    write_manifest(tmp_path, f"path,label,speaker,{columns}\na.wav,JOY,ana,{times}\n")
    (recording,) = Manifest.find(tmp_path)
    assert (recording.name, recording.start, recording.end) == ("a.wav_0.5-1.5", 0.5, 1.5)


@pytest.mark.parametrize(
    ("column", "cells"),
    [
        ("phase", ("train", "test")),
        ("Subset", ("Training", "Test set")),
        ("partición", ("entrenamiento", "prueba")),
        ("is_test", ("no", "yes")),
        ("Test", ("0", "1")),
        ("cv", ("1", "2.0")),
        ("fold_id", ("a", "b")),
    ],
)
def test_folds_have_many_names(tmp_path, column, cells):
    sounds(tmp_path, "a.wav", "b.wav")
    rows = [f"{name}.wav,JOY,{name},{cell}" for name, cell in zip("ab", cells, strict=True)]
    write_manifest(tmp_path, "\n".join([f"path,label,speaker,{column}", *rows]))
    spoken = [
        Utterance(r.name, "JOY", r.speaker, "", "", "", 1, fold=r.fold)
        for r in Manifest.find(tmp_path)
    ]
    folds = given_folds(spoken, select_on="none")
    assert (folds[-1].train, folds[-1].test) == (("a.wav",), ("b.wav",))


@pytest.mark.parametrize(
    ("column", "cell"), [("phase", "before"), ("set", "B"), ("cv", "x.pdf"), ("is_test", "maybe")]
)
def test_a_column_that_may_be_of_folds_or_not_is_refused(tmp_path, column, cell):
    sounds(tmp_path, "a.wav")
    write_manifest(tmp_path, f"path,label,speaker,{column}\na.wav,JOY,ana,{cell}\n")
    with pytest.raises(ValueError, match=f"line 2: .*'{column}' has '{cell}'"):
        Manifest.find(tmp_path)


@pytest.mark.parametrize(
    ("cells", "sentences"),
    [
        (("s1", "s1"), ["s1", "s1"]),  # said twice
        (("Good day.", "Help!"), ["Good day.", "Help!"]),
        (("a", "b"), ["", ""]),  # names of files
        (("a.wav", "b.wav"), ["", ""]),
        (("u1", "u2"), None),
    ],
)
def test_a_column_of_utterances_is_one_of_sentences_where_that_is_clear(
    tmp_path, capsys, cells, sentences
):
    sounds(tmp_path, "a.wav", "b.wav")
    rows = [f"{name}.wav,JOY,ana,{cell}" for name, cell in zip("ab", cells, strict=True)]
    write_manifest(tmp_path, "\n".join(["path,label,speaker,Utterance", *rows]))
    if sentences is None:
        with pytest.raises(ValueError, match=r"line 1: .*'Utterance' .*u1, u2"):
            Manifest.find(tmp_path)
        return
    assert [recording.sentence for recording in Manifest.find(tmp_path)] == sentences
    assert ("without a use: Utterance" in capsys.readouterr().out) == (sentences == ["", ""])


def test_a_table_says_once_how_its_columns_were_understood(tmp_path, capsys):
    sounds(tmp_path, "a.wav")
    write_manifest(tmp_path, "path;Stimmung;Sprecher_in;von;Dauer\na.wav;JOY;ana;0;1\n")
    for _ in range(2):
        Manifest.find(tmp_path)
    assert capsys.readouterr().out == (
        f"{tmp_path}/manifest.csv: label = Stimmung, speaker = Sprecher_in, start = von, "
        "duration = Dauer\n"
    )


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("path:label:speaker\na.wav:JOY:ana\n", "line 1: .*one column 'path:label.*no commas"),
        ("path;label,speaker\na.wav;JOY,ana\n", "line 1: .*commas or by semicolons"),
        ("path;label\na.wav;JOY\n", "line 1: .*'speaker'.*semicolons.*path, label"),
        ("file,wav,label,speaker\na.wav,a.wav,JOY,ana\n", "line 1: .*'file' and 'wav'"),
        ("path,label,speaker,gendre\na.wav,JOY,ana,f\n", "line 1: .*'gendre'.*'gender'"),
        ('path,label,speaker\n"a.wav,JOY,ana\n', "line "),
        ("My corpus\npath,label,speaker\na.wav,JOY,ana\n", "line 2 .*'My corpus'.*columns"),
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
    for encoding in ("latin-1", "utf-16-le", "utf-32"):
        content = "path,label,speaker\na.wav,JOY,Íñigo\n".encode(encoding)
        (tmp_path / "mine/manifest.csv").write_bytes(content)
        with pytest.raises(ValueError, match="not UTF-8"):
            Manifest.find(tmp_path / "mine")
