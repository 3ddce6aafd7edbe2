"""The mean of DS-AM's best and of one ridge on its pictures, Wu's measures and a speech model.

    python launch.py --config=configs/ds_am_speech.py

Trained and tested on EmoDB, a speaker at a time; `--config.corpus=NAME` takes another corpus. The
speech model is Smart Turn, a file of 8.7 MB, which needs `pip install onnxruntime`;
`--config.members.ridge.members.embeddings.embeddings.model=MODEL` takes another one, and `layer` in
place of `model` another layer. See docs/evaluation.md.
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    """Returns the experiment."""
    config = base.get_config()
    base.use_ds_am_fused(config, "wu", "embeddings")
    config.corpus = "emodb"
    config.folds.protocol = "leave_one_speaker_out"
    return config
