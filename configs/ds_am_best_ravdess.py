"""DS-AM's best on RAVDESS' speech (English, open), 24 actors.

    python launch.py --config=configs/ds_am_best_ravdess.py

The mean of members as in ds_am_best.py, tested in EmoBox's six folds of four actors. Block 4 is
trained too, which inner folds of all six training splits prefer (docs/results.md). That takes far
longer, so that each picture has two seeds in place of three.
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    """Returns the experiment."""
    config = base.get_config()
    base.use_ds_am_best(config, seeds=2)
    for member in config.members.values():
        member.model.freeze = "block3"
    config.corpus = "ravdess"
    config.folds.file = base.EMOBOX_FOLDS
    return config
