"""Embeddings are transformers' own hidden states, of the very model that a config means."""

import dataclasses
import itertools
import sys
import types

import numpy as np
import pytest
import speech_models
from refusals import refused_field
from speech_models import LAYERS, SIZE

from configs import base
from ds_jax import config as configuration
from ds_jax.features import embeddings, embeddings_transformers, extract
from ds_jax.features.embeddings import EmbeddingSettings
from ds_jax.runtime.errors import ConfigError

MISSING = "the optional packages of requirements-embeddings.txt are missing"
ENDS = [{"feat_extract_norm": "layer", "do_stable_layer_norm": True}, {}]  # large models, and base


@pytest.fixture
def torch():
    pytest.importorskip("transformers", reason=MISSING)
    return pytest.importorskip("torch", reason=MISSING)


def noise(seconds, seed=0):
    samples = np.random.default_rng(seed).normal(0.02, 0.1, int(16_000 * seconds))
    return samples.astype(np.float32)


def config_of(folder, layer=1):
    config = base.get_config()
    base.use_svc(config, "embeddings", "linear")
    config.embeddings.model, config.embeddings.layer = str(folder), layer
    return config


def reference(torch, model, extractor, samples, layer):
    """Mean and deviation of the whole model's hidden states."""
    inputs = extractor(samples, sampling_rate=16_000, return_tensors="pt").input_values
    with torch.inference_mode():
        outputs = model(inputs, output_hidden_states=True)
    states = outputs.last_hidden_state if layer == LAYERS else outputs.hidden_states[layer]
    return np.concatenate([states[0].mean(0), states[0].std(0, correction=0)])


@pytest.mark.parametrize(
    ("kind", "fields"),
    [(kind, {}) for kind in embeddings_transformers.KINDS]
    + [(kind, ENDS[0]) for kind in ("wav2vec2", "hubert", "wavlm")],
)
def test_every_layer_is_that_of_transformers(torch, tmp_path, kind, fields):
    model, extractor = speech_models.save(tmp_path, kind, **fields)
    samples, found = noise(0.5), []
    for layer in range(LAYERS + 1):
        found.append(embeddings.statistics(samples, EmbeddingSettings(str(tmp_path), layer)))
        assert (found[-1].shape, found[-1].dtype) == ((2 * SIZE,), np.float32)
        expected = reference(torch, model, extractor, samples, layer)
        np.testing.assert_allclose(found[-1], expected, rtol=1e-4, atol=1e-5)
    assert min(np.abs(a - b).max() for a, b in itertools.pairwise(found)) > 1e-3


@pytest.mark.parametrize("normalises", [True, False])
def test_the_models_own_extractor_normalises(torch, tmp_path, normalises):
    model, extractor = speech_models.save(tmp_path, normalises=normalises, **ENDS[0])
    settings = EmbeddingSettings(str(tmp_path), 2)
    quiet, loud = (embeddings.statistics(x * noise(0.5), settings) for x in (0.01, 1))
    np.testing.assert_allclose(
        loud, reference(torch, model, extractor, noise(0.5), 2), rtol=1e-4, atol=1e-5
    )
    assert np.allclose(quiet, loud, atol=0.02) == normalises


def test_a_recording_has_the_same_numbers_in_any_company(torch, tmp_path):
    speech_models.save(tmp_path)  # whose norm over time padding would change
    config = config_of(tmp_path)
    embeddings.pin(config)
    settings = extract.settings(config)
    long, short = noise(1.0), noise(0.3, seed=1)
    first, other, again = (
        extract.from_samples(samples, 16_000, settings)[0] for samples in (short, long, short)
    )
    np.testing.assert_array_equal(first, again)
    assert first.shape == other.shape == settings.shape == (2 * SIZE,)
    assert np.abs(first - other).max() > 1e-3


def test_long_recordings_are_read_in_equal_parts(torch, tmp_path, monkeypatch):
    model, extractor = speech_models.save(tmp_path)
    monkeypatch.setattr(embeddings_transformers, "LONGEST", 1)
    settings, samples, lengths = EmbeddingSettings(str(tmp_path), 2), noise(2.5), []
    read = embeddings_transformers._frames

    def frames(part, *rest):
        lengths.append(len(part))
        return read(part, *rest)

    monkeypatch.setattr(embeddings_transformers, "_frames", frames)
    found = embeddings.statistics(samples, settings)
    assert sum(lengths) == len(samples)
    assert (len(lengths), max(lengths) - min(lengths)) == (3, 1)
    normalised = extractor(samples, sampling_rate=16_000).input_values[0]
    states = []
    for part in np.array_split(normalised, 3):
        with torch.inference_mode():
            outputs = model(torch.from_numpy(part)[None], output_hidden_states=True)
        states.append(outputs.hidden_states[2][0].numpy())
    states = np.concatenate(states)
    expected = np.concatenate([states.mean(0), states.std(0)])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_silence_and_what_is_too_short(torch, tmp_path):
    speech_models.save(tmp_path)
    settings = EmbeddingSettings(str(tmp_path), 1)
    assert np.isfinite(embeddings.statistics(np.zeros(8000, np.float32), settings)).all()
    one_frame = embeddings.statistics(noise(0.025), settings)
    np.testing.assert_array_equal(one_frame[SIZE:], 0)
    with pytest.raises(ValueError, match="24 ms where 25 ms"):
        embeddings.statistics(noise(0.025)[:-16], settings)


