"""A run on embeddings, from recordings to its report: alone, and fused with another system."""

import importlib.util
import json

import numpy as np
import pytest
import recordings
import speech_models
from refusals import refused_field

import ds_jax
from configs import base
from datasets.prepare import Corpora
from ds_jax import config as configuration
from ds_jax.commands import compare, ensemble, evaluate, export, train
from ds_jax.evaluation import summary
from ds_jax.features import audio, embeddings, extract
from ds_jax.systems import base as systems

LABELS = ("ANGER", "JOY", "NEUTRAL")
SAID = "gives its licence as cc-by-sa-3.0, and its training data as librispeech_asr, libri-light"


def statistics(samples, settings):
    """Numbers of a recording in place of a model's, which needs packages that may be missing."""
    halves = np.array_split(np.abs(np.fft.rfft(samples, 4096)), settings.size)
    return np.log1p([half.mean() for half in halves]).astype(np.float32)


def make(folder, use, **options):
    """The config of a system on embeddings of the model in a folder."""
    config = base.get_config()
    use(config, "embeddings", **options)
    config.embeddings.model, config.embeddings.layer = str(folder / "model"), 2
    config.corpus, config.classes = "mine", LABELS
    config.folds.protocol, config.folds.count = "speakers", 3
    return config


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a corpus of eighteen recordings of three speakers, and a model."""
    folder, patch = tmp_path_factory.mktemp("embeddings"), pytest.MonkeyPatch()
    if all(map(importlib.util.find_spec, ("torch", "transformers"))):
        speech_models.save(folder / "model")
    else:
        speech_models.write(folder / "model")
        patch.setattr(embeddings, "load", lambda settings: None)
        stands_in = extract.SETS["embeddings"]._replace(function=statistics)
        patch.setitem(extract.SETS, "embeddings", stands_in)
    for corpus in ("mine", "other"):
        lines = ["path,label,speaker"]
        for speaker in range(3):
            for number in range(6):
                name = f"{speaker}/{number}.wav"
                seed = 100 * (corpus == "other") + 10 * speaker + number
                recordings.sound(folder / "corpora" / corpus / name, seed)
                lines.append(f"{name},{LABELS[number % 3]},s{speaker}")
        (folder / "corpora" / corpus / "manifest.csv").write_text("\n".join(lines))
    yield folder
    patch.undo()


def load(place):
    return Corpora(place / "corpora", place / "data").load


@pytest.fixture(scope="module")
def run(place):
    """A finished run of the SVC."""
    config = make(place, base.use_svc, kernel="linear")
    config.model.costs = (0.01, 1.0)
    configuration.check_fields(config, base.SCHEMAS)
    embeddings.pin(config)
    systems.check(config)
    assert train.run(config, load(place)(config, "mine"), place / "svc")
    return place / "svc"


def test_the_report_names_the_model_its_licence_and_its_hash(run):
    result = summary.read(run / "report.json")
    assert result.system == "SVC on embeddings (model, layer 2)"
    assert (result.n, result.settings["embeddings.model"]) == (18, "model")
    digest = result.settings["embeddings.sha256"]
    assert result.made["weights"] == f"sha256:{digest}"
    assert configuration.read(run).embeddings.sha256 == digest
    (said,) = result.made["model_terms"]
    assert SAID in said
    assert said in (run / "report.html").read_text("utf-8")
    assert said in ds_jax.load(run).card["licences"]


def test_prepared_data_is_found_by_the_weights_and_the_layer(run, place):
    config = configuration.read(run)
    (folder,) = (place / "data/manifest").glob(f"mine-*-{extract.settings(config).key()}")
    assert config.embeddings.sha256[:16] in folder.name
    assert folder.name.endswith("-2")


def test_the_models_answer_in_python_and_say_what_they_lack(run, place, tmp_path):
    model = ds_jax.load(run)
    samples, rate = audio.read(place / "corpora/other/0/1.wav", 16_000)
    longer = np.concatenate([samples, samples[::-1]])
    together = model([samples, longer], rate)
    assert together.shape == (2, 3)
    np.testing.assert_allclose(together.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(together[0], model(samples, rate), rtol=1e-6)
    (record,) = model.predict(place / "corpora/other/0/1.wav")
    assert record[record["prediction"]] == pytest.approx(together[0].max(), abs=1e-6)
    assert refused_field(export.run, run, tmp_path / "export") == "system"


def test_another_corpus_is_tested(run, place):
    config = configuration.read(run)
    result = evaluate.run(run, load(place)(config, "other"))
    assert (result.corpus, result.n) == ("other", 18)
    assert SAID in result.made["model_terms"][0]
    assert result.made["weights"] == f"sha256:{config.embeddings.sha256}"


def test_a_run_does_not_go_on_with_other_weights(run, place):
    config = configuration.read(run)
    config.embeddings.sha256 = "0" * 64
    with pytest.raises(ValueError, match=r"embeddings\.sha256"):
        train.run(config, load(place)(configuration.read(run), "mine"), run)


def test_embeddings_are_fused_and_compared(run, place):
    config, speech, other = base.get_config(), make(place, base.use_ridge), base.get_config()
    base.use_mlr(other, "mfcc")
    base.use_ensemble(config, speech=speech, other=other)
    config.corpus, config.classes = "mine", LABELS
    config.folds.protocol, config.folds.count = "speakers", 3
    configuration.check_fields(config, base.SCHEMAS)
    embeddings.pin(config)
    systems.check(config)
    assert ensemble.run(config, load(place), place / "fused")
    result = summary.read(place / "fused/report.json")
    assert result.system == "mean of MLR on MFCC, Ridge on embeddings (model, layer 2)"
    assert SAID in result.made["model_terms"][0]
    tested = ensemble.evaluate_on(config, load(place), place / "fused", "other")
    assert SAID in tested.made["model_terms"][0]
    assert any(SAID in line for line in ds_jax.load(place / "fused").card["licences"])
    compare.run([run, place / "fused"], place / "compared")
    compared = json.loads((place / "compared/comparison.json").read_text())
    assert "embeddings (model, layer 2)" in json.dumps(compared)


@pytest.mark.parametrize(
    "use",
    [
        base.use_mlr,
        base.use_xgboost,
        base.use_ffnn,
        pytest.param(base.use_lstm, marks=pytest.mark.slow),
    ],
)
def test_every_classifier_reads_them(use, place, tmp_path):
    config = make(place, use)
    if "train" in config:
        config.train.epochs, config.model.units = 1, (8, 8)
    if "trees" in config.model:
        config.model.trees = 2
    embeddings.pin(config)
    systems.check(config)
    assert not train.run(config, load(place)(config, "mine"), tmp_path, [0])
    assert ds_jax.load(tmp_path)(np.random.default_rng(0).normal(size=8000), 16_000).shape == (3,)
