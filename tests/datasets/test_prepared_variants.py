"""Variants of recordings are prepared as the recordings are, for training alone."""

import dataclasses

import numpy as np
import pytest
import soundfile
from recordings import sound

from configs import base
from datasets import prepare
from ds_jax.features import extract, variants


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpora")
    lines = ["path,label,speaker"]
    for number, label in enumerate(("ANGER", "JOY", "FEAR")):
        sound(folder / "raw" / "mine" / f"{number}.wav", number, 0.5 + number / 16)
        lines.append(f"{number}.wav,{label},s{number}")
    (folder / "raw" / "mine" / "manifest.csv").write_text("\n".join(lines), "utf-8")
    return prepare.Corpora(folder / "raw", folder / "data")


def experiment(*given):
    config = base.get_config()
    base.use_ds_am_statistics(config)
    config.corpus, config.variants, config.picture.mel_bands = "mine", given, 32
    return config


def test_rows_of_variants_are_pictures_of_varied_recordings(corpora):
    config = experiment("speed=0.8", "noise=10")
    found = corpora.load(config, "mine")
    assert (len(found.utterances), len(found.inputs), found.extra) == (3, 9, 6)
    assert found.owners.tolist() == [0, 1, 2] * 3
    settings = extract.settings(config)
    for row, variant in ((1, ""), (4, "speed=0.8"), (7, "noise=10")):
        samples, rate = soundfile.read(corpora.raw / "mine" / "1.wav", dtype="float32")
        (wanted,) = extract.from_samples(variants.vary(samples, rate, variant), rate, settings)
        np.testing.assert_array_equal(found.inputs[row][:, : wanted.shape[1]], wanted)
        assert not found.inputs[row][:, wanted.shape[1] :].any()


def test_where_nothing_is_trained_no_variant_is_prepared(corpora):
    tested = dataclasses.replace(corpora, trains=False)
    assert tested.load(experiment("pitch=3"), "mine").extra == 0
    other = experiment("pitch=3")
    other.corpus = "another"
    assert corpora.load(other, "mine").extra == 0
    assert not list(corpora.data.rglob("*pitch*"))


def test_names_of_prepared_data_tell_variants_apart():
    def key(variant):
        return extract.settings({**experiment(), "variant": variant}).key()

    kinds = "", "speed=0.9", "speed=1.1", "pitch=1", "tract=1.1", "noise=1"
    assert len({key(each) for each in kinds}) == 6
    assert key("speed=0.9") == key("speed=0.90")
