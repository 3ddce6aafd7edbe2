"""Speech models as ONNX files, which open what transformers does not read, such as emotion2vec.

The graph's one input is a waveform of 16 kHz, float32 [1, samples], as it is: what a model
normalises is a part of the graph. Its outputs, [1, frames, values] each, are the layers.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ds_jax.features import embeddings_transformers
from ds_jax.runtime.errors import ConfigError, first_line

SUFFIX, SECOND = ".onnx", 16_000  # samples
LONGEST = embeddings_transformers.LONGEST


def inspect(file: Path, model: str, layer: int) -> int:
    """Checks a model, which reads a second of silence; as `embeddings_transformers.inspect`.

    Raises:
        ConfigError: It is no such model, or has no such output.
        ValueError: The file is damaged, or the package onnxruntime is missing.
    """
    return _open(file, model, layer)[2]


def read_files(file: Path) -> list[Path]:
    """Returns the files of a model that are read, and that its hash is of."""
    return [file]


def load(file: Path, model: str, layer: int) -> tuple[Callable, Callable, int]:
    """Loads a model; as `embeddings_transformers.load`, for which a frame takes one sample here."""
    session, output, _ = _open(file, model, layer)

    def frames(samples: np.ndarray) -> np.ndarray:
        found = _run(session, output, samples, file)[0].astype(np.float64)
        if not len(found):
            raise ValueError(f"too short for {file.name}, which makes no frame of it")
        return found

    return lambda samples: samples, frames, 1


def _open(file: Path, model: str, layer: int) -> tuple[Any, str, int]:
    """Returns a session, the name of the output of a layer, and how many values that has."""

    def refuse(allowed: str) -> ConfigError:
        return ConfigError("embeddings.model", model, allowed)

    if file.suffix != SUFFIX:
        raise refuse(f"the folder of a speech model, or a file {SUFFIX}")
    session = open_session(file)
    inputs, outputs = session.get_inputs(), session.get_outputs()
    given = [(each.type, len(each.shape)) for each in inputs]
    if given != [("tensor(float)", 2)]:
        shown = ", ".join(f"{each.name} {each.shape}" for each in inputs)
        raise refuse(f"one of a single input, waveforms [1, samples]; its inputs are {shown}")
    if layer >= len(outputs):
        allowed = f"from 0 to {len(outputs) - 1}, the outputs of {file.name}"
        raise ConfigError("embeddings.layer", layer, allowed)
    output = outputs[layer].name
    values = _run(session, output, np.zeros(SECOND, np.float32), file)
    if values.dtype.kind != "f" or values.ndim != 3 or len(values) != 1:
        raise refuse(
            f"one of outputs [1, frames, values]; {output} is {[*values.shape]} for a second of "
            "sound"
        )
    return session, output, values.shape[2]


def open_session(file: Path, change: Callable[[Any], None] | None = None) -> Any:
    """Opens a model for ONNX Runtime on the CPU, with one thread for a recording.

    Args:
        file: The model.
        change: What is changed in its graph, an `onnx.GraphProto`, first; None: nothing.

    Returns:
        An `onnxruntime.InferenceSession`.

    Raises:
        ValueError: The file is damaged, or the package onnxruntime is missing.
    """
    import onnx.external_data_helper  # here, since a config is checked without it

    try:
        import onnxruntime
    except ImportError as error:
        raise ValueError(
            f"{file.name} needs the package onnxruntime: pip install onnxruntime"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised
    try:
        content = file.read_bytes()
        model = onnx.load_from_string(content)
        for tensor in model.graph.initializer:
            if onnx.external_data_helper.uses_external_data(tensor):
                raise ValueError(f"{tensor.name} lies in another file, which is not opened")
        if change:
            change(model.graph)
            content = model.SerializeToString()
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of protobuf or of ONNX Runtime
        raise ValueError(f"{file} cannot be read as a model ({first_line(error)})") from error


def _run(session: Any, output: str, samples: np.ndarray, file: Path) -> np.ndarray:
    inputs = {session.get_inputs()[0].name: np.asarray(samples, np.float32)[None]}
    try:
        return session.run([output], inputs)[0]
    except Exception as error:  # of ONNX Runtime
        seconds = len(samples) / SECOND
        raise ValueError(f"{file.name} cannot read {seconds:g} s ({first_line(error)})") from error