def test_pickled_weights_are_never_read(torch, tmp_path):
    speech_models.save(tmp_path)
    before = embeddings.pinned(EmbeddingSettings(str(tmp_path), 1))
    (tmp_path / "pytorch_model.bin").write_bytes(b"no pickle")
    (tmp_path / "adapter_config.json").write_text("{}")
    assert embeddings.pinned(EmbeddingSettings(str(tmp_path), 1)) == before
    embeddings._load.cache_clear()
    assert np.isfinite(embeddings.statistics(noise(0.1), before)).all()


def test_damaged_weights_and_those_of_another_model_are_refused(torch, tmp_path):
    speech_models.write(tmp_path / "other")
    with pytest.raises(ValueError, match="lack"):
        embeddings.load(EmbeddingSettings(str(tmp_path / "other"), 1))
    speech_models.save(tmp_path / "cut")
    path = tmp_path / "cut/model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="cannot be read"):
        embeddings.load(EmbeddingSettings(str(tmp_path / "cut"), 1))


# What follows computes nothing, and so needs no package.


def test_a_config_notes_its_model_and_other_weights_make_other_features(tmp_path):
    config = config_of(speech_models.write(tmp_path / "model"))
    assert extract.settings(config).shape == (None,)
    embeddings.pin(config)
    first = config.embeddings.to_dict()
    assert (len(first["sha256"]), first["size"]) == (64, 2 * SIZE)
    assert extract.settings(config).shape == (2 * SIZE,)
    keys = {
        extract.settings(config).key(),
        extract.settings(config_of(tmp_path / "model", 2)).key(),
    }
    (tmp_path / "model/README.md").write_text("Another card.")
    again = config_of(tmp_path / "model")
    embeddings.pin(again)
    assert again == config
    speech_models.write(tmp_path / "model", seed=1)
    again = config_of(tmp_path / "model")
    embeddings.pin(again)
    assert again.embeddings.sha256 != first["sha256"]
    assert "embeddings.sha256" in configuration.difference(config, again)
    assert len(keys | {extract.settings(again).key()}) == 3
    config.embeddings.size = 0  # so that it is looked for again
    assert refused_field(embeddings.pin, config) == "embeddings.sha256"


def test_a_model_may_lie_elsewhere_when_a_run_goes_on(tmp_path):
    first, second = (config_of(speech_models.write(tmp_path / name)) for name in ("a", "b"))
    for config in (first, second):
        embeddings.pin(config)
    assert configuration.difference(first, second) == ""
    assert configuration.describe(first)["embeddings.model"] == "a"


def test_paths_are_made_absolute_and_names_of_the_hub_are_left(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    speech_models.write(tmp_path / "models/mine")
    for given, expected in (
        ("models/mine", str(tmp_path / "models/mine")),
        ("./nowhere", str(tmp_path / "nowhere")),
        ("microsoft/wavlm-large", "microsoft/wavlm-large"),
    ):
        config = base.get_config()
        base.use_ensemble(config, speech=config_of(given))
        configuration.expand_paths(config)
        assert config.members.speech.embeddings.model == expected


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"model": ""}, "embeddings.model"),
        ({"model": "nowhere"}, "embeddings.model"),
        ({"layer": -1}, "embeddings.layer"),
        ({"layer": LAYERS + 1}, "embeddings.layer"),
        ({"sha256": "0" * 64}, "embeddings.sha256"),
    ],
)
def test_a_field_that_cannot_be_is_named(tmp_path, fields, field):
    config = config_of(speech_models.write(tmp_path))
    config.embeddings.update(fields)
    assert refused_field(embeddings.pin, config) == field


def test_another_set_takes_no_model():
    config = config_of("microsoft/wavlm-large")
    config.features = "mfcc"
    assert refused_field(extract.settings, config) == "embeddings.layer"


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "preprocessor_config.json"),
        (lambda folder: speech_models.write(folder, model_type="bert"), "'bert'"),
        (lambda folder: speech_models.write(folder, hidden_size=None), "hidden_size"),
        (
            lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
            "save_pretrained",
        ),
        (
            lambda folder: (folder / "preprocessor_config.json").write_text(
                '{"sampling_rate": 8000}'
            ),
            "8000 Hz",
        ),
    ],
)
def test_a_folder_that_is_no_speech_model_says_what_it_lacks(tmp_path, spoil, named):
    spoil(speech_models.write(tmp_path))
    with pytest.raises(ConfigError, match=named) as error:
        embeddings.pin(config_of(tmp_path))
    assert error.value.field == "embeddings.model"


