"""Corpora whose recordings train the models too are prepared first, and for training alone."""

import dataclasses

import numpy as np
import pytest
import soundfile
from absl.testing import flagsaver
from refusals import refused_field

import launch
from configs import base, ladder
from datasets import prepare


@pytest.fixture
def corpora(tmp_path):
    for name, count in (("mine", 4), ("yours", 5)):
        (tmp_path / "raw" / name).mkdir(parents=True)
        lines = ["path,label,speaker"]
        for number in range(count):
            samples = np.random.default_rng([count, number]).uniform(-0.5, 0.5, 8000)
            soundfile.write(tmp_path / "raw" / name / f"{number}.wav", samples, 16_000)
            lines.append(f"{number}.wav,{('ANGER', 'JOY')[number % 2]},s{number}")
        (tmp_path / "raw" / name / "manifest.csv").write_text("\n".join(lines), "utf-8")
    return prepare.Corpora(tmp_path / "raw", tmp_path / "data")


def experiment(*entries):
    config = base.get_config()
    base.use_ds_ridge(config)
    config.corpus, config.auxiliary, config.picture.mel_bands = "mine", entries, 32
    return config


def test_another_corpus_is_loaded_first_and_without_sound(corpora, monkeypatch):
    calls, load = [], prepare.Corpora._load
    monkeypatch.setattr(
        prepare.Corpora,
        "_load",
        lambda self, config, name, settings, describes, forms: (
            calls.append((name, self.audio, forms))
            or load(dataclasses.replace(self, audio=False), config, name, settings, describes, 1)
        ),
    )
    given = experiment("yours=0.5")
    found = dataclasses.replace(corpora, audio=True).load(given, "mine")
    assert calls == [("yours", False, 2), ("mine", True, 2)]
    [group] = found.auxiliary
    assert (group.name, len(group.utterances), found.extra) == ("yours", 5, 5)
    calls.clear()
    for load_one in (dataclasses.replace(corpora, trains=False).load, corpora.load):
        name = "mine" if not calls else "yours"
        assert not load_one(given, name).auxiliary
    assert [forms for *_, forms in calls] == [1, 1]


@pytest.mark.parametrize(
    "entries", [("emov=1", "emovo=0.5"), ("yours=1", "yours=1"), ("EMO-DB=1",), ("yours",)]
)
def test_names_are_compared_when_they_are_complete(corpora, entries):
    given = experiment(*entries)
    given.corpus = "emodb"
    assert refused_field(corpora.load, given, "emodb") == "auxiliary"
    assert not corpora.data.exists()


def test_names_in_rows_of_a_ladder_are_completed_and_checked(corpora, tmp_path):
    config = ladder.get_config()
    rows = config.rows
    ridge = rows.and_ridge.experiment.members.ridge
    ridge.auxiliary = ("EMO-VO=0.5", "yours=1")
    with flagsaver.flagsaver(corpora_dir=str(corpora.raw)):
        launch.check(config, "train", tmp_path)
        assert ridge.auxiliary == ("emovo=0.5", "yours=1")
        assert {member.auxiliary for member in ridge.members.values()} == {("emovo=0.5", "yours=1")}
        rows.rows.experiment.auxiliary = ("nobody=1",)
        with pytest.raises(ValueError, match="auxiliary='nobody'"):
            launch.check(config, "train", tmp_path)
