"""Smart Turn v3.2: Whisper's smallest encoder, trained on to hear whether a speaker has finished.

A speech model for everybody: a file of 8.7 MB that ONNX Runtime reads, published on the Hugging
Face Hub and in the Python package pipecat-ai. It reads 8 s, at the end of which the recording lies.

<https://github.com/pipecat-ai/smart-turn>; Radford et al., "Robust Speech Recognition via
Large-Scale Weak Supervision" (2023).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft

from ds_jax.features import embeddings_onnx, mel
from ds_jax.runtime import downloads
from ds_jax.runtime.errors import ConfigError

NAME, FILE = "smart-turn-v3.2", "smart-turn-v3.2-cpu.onnx"
HASH = "sha256:2bb026316b14a660486a75b1733cd3fbab8c2fd0314dc9af7be49f8cca967e4f"
ADDRESS = "https://huggingface.co/pipecat-ai/smart-turn-v3/resolve/"
SOURCES = (
    downloads.PublishedFile(f"{ADDRESS}f766f81d3cfdf7737ac64aad813d91bbfd56bf93/{FILE}", HASH),
    downloads.Package(
        "pipecat-ai==1.14.0",
        "sha256:0352f504b44e78bdf524e45af4bc759601c835b9b7dc195efe5e03384b974a44",
        f"pipecat/audio/turn/smart_turn/data/{FILE}",
        FILE,
        HASH,
    ),
)
TERMS = (
    "It is Whisper Tiny's encoder, trained on turns of human and of synthetic speakers in 23 "
    "languages (smart-turn-data-v3.2-train). Its authors give its licence as BSD 2-Clause, and "
    "Whisper's give theirs as MIT"
)
LAYERS, SIZE = 4, 384
RATE, LONGEST = 16_000, 8  # Hz, seconds
INPUT = "input_features"  # float32 [batch, 80, 800]
FRAME = 320  # samples, of which the encoder makes a frame: two of its spectrogram
# Whisper's spectrogram: frames of 25 ms every 10 ms, 80 bands, 8 decades below the loudest cell.
N_FFT, HOP, BANDS, DECADES, LEAST = 400, 160, 80, 8.0, 1e-10
HANN = np.hanning(N_FFT + 1)[:-1]


def find() -> Path:
    """Returns the model's file in the cache, after a download if need be.

    Raises:
        FileNotFoundError: It is not there, and could not be downloaded.
        ValueError: What was downloaded has another hash.
    """
    return downloads.fetch(SOURCES, "Smart Turn", "the field embeddings.model")[0]


def inspect(file: Path, model: str, layer: int) -> int:
    """Checks the layer, and reads the model; as `embeddings_transformers.inspect`.

    Raises:
        ConfigError: There is no such layer.
        ValueError: The file is damaged, or the package onnxruntime is missing.
    """
    _open(file, model, layer)
    return SIZE


def check_layer(layer: int, model: str) -> None:
    """Checks that a layer exists; a file, or the name of the model, is named where it does not."""
    if layer > LAYERS:
        raise ConfigError("embeddings.layer", layer, f"from 0 to {LAYERS}, the layers of {model}")


def read_files(file: Path) -> list[Path]:
    """Returns the files of a model that are read, and that its hash is of."""
    return [file]


def load(file: Path, model: str, layer: int) -> tuple[Callable, Callable, int]:
    """Loads the model; as `embeddings_transformers.load`."""
    session = _open(file, model, layer)

    def frames(samples: np.ndarray) -> np.ndarray:
        before = RATE * LONGEST - len(samples)
        (found,) = session.run(None, {INPUT: log_mel(np.pad(samples, (before, 0)))[None]})
        return found[0, before // FRAME :].astype(np.float64)

    return lambda samples: samples, frames, N_FFT


def log_mel(samples: np.ndarray) -> np.ndarray:
    """Computes Whisper's spectrogram of samples that are normalised first.

    Args:
        samples: float32 [n] at 16 kHz.

    Returns:
        float32 [80, n // 160], of which 0.25 is a factor of ten in power.
    """
    samples = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
    padded = np.pad(samples.astype(np.float64), N_FFT // 2, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[:-1:HOP]
    power = np.abs(scipy.fft.rfft(windows * HANN)) ** 2
    cells = np.log10(np.maximum(power @ mel.bands(RATE, N_FFT, BANDS, 0, RATE / 2).T, LEAST))
    return ((np.maximum(cells, cells.max() - DECADES) + 4) / 4).astype(np.float32).T


def _open(file: Path, model: str, layer: int) -> Any:
    """Returns a session of ONNX Runtime whose one output is a layer's, [batch, frames, SIZE].

    The file's weights have 8 bits. Its activations would be rounded to 8 bits too, in products that
    not all processors compute alike: here they stay float32.
    """

    check_layer(layer, model)

    def change(graph: Any) -> None:
        made_by = {node.output[0]: node for node in graph.node}
        unrounded = {
            node.output[0]: made_by[node.input[0]].input[0]
            for node in graph.node
            if node.op_type == "DequantizeLinear" and node.input[0] in made_by
        }
        for node in graph.node:
            node.input[:] = [unrounded.get(name, name) for name in node.input]
        # Each layer begins with the first of two normalisations; another one ends the last layer.
        norms = [node for node in graph.node if node.op_type == "LayerNormalization"][::2]
        if [each.name for each in graph.input] != [INPUT] or len(norms) != LAYERS + 1:
            raise ValueError(f"it is another one than {NAME}, of which {FILE} is the name")
        name = norms[layer].input[0] if layer < LAYERS else norms[layer].output[0]
        del graph.output[:]
        graph.output.add().name = name

    return embeddings_onnx.open_session(file, change)
