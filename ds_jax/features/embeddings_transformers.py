"""Speech models in folders as `save_pretrained` of transformers writes them.

Only a model's config, the config of its feature extractor and weights in the format safetensors are
read: no code of a model is run, and nothing is unpickled.
"""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ds_jax.runtime import files
from ds_jax.runtime.errors import ConfigError, first_line

RATE = 16_000  # Hz; all of these models are trained on it
LONGEST = 30  # seconds that a model reads at a time: attention takes memory by their square
# What config.json calls the models that read waveforms, and are built alike.
KINDS = (
    *("data2vec-audio", "hubert", "unispeech", "unispeech-sat", "wav2vec2"),
    *("wav2vec2-conformer", "wavlm"),
)
CONFIG, EXTRACTOR = "config.json", "preprocessor_config.json"
WEIGHTS = ("model*.safetensors", "model.safetensors.index.json")
INSTALL = "pip install -r requirements-embeddings.txt"


def check(folder: Path, model: str, layer: int) -> int:
    """Checks the folder of a model, which the config calls `model`, and a layer, but no weights.

    Returns:
        The number of values that a layer gives for each frame.

    Raises:
        ConfigError: It is no such model, or has no such layer.
    """

    def refuse(allowed: str) -> ConfigError:
        return ConfigError("embeddings.model", model, allowed)

    for name in (CONFIG, EXTRACTOR):
        if not (folder / name).is_file():
            raise refuse(f"a speech model of transformers: {folder} has no {name}")
    content, extractor = (files.read_json(folder / name) for name in (CONFIG, EXTRACTOR))
    if content.get("model_type") not in KINDS:
        kind = content.get("model_type")
        raise refuse(f"a speech model, of one of the types {', '.join(KINDS)}; it is of {kind!r}")
    if extractor.get("sampling_rate", RATE) != RATE:
        raise refuse(f"a model of {RATE} Hz; it is of {extractor['sampling_rate']} Hz")
    for name in ("hidden_size", "num_hidden_layers"):
        if not isinstance(content.get(name), int):
            raise refuse(f"a speech model of transformers: {folder / CONFIG} has no {name}")
    if layer > content["num_hidden_layers"]:
        allowed = f"from 0 to {content['num_hidden_layers']}, the layers of {model}"
        raise ConfigError("embeddings.layer", layer, allowed)
    return content["hidden_size"]


def inspect(folder: Path, model: str, layer: int) -> int:
    """Checks also that there are weights; takes, returns and raises what `check` does."""
    values = check(folder, model, layer)
    if not any(folder.glob(WEIGHTS[0])):
        name = model.partition("@")[0]
        here, download = folder, ""
        if not files.expand(model).is_dir():
            here = Path(name).name
            download = f"hf download {name} --local-dir {here}; "
        raise ConfigError(
            "embeddings.model",
            model,
            "a model with weights in model.safetensors, since pickled ones may hold programs and "
            f'are never read. This makes them: `{download}python -c "from transformers import '
            f"AutoModel as M; M.from_pretrained('{here}').save_pretrained('{here}')\"`"
            + (f", then give {here} here" if download else ""),
        )
    return values


def read_files(folder: Path) -> list[Path]:
    """Returns the files of a model that are read, and that its hash is of."""
    weights = sorted(path for pattern in WEIGHTS for path in folder.glob(pattern))
    return [folder / CONFIG, folder / EXTRACTOR, *weights]


def load(folder: Path, model: str, layer: int) -> tuple[Callable, Callable, int]:
    """Loads a model.

    It computes on the CPU in one thread: torch, in all of the process, gets one for an operation.

    Returns:
        What the model's own feature extractor makes of samples, a function of float32 [n] at `RATE`
        to as many; what the layer gives for each frame, a function of these to float64 [frames, d];
        and the number of samples that give one frame.

    Raises:
        ConfigError: As `inspect`.
        ValueError: A package is missing, or the weights are damaged.
    """
    inspect(folder, model, layer)
    try:
        import torch
        import transformers
    except ImportError as error:
        raise ValueError(
            "the features 'embeddings' need the packages torch and transformers: install them with "
            f"`{INSTALL}`"
        ) from error
    content = files.read_json(folder / CONFIG)
    network_class = transformers.MODEL_MAPPING[transformers.CONFIG_MAPPING[content["model_type"]]]
    said = transformers.logging
    before, shows = said.get_verbosity(), said.is_progress_bar_enabled()
    said.set_verbosity_error()
    said.disable_progress_bar()
    try:
        # Nothing else that lies in the model's folder, such as pickled weights, can be read here.
        with tempfile.TemporaryDirectory() as linked:
            for path in read_files(folder):
                Path(linked, path.name).symlink_to(path.resolve())
            extractor = transformers.Wav2Vec2FeatureExtractor.from_pretrained(linked)
            network, report = network_class.from_pretrained(
                linked,
                use_safetensors=True,
                local_files_only=True,
                dtype=torch.float32,
                attn_implementation="eager",  # config.json may name code of the Hub
                output_loading_info=True,
            )
    except Exception as error:  # of safetensors, of torch or of transformers
        raise ValueError(f"{folder} cannot be read as a model ({first_line(error)})") from error
    finally:
        said.set_verbosity(before)
        if shows:
            said.enable_progress_bar()
    # The first of these hides frames in training alone.
    if lacking := {*report["missing_keys"]} - {"masked_spec_embed"}:
        raise ValueError(f"{folder} cannot be read as a model: its weights lack {min(lacking)}")
    network.eval()
    torch.set_num_threads(1)
    # The layers above are not needed; of the next one only what it reads.
    network.encoder.layers = network.encoder.layers[: layer + 1]

    def normalise(samples: np.ndarray) -> np.ndarray:
        return extractor(samples, sampling_rate=RATE).input_values[0]

    return normalise, lambda samples: _frames(samples, network, layer), _shortest(content)


def _frames(samples: np.ndarray, network: Any, layer: int) -> np.ndarray:
    """Returns what a layer gives for each frame, float64 [frames, d]."""
    import torch

    with torch.inference_mode():
        inputs = torch.from_numpy(np.ascontiguousarray(samples, np.float32))[None]
        if layer == network.config.num_hidden_layers:
            # Versions of transformers differ in whether the last of its hidden states is this.
            values = network(inputs).last_hidden_state
        else:
            values = network(inputs, output_hidden_states=True).hidden_states[layer]
        return values[0].double().numpy()


def _shortest(content: Mapping[str, Any]) -> int:
    """Returns the number of samples that the convolutions make one frame of."""
    samples = 1
    for kernel, stride in zip(
        reversed(content["conv_kernel"]), reversed(content["conv_stride"]), strict=True
    ):
        samples = (samples - 1) * stride + kernel
    return samples
