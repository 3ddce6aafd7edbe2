"""The mean of DS-AM's best and of one ridge on its two pictures.

    python launch.py --config=configs/ds_am_and_ridge.py

Trained and tested on EmoDB, a speaker at a time; `--config.corpus=NAME` takes another corpus, and
`--config.members.ridge.auxiliary="('ravdess=0.3',)"` fits the ridge on RAVDESS too.
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    """Returns the experiment."""
    config = base.get_config()
    base.use_ds_am_fused(config)
    config.corpus = "emodb"
    config.folds.protocol = "leave_one_speaker_out"
    return config
