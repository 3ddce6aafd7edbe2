"""--mode=corpus shows a corpus' counts on the terminal, and on a page without links to files."""

import base64
import dataclasses
import io
import re

import made_up
import numpy as np
import pytest
import soundfile
import tiny
from PIL import Image

from ds_jax.commands import corpus as command
from ds_jax.data import leakage
from ds_jax.data.corpus import Corpus, Utterance
from ds_jax.data.labels import LABELS
from ds_jax.features.colours import colour_table
from ds_jax.features.source import Source
from ds_jax.report import corpus as report


class Page(made_up.Page):
    """A page as a program reads it, with the rows of its tables."""

    def __init__(self, directory):
        self.rows = {}
        super().__init__((directory / command.PAGE).read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        super().handle_starttag(tag, attributes)
        if tag == "table":
            self.table = self.rows.setdefault(dict(attributes).get("id", len(self.rows)), [])
        elif tag == "tr":
            self.table.append([])
        elif tag in ("td", "th"):
            self.table[-1].append("")

    def handle_data(self, text):
        super().handle_data(text)
        if self.open and self.open[-1] in ("td", "th"):
            self.table[-1][-1] += text


def corpus_of(utterances, **changes):
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (len(utterances), 16, 16), np.uint8)
    owners = np.arange(len(utterances), dtype=np.int32)
    return dataclasses.replace(Corpus("made_up", tuple(utterances), pictures, owners), **changes)


def utterance(name, label="ANGER", speaker="a", gender="female", sentence="s1", seconds=2.0):
    return Utterance(name, label, speaker, gender, sentence, "normal", seconds)


def look(corpus, directory, **changes):
    config = tiny.config()
    config.update(changes)
    command.run(config, corpus, directory)
    return Page(directory)


@pytest.fixture
def corpus():
    """Two speakers, three classes, of which the largest is three times the smallest."""
    return corpus_of(
        [
            utterance("u0"),
            utterance("u1", sentence="s2", seconds=4.0),
            utterance("u2", speaker="b", gender="male", seconds=6.0),
            utterance("u3", "FEAR", "b", "male", "s2", 1.0),
            utterance("u4", "FEAR", "b", "male", "s1", 3.0),
            utterance("u5", "SURPRISE", "a", "female", "s1", 9.5),
        ]
    )


def test_counts(corpus):
    content = report.summarise(corpus)
    assert content["seconds"] == 25.5
    anger, fear = content["classes"][0], content["classes"][2]
    assert {"label": "ANGER", "count": 3, "speakers": 2, "sentences": 2}.items() <= anger.items()
    assert (anger["seconds"], anger["median"]) == (12.0, 4.0)
    assert (fear["count"], fear["speakers"]) == (2, 1)
    assert [row["count"] for row in content["classes"]] == [3, 0, 2, 0, 0, 0, 1]
    assert (content["largest"], content["smallest"]) == ("ANGER", "SURPRISE")
    assert (content["imbalance"], content["largest_share"]) == (3, 0.5)
    speakers = content["tables"]["speaker"]
    assert [row["value"] for row in speakers] == ["a", "b"]
    assert speakers[1]["counts"] == [1, 0, 2, 0, 0, 0, 0]
    assert speakers[1]["genders"] == ["male"]
    for rows in content["tables"].values():
        assert sum(row["count"] for row in rows) == 6
    durations = content["durations"]
    assert (durations["shortest"].name, durations["longest"].name) == ("u3", "u5")
    assert durations["median"] == 3.5
    assert content["equal"] == []


@pytest.mark.parametrize("scale", [0.01, 0.3, 1.0, 7.0, 1000.0])
def test_the_histogram_holds_every_utterance(scale):
    seconds = scale * np.random.default_rng(0).gamma(3, 1, 500).astype(np.float32)
    histogram = report.histogram(seconds)
    counts, width, start = (histogram[name] for name in ("counts", "width", "start"))
    edges = start + width * np.arange(len(counts) + 1)
    assert counts == np.histogram(seconds, edges)[0].tolist()
    assert sum(counts) == 500
    assert 8 < len(counts) <= report.BINS
    assert re.fullmatch(r"[125]\.?0*", f"{width:e}".split("e")[0])


def test_equal_recordings_are_those_that_training_excludes(corpus, tmp_path):
    digests = {"u0": "abc", "u3": "abc", "u4": "d"}  # the others are unknown
    pictures = 0 * corpus.inputs  # equal pictures do not make equal recordings
    utterances = tuple(
        dataclasses.replace(u, digest=digests.get(u.name, "")) for u in corpus.utterances
    )
    copied = dataclasses.replace(corpus, inputs=pictures, utterances=utterances)
    content = report.summarise(copied)
    assert [[u.name for u in group] for group in content["equal"]] == [["u0", "u3"]]
    assert leakage.same_recordings(["u0"], utterances) == {"u0", "u3"}
    assert "2 of equal recordings" in command.lines(content)[0]
    rows = [row for table in look(copied, tmp_path).rows.values() for row in table]
    assert ["1", "u0", "ANGER", "a", "s1", "2.00"] in rows
    assert ["1", "u3", "FEAR", "b", "s2", "1.00"] in rows
    assert not [row for row in rows if row[1] == "u4"]


def test_the_terminal_shows_the_counts(corpus, tmp_path, capsys):
    look(corpus, tmp_path)
    printed = capsys.readouterr().out
    assert "made_up: 6 utterances, 0:26, 2 speakers, 2 sentences, 0 skipped" in printed
    rows = {line.split()[0]: line.split()[1:] for line in printed.splitlines() if line}
    assert rows["ANGER"] == ["3", "0.500", "2", "2", "4.0"]
    assert rows["DISGUST"] == ["0", "0.000", "0", "0", "-"]
    assert "always ANGER: accuracy 0.500; it is 3.0 times as frequent as SURPRISE" in printed
    assert str(tmp_path / "corpus.html") in printed


