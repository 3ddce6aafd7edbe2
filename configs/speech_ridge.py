"""One ridge on two pictures of VGG16, Wu's measures and a speech model: minutes for any corpus.

    python launch.py --config=configs/speech_ridge.py

Trained and tested on EmoDB, a speaker at a time; `--config.corpus=NAME` takes another corpus, and
`--config.auxiliary="('ravdess=0.3',)"` fits it on RAVDESS too. The speech model is Smart Turn, a
file of 8.7 MB, which needs `pip install onnxruntime`;
`--config.members.embeddings.embeddings.model=MODEL` takes another one, and `layer` in place of
`model` another layer. See docs/evaluation.md.
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    """Returns the experiment."""
    config = base.get_config()
    base.use_joined_ridges(config, "wu", "embeddings")
    config.corpus = "emodb"
    config.folds.protocol = "leave_one_speaker_out"
    return config
