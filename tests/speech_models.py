"""Small speech models of random weights, in folders as transformers keeps them."""

import json
from pathlib import Path

import numpy as np
import safetensors.numpy

LAYERS, SIZE = 3, 16  # of the transformer; values of each layer
SHAPE = {
    "hidden_size": SIZE,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": [8] * 7,
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}
CARD = "---\nlicense: cc-by-sa-3.0\ndatasets:\n- librispeech_asr\n- libri-light\n---\n# A model\n"


def write(folder: Path, seed: int = 0, **fields) -> Path:
    """Writes files as those of a model, which nothing can compute with."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"model_type": "wavlm"} | SHAPE | fields
    (folder / "config.json").write_text(json.dumps(content))
    extractor = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": 16_000}
    (folder / "preprocessor_config.json").write_text(json.dumps(extractor))
    weights = np.random.default_rng(seed).normal(size=(4, SIZE)).astype(np.float32)
    safetensors.numpy.save_file({"encoder.weight": weights}, folder / "model.safetensors")
    (folder / "README.md").write_text(CARD)
    return folder


def save(folder: Path, kind: str = "wavlm", normalises: bool = True, seed: int = 0, **fields):
    """Saves a model that transformers makes, and returns it with its feature extractor."""
    import torch
    import transformers

    torch.manual_seed(seed)
    config = transformers.CONFIG_MAPPING[kind](**SHAPE, **fields)
    model = transformers.MODEL_MAPPING[type(config)](config).eval()
    # Small random weights would give the layers values that hardly differ.
    with torch.no_grad():
        for weights in model.encoder.parameters():
            weights.add_(0.3 * torch.randn_like(weights))
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=normalises)
    transformers.logging.disable_progress_bar()
    for each in (model, extractor):
        each.save_pretrained(folder)
    (folder / "README.md").write_text(CARD)
    return model, extractor
