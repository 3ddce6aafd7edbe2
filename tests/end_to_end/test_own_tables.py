"""Published corpora give equal predictions through tables in German, English and Italian."""

import csv
import importlib
import os
from pathlib import Path

import pytest

from configs import base
from datasets.prepare import prepare
from ds_jax.commands import train
from ds_jax.data import corpus
from ds_jax.evaluation import predictions
from ds_jax.features.extract import FeatureSettings
from ds_jax.runtime.workdir import PREDICTIONS, fold_directory

REAL = os.environ.get("DS_JAX_CORPORA", "")
FIELDS = ("path", "label", "speaker", "gender", "sentence")
# For each corpus the separator, the columns, the words for its labels and those for genders.
TABLES = {
    "emodb": (
        ";",
        ("Datei", "Stimmung", "Sprecher_in", "Geschlecht", "Satz"),
        "ANGER=Ärger DISGUST=Ekel FEAR=Angst JOY=Freude NEUTRAL=neutral SADNESS=Trauer "
        "BOREDOM=Langeweile",
        "female=weiblich male=männlich",
    ),
    "emovo": (
        ",",
        ("File Name", "Emotion", "Actor", "Sex", "Transcript"),
        "ANGER=angry DISGUST=disgusted FEAR=fearful JOY=happy NEUTRAL=Neutral SADNESS=sad "
        "SURPRISE=surprised",
        "female=F male=M",
    ),
    "ravdess": (
        "\t",
        ("percorso", "emozione", "attore", "sesso", "frase"),
        "ANGER=rabbia DISGUST=disgusto FEAR=paura JOY=gioia NEUTRAL=neutrale SADNESS=tristezza "
        "SURPRISE=sorpresa CALM=calma",
        "female=femmina male=maschio",
    ),
}


def words(text: str) -> dict[str, str]:
    return dict(pair.split("=") for pair in text.split())


def write_table(name: str, folder: Path) -> None:
    """Describes a corpus by a table, of links to its files, which are called as its utterances."""
    separator, columns, labels, genders = TABLES[name]
    builder = importlib.import_module(f"datasets.{name}.{name}_dataset_builder").Builder
    folder.mkdir(parents=True)
    translated = {"label": words(labels), "gender": words(genders)}
    with open(folder / "manifest.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, delimiter=separator)
        table.writerow(columns)
        for found in builder.find(Path(REAL) / name):
            path = folder / f"{found.name}{found.path.suffix}"
            path.symlink_to(found.path)
            row = {field: getattr(found, field) for field in FIELDS} | {"path": path.name}
            table.writerow(translated.get(field, {}).get(row[field], row[field]) for field in row)


def answers(name: str, corpora: Path, folder: Path) -> tuple[list[tuple], list[list[float]]]:
    """Fits a linear regression on one fold; returns what it says of the tested files."""
    config = base.get_config()
    base.use_mlr(config, "mfcc")
    config.corpus, config.folds.protocol, config.folds.count = name, "speakers", 3
    config.label_map = ("Langeweile=", "calma=")
    builder = prepare(name, corpora, folder / "data", FeatureSettings("mfcc"))
    made = corpus.load(builder, name, config.classes, config.label_map)
    train.run(config, made, folder / name, [0])
    tested = predictions.read(fold_directory(folder / name, 0) / PREDICTIONS)
    names = [Path(utterance).stem for utterance in tested.utterances]
    return [*zip(names, tested.labels, tested.speakers, strict=True)], tested.probabilities.tolist()


@pytest.mark.slow
@pytest.mark.skipif(not REAL, reason="DS_JAX_CORPORA names no recordings")
@pytest.mark.parametrize("name", TABLES)
def test_a_table_gives_the_predictions_of_the_corpus_builder(name, tmp_path):
    write_table(name, tmp_path / "corpora" / "mine")
    published = answers(name, Path(REAL), tmp_path)
    assert len(published[0]) > 100
    assert answers("mine", tmp_path / "corpora", tmp_path) == published
