"""SVC on embeddings of WavLM, a self-supervised speech model: a rival of systems on pictures.

    python launch.py --config=configs/embeddings_svc.py

Trained and tested on EmoDB, a speaker at a time; --config.corpus=NAME takes another corpus,
--config.embeddings.model another model, a name on the Hugging Face Hub, a folder or an ONNX file,
and --config.embeddings.layer another layer. The one here is the middle one, which no score has
chosen. It needs the packages torch and transformers: pip install -r requirements-embeddings.txt.
The Hub has this model's weights pickled, which are never read: docs/evaluation.md converts them
once.
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    """Returns the experiment."""
    config = base.get_config()
    base.use_svc(config, "embeddings", kernel="linear")
    config.embeddings.model, config.embeddings.layer = "microsoft/wavlm-large", 12
    config.corpus = "emodb"
    config.folds.protocol = "leave_one_speaker_out"
    return config
