"""An exported model says what predict says, without this program."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.export
import numpy as np
import pytest
import soundfile
import tiny

from ds_jax import cross_validation, export, models, predict, representation, weights
from ds_jax.corpus import LABELS

pytestmark = pytest.mark.usefixtures("narrow")
RATE = 16_000
SECONDS = (0.01, 0.3, 1.0, 1.7371)  # the first is shorter than a frame


def wave(seconds, seed=0):
    """A gliding tone in noise."""
    time = np.arange(int(RATE * seconds)) / RATE
    noise = np.random.default_rng(seed).normal(0, 0.05, len(time))
    samples = 0.3 * np.sin(2 * np.pi * (150 + 100 * seed + 300 * time) * time) + noise
    return samples.astype(np.float32)


def batch_of(waves, size=None, filler=0.0):
    """Waves in one array, `filler` beyond their ends, and their lengths."""
    lengths = np.asarray([len(wave) for wave in waves], np.int32)
    samples = np.full((len(waves), size or lengths.max()), filler, np.float32)
    for row, wave in zip(samples, waves, strict=True):
        row[: len(wave)] = wave
    return samples, lengths


def predicted(checkpoint, waves, folder):
    """What --mode=predict says, float64 [waves, 7]."""
    settings = representation.settings(
        predict.systems.load_config(predict.find_checkpoints(checkpoint)[0])
    )
    usable = {}
    for number, samples in enumerate(waves):
        path = folder / f"{number}.wav"
        soundfile.write(path, samples, RATE, subtype="FLOAT")
        usable[path] = representation.read(path, settings)[1]
    return predict._probabilities(predict.find_checkpoints(checkpoint), usable)


def load(directory):
    return jax.export.deserialize(bytearray((directory / export.MODEL).read_bytes()))


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    directory = tmp_path_factory.mktemp("export")
    export.run(run, directory)
    return directory


@pytest.fixture(scope="module")
def waves():
    return [wave(seconds, seed) for seed, seconds in enumerate(SECONDS)]


@pytest.fixture(scope="module")
def wanted(run, waves, tmp_path_factory):
    found = predicted(run, waves, tmp_path_factory.mktemp("waves"))
    assert found.std(axis=0).max() > 1e-3  # the waves are told apart
    return found


def test_it_says_what_predict_says(exported, waves, wanted):
    model = load(exported)
    assert model.platforms == export.PLATFORMS
    for rows in (slice(0, 1), slice(1, 4), slice(0, 4)):
        found = np.asarray(model.call(*batch_of(waves[rows])))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted[rows], atol=1e-5)
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)


def test_what_follows_a_recording_is_ignored(exported, waves, wanted):
    found = load(exported).call(*batch_of(waves, 50_001, filler=7.0))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_fold_is_exported_alone(run, waves, tmp_path):
    for given in (run / "fold_01", run / "fold_01" / "checkpoints"):
        shutil.copytree(given, tmp_path / given.name)
    export.run(tmp_path / "fold_01")
    found = load(tmp_path / "fold_01" / "export").call(*batch_of(waves))
    np.testing.assert_allclose(found, predicted(run / "fold_01", waves, tmp_path), atol=1e-5)