def test_names_of_classes_are_shown_whole(tmp_path):
    classes = ("Overexcitement", "Overexcited calm")
    some = [utterance(f"u{i}", label, f"s{i}") for i, label in enumerate(classes)]
    page = look(corpus_of(some, classes=classes), tmp_path)
    assert page.rows["speaker"][0][2:4] == list(classes)
    (bars,) = (each for each in page.all("ul") if each.get("id") == "classes")
    assert bars["style"] == "--name: 17ch"


def test_unknown_speakers_are_not_counted_as_one(corpus, tmp_path, capsys):
    nobody = [dataclasses.replace(u, speaker="") for u in corpus.utterances]
    page = look(dataclasses.replace(corpus, utterances=tuple(nobody)), tmp_path)
    printed = capsys.readouterr().out
    assert "6 utterances, 0:26, unknown speakers, 2 sentences" in printed
    rows = {line.split()[0]: line.split()[1:] for line in printed.splitlines() if line}
    assert rows["ANGER"] == ["3", "0.500", "-", "2", "4.0"]
    assert "speaker" not in page.rows
    assert "of unknown speakers and 2 sentences" in page.text


def test_the_page_shows_the_counts_and_needs_no_other_file(corpus, tmp_path):
    page = look(corpus, tmp_path)
    assert page.rows["speaker"][1:] == [
        ["a", "female", "2", "0", "0", "0", "0", "0", "1", "3", "4.0"],
        ["b", "male", "1", "0", "2", "0", "0", "0", "0", "3", "3.0"],
    ]
    assert page.rows["sentence"][1][:2] == ["s1", "2"]
    assert "DISGUST, no JOY, no NEUTRAL, no SADNESS" in page.text
    rectangles = page.all("rect")
    lengths = [float(r["width"]) for r in rectangles if r["class"] == "fill" and "x" not in r]
    assert lengths == [100, 0, 66.67, 0, 0, 0, 33.33]  # of the largest class
    svgs = [svg for svg in page.all("svg") if svg["class"] == "plot"]
    assert {svg["role"] for svg in svgs} == {"img"}
    assert len(svgs) == 1 + 4  # the histogram, and the pictures
    counts = [int(text) for text in re.findall(r" s: (\d+)", page.text)]
    assert sum(counts) == 2 * 6  # each bar's title, and once more in the text alternative
    assert len([r for r in rectangles if r["class"] == "fill" and "x" in r]) == len(counts) // 2
    for tag in ("link", "image", "audio", "a", "script"):
        for attributes in page.all(tag):
            source = attributes.get("src") or attributes["href"]
            assert source.startswith(("data:", "#"))
    assert not page.has("synthetic")
    assert look(corpus, tmp_path, synthetic=True).has("synthetic")


def test_a_balanced_corpus_has_no_largest_class(tmp_path, capsys):
    page = look(corpus_of([utterance(f"u{i}", LABELS[i]) for i in range(7)]), tmp_path)
    assert "accuracy 0.143" in capsys.readouterr().out
    assert "times as frequent" not in page.text


@pytest.mark.parametrize("colour_map", ["viridis", "magma"])
def test_each_class_has_a_picture_of_each_shown_speaker(tmp_path, colour_map):
    utterances = [
        utterance(f"{speaker}{label}{take}", label, speaker, gender, seconds=1.0 + take)
        for speaker, gender in (*((f"f{i}", "female") for i in range(4)), ("m0", "male"))
        for label in LABELS[:3]
        for take in range(3)
    ]
    many = corpus_of(utterances)
    page = look(many, tmp_path, picture={"colour_map": colour_map})
    expected = [
        f"{speaker}{label}1, {label} by {speaker}"  # of middle length
        for label in LABELS[:3]
        for speaker in ("f0", "m0", "f1", "f2")
    ]
    plots = [svg for svg in page.all("svg") if svg["class"] == "plot"][1:]
    assert [svg["aria-label"].partition("of ")[2] for svg in plots] == expected
    assert page.text.count("frequency in Hz") == page.text.count("time in s") == len(expected)
    data = base64.b64decode(page.all("image")[0]["href"].partition(",")[2])
    found = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    row = [one.name for one in utterances].index("f0ANGER1")
    np.testing.assert_array_equal(found, colour_table(colour_map)[many.inputs[row]][..., ::-1])


def test_features_have_no_pictures(corpus, tmp_path):
    features = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    assert not look(dataclasses.replace(corpus, inputs=features), tmp_path).all("image")


def test_examples_can_be_heard_where_the_terms_allow(corpus, tmp_path):
    assert not look(corpus, tmp_path).all("audio")
    samples = np.sin(np.arange(4000) / 9)
    soundfile.write(tmp_path / "a.wav", samples, 8000)
    sources = {u.name: Source(tmp_path / "a.wav") for u in corpus.utterances}
    heard = dataclasses.replace(corpus, recordings=sources, audio_terms="name the speakers")
    page = look(heard, tmp_path)
    assert len(page.all("audio")) == 4
    content = base64.b64decode(page.all("audio")[0]["src"].partition(",")[2])
    played, rate = soundfile.read(io.BytesIO(content))
    assert (rate, played.shape) == (16_000, (8000,))
    assert page.has("terms")
    assert "name the speakers" in page.text


def test_a_closed_folder_is_named(corpus, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file/look .*--workdir"):
        look(corpus, tmp_path / "file" / "look")