def test_missing_packages_are_named_with_the_command(tmp_path, monkeypatch):
    settings = EmbeddingSettings(str(speech_models.write(tmp_path)), 1)
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r"pip install -r requirements-embeddings\.txt"):
        extract.FeatureSettings("embeddings", settings).check()
    with pytest.raises(ValueError, match=r"pip install -r requirements-embeddings\.txt"):
        embeddings.find("microsoft/wavlm-large")


def hub(monkeypatch, cached, online):
    """Puts a Hub in place of the real one; returns the calls that it gets.

    Each has the name, the revision, and whether it asks the cache, and for weights.
    """
    calls = []

    def snapshot_download(name, local_files_only=False, **options):
        weights = "model*.safetensors" in options["allow_patterns"]
        calls.append((name, options["revision"], local_files_only, weights))
        folder = cached if local_files_only else online
        if folder is None:
            raise OSError("the Hub is out of reach\nand more")
        return str(folder)

    stub = types.SimpleNamespace(snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", stub)
    return calls


def test_the_hubs_cache_comes_first_and_revisions_can_be_given(tmp_path, monkeypatch):
    folder = speech_models.write(tmp_path / "snapshots/0123abc")
    calls = hub(monkeypatch, cached=folder, online=None)
    assert embeddings.find("owner/name@0123abc") == folder
    assert calls == [("owner/name", "0123abc", True, True)]
    settings = EmbeddingSettings("owner/name@0123abc", 2)
    assert "owner/name@0123abc, revision 0123abc" in embeddings.terms(settings)
    calls = hub(monkeypatch, cached=None, online=folder)
    assert "was not there" in embeddings.terms(settings)  # nothing is downloaded for a card
    assert [here for *_, here, _ in calls] == [True]
    calls.clear()
    assert embeddings.find("owner/name") == folder
    asked = [(True, True), (False, False), (False, True)]
    assert calls == [("owner/name", None, *each) for each in asked]
    (tmp_path / "empty").mkdir()  # another program has put a config alone there, for example
    hub(monkeypatch, cached=tmp_path / "empty", online=folder)
    assert embeddings.find("owner/name") == folder


def test_an_unknown_layer_is_refused_before_weights_are_downloaded(tmp_path, monkeypatch):
    calls = hub(monkeypatch, cached=None, online=speech_models.write(tmp_path))
    with pytest.raises(ConfigError) as error:
        embeddings.pinned(EmbeddingSettings("owner/name", 99))
    assert error.value.field == "embeddings.layer"
    assert [each[2:] for each in calls] == [(True, True), (False, False)]


def test_out_of_reach_the_command_that_downloads_is_named(tmp_path, monkeypatch):
    hub(monkeypatch, cached=None, online=None)
    with pytest.raises(ConfigError) as error:
        embeddings.pin(config_of("microsoft/wavlm-large"))
    assert "hf download microsoft/wavlm-large --local-dir wavlm-large" in str(error.value)
    assert "\n" not in str(error.value)
    (speech_models.write(tmp_path) / "model.safetensors").unlink()
    hub(monkeypatch, cached=tmp_path, online=tmp_path)
    with pytest.raises(ConfigError, match=r"hf download owner/name.*save_pretrained"):
        embeddings.pin(config_of("owner/name"))


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        (speech_models.CARD, "licence as cc-by-sa-3.0, and its training data as librispeech_asr, "),
        ("---\nlicense: other\nlicense_name: mine\n---\n", "licence as mine, and does not say its"),
        ("---\nlicense: [\n---\n", "does not say its licence, and does not say its training data"),
        ("# No fields\n\n---\n---\n", "does not say its licence"),
        (None, "does not say its licence"),
    ],
)
def test_a_model_card_says_licence_and_training_data_or_not(tmp_path, card, expected):
    path = speech_models.write(tmp_path) / "README.md"
    path.unlink()
    if card is not None:
        path.write_text(card)
    assert expected in embeddings.terms(EmbeddingSettings(str(tmp_path), 1))


def test_prepared_features_do_without_the_model(tmp_path):
    settings = EmbeddingSettings(str(speech_models.write(tmp_path / "model")), 1)
    pinned = embeddings.pinned(settings)
    gone = dataclasses.replace(pinned, model=str(tmp_path / "gone"))
    assert (
        extract.FeatureSettings("embeddings", gone).key()
        == extract.FeatureSettings("embeddings", pinned).key()
    )
    assert "was not there" in embeddings.terms(gone)
