"""Hostile names are text in every page, and unchanged in tables."""

import csv
import dataclasses
import re
from pathlib import Path

import made_up
import malformed
import tiny

from datasets.prepare import prepare
from ds_jax.commands import corpus as command
from ds_jax.commands import train
from ds_jax.data import fold_files
from ds_jax.data.corpus import load
from ds_jax.data.labels import LABELS
from ds_jax.evaluation import predictions
from ds_jax.features.spectrogram import PictureSettings

HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "' onmouseover='alert(1)",
    "{{7*7}}",
    "=1+1|' cmd",
    "&lt;script&gt;",
    "a\nb\x1b[31m",
)


def check_page(path: Path, *names: str) -> None:
    """Checks that a page shows names as text, and runs none of them."""
    page = made_up.check_page(path.read_text(encoding="utf-8"), "(#|data:|https?://)")
    for name in names:
        assert re.sub(r"\s+", " ", name) in page.text, name


def test_hostile_names_are_text_in_a_report_and_unchanged_in_its_tables(tmp_path):
    config, plain = tiny.make("mlr")
    utterances = [
        dataclasses.replace(
            u, name=f"{HOSTILE[i % 8]} {i}", speaker=HOSTILE[i % 3], sentence=HOSTILE[i % 8]
        )
        for i, u in enumerate(plain.utterances)
    ]
    utterances.sort(key=lambda u: u.name)
    corpus = dataclasses.replace(plain, name=HOSTILE[0], utterances=tuple(utterances))
    config.corpus = HOSTILE[0]
    assert train.run(config, corpus, tmp_path)
    check_page(tmp_path / "report.html", *HOSTILE[:3])
    # Tables are for programs: their names lead back to recordings.
    tables = [predictions.read(path) for path in sorted(tmp_path.glob("fold_*/predictions.csv"))]
    names = {u.name for u in utterances}
    assert {*predictions.concatenate(tables).utterances} == names
    protocol, divided = fold_files.read_folds(tmp_path / "folds.json", corpus.utterances)
    assert protocol == "speakers"
    assert {name for fold in divided for name in fold.test} == names


def test_hostile_names_of_files_are_text_in_a_corpus_page(tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    rows = [("path", "label", "speaker", "sentence")]
    for index, name in enumerate(HOSTILE):
        file = f"{name.replace('/', '')}.wav"
        content = malformed.encoded(malformed.speech(seed=index)) if index % 2 else b"no audio"
        (folder / file).write_bytes(content)
        rows.append((file, LABELS[index % 7], name, name))
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as table:
        csv.writer(table).writerows(rows)
    builder = prepare("own", tmp_path, tmp_path / "data", PictureSettings(canvas=16))
    command.run(tiny.config(), load(builder, "own"), tmp_path / "page")
    check_page(
        tmp_path / "page" / command.PAGE, HOSTILE[1], HOSTILE[3], "<script>alert(1)<script>.wav"
    )
