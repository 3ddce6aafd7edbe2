"""The mean of DS-AM's best and of one ridge on its pictures, on ComParE and on Wu's measures.

    python launch.py --config=configs/ds_am_fused.py

Trained and tested on EmoDB, a speaker at a time; `--config.corpus=NAME` takes another corpus, and
`--config.members.ridge.auxiliary="('ravdess=0.3',)"` fits the ridge on RAVDESS too. ComParE needs
openSMILE, whose licence is non-commercial and reaches the models: see requirements-opensmile.txt.
`configs/ds_am_and_ridge.py` does without.
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    """Returns the experiment."""
    config = base.get_config()
    base.use_ds_am_fused(config, "compare", "wu")
    config.corpus = "emodb"
    config.folds.protocol = "leave_one_speaker_out"
    return config
