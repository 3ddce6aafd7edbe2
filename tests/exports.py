"""Waveforms, and what --mode=predict says of them, for tests of exported models."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.export
import numpy as np
import onnx
import onnxruntime
import pytest
import soundfile
import tiny

from ds_jax.data.labels import LABELS
from ds_jax.features import audio, extract
from ds_jax.systems import base as systems
from ds_jax.systems import network
from ds_jax.systems.finding import EXPORTED, EXPORTED_ONNX, find_checkpoints

RATE = 16_000


def wave(seconds, seed=0):
    """A gliding tone in noise."""
    time = np.arange(int(RATE * seconds)) / RATE
    noise = np.random.default_rng(seed).normal(0, 0.05, len(time))
    samples = 0.3 * np.sin(2 * np.pi * (150 + 100 * seed + 300 * time) * time) + noise
    return samples.astype(np.float32)


def waves():
    """Four waves, the first of which is shorter than a frame."""
    return [wave(seconds, seed) for seed, seconds in enumerate((0.01, 0.3, 1.0, 1.7371))]


def recordings():
    """The beginnings of four real recordings; a test without any is skipped."""
    if "DS_JAX_CORPORA" not in os.environ:
        pytest.skip("needs real recordings: set DS_JAX_CORPORA")
    paths = sorted(Path(os.environ["DS_JAX_CORPORA"]).glob("emo*/**/*.flac"))[:: 1042 // 3][:4]
    return [audio.read(path, RATE)[0][:50_001] for path in paths]


def check_program(exported, model, folder, without):
    """Runs the program of an export's README.md in a folder, without this program.

    Args:
        exported: The folder of the export.
        model: A function of samples and lengths, which gives the same answers.
        folder: The folder of the exported file alone.
        without: The modules that must not be imported.
    """
    readme = (exported / "README.md").read_text(encoding="utf-8")
    program = re.search(r"```python\n(.*?)```", readme, re.DOTALL)[1]
    # It may be installed: `None` makes importing it an error.
    alone = "import sys\nsys.modules['ds_jax'] = None\n"
    imported = f"\nassert not {without} & set(sys.modules)\n"
    (folder / "program.py").write_text(alone + program + imported)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    options = {"cwd": folder, "env": environment, "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, "program.py"], timeout=300, **options)
    assert done.returncode == 0, done.stderr
    tones = [np.sin(np.arange(2 * RATE) * pitch).astype(np.float32) for pitch in (0.1, 0.2)]
    for line, shares in zip(done.stdout.splitlines(), model(*batch_of(tones)), strict=True):
        label, _, printed = line.partition(" ")
        assert label == LABELS[shares.argmax()]
        found = json.loads(printed.replace("'", '"'))
        assert list(found) == list(LABELS)
        np.testing.assert_allclose(list(found.values()), shares, atol=0.0006)


def with_silence(waves):
    """The waves with almost nothing before and after them."""
    silence = 1e-3 * wave(0.5)
    return [np.concatenate([silence, samples, silence, silence]) for samples in waves]


def load(directory):
    """The program of an export as a function of samples and lengths, whichever form it has."""
    path = directory / EXPORTED_ONNX
    if not path.exists():
        content = (directory / EXPORTED).read_bytes()
        return jax.jit(jax.export.deserialize(bytearray(content)).call)
    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(path)
    return lambda samples, lengths: session.run(None, {"samples": samples, "lengths": lengths})[0]


def batch_of(waves, size=None, filler=0.0):
    """Waves in one array, with `filler` after their ends, and their lengths."""
    lengths = np.asarray([len(wave) for wave in waves], np.int32)
    samples = np.full((len(waves), size or lengths.max()), filler, np.float32)
    for row, one in zip(samples, waves, strict=True):
        row[: len(one)] = one
    return samples, lengths


def predicted(checkpoint, waves, folder):
    """The probabilities of --mode=predict for waves in files, float64 [waves, 7]."""
    checkpoints = find_checkpoints(checkpoint)
    settings = extract.settings(systems.load_config(checkpoints))
    ensemble, probabilities = network.load_ensemble(checkpoints), []
    for number, samples in enumerate(waves):
        path = folder / f"{number}.wav"
        soundfile.write(path, samples, RATE, subtype="FLOAT")
        windows = np.stack(extract.read(path, settings)[1])
        padded = np.resize(windows, (6, *windows.shape[1:]))  # so that one shape is compiled
        predicted = ensemble(padded, 6)().probabilities[: len(windows)]
        probabilities.append(predicted.mean(axis=0))
    return np.stack(probabilities)


def untrained(directory, config):
    """A fold's folder with the network with which training starts."""
    state = tiny.state(tiny.setup(config, tiny.corpus(8)))
    tiny.save(directory / "checkpoints", state.variables, config)
    return directory
