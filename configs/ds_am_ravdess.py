"""DS-AM on RAVDESS' speech (English, open), 24 actors.

    python launch.py --config=configs/ds_am_ravdess.py

The paper has no such row. This is DS-AM's second form, as in ds_am_emodb.py, and block 4 is trained
too, as in ds_am_best_ravdess.py; --config.model.freeze=block4 freezes it, which is quick without a
GPU. In EmoBox's six folds of four actors nobody is heard in both training and test. Every actor
speaks the same two sentences, and the report counts them. 1,248 pictures.
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    """Returns the experiment."""
    config = base.get_config()
    base.use_ds_am_statistics(config)
    config.model.freeze = "block3"
    config.corpus = "ravdess"
    config.folds.file = base.EMOBOX_FOLDS
    return config
