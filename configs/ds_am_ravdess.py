"""DS-AM on RAVDESS' speech (English, open), 24 actors.

    python launch.py --config=configs/ds_am_ravdess.py

The paper has no such row. Six folds of four actors each, so that nobody is heard in both training
and test. Every actor speaks the same two sentences, and the report counts them. 1,248 pictures:
about half an hour on two cores with picture.size=128 and model.freeze=block3.
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    """Returns the experiment."""
    config = base.get_config()
    config.corpus = "ravdess"
    config.folds.protocol = "speakers"
    config.folds.count = 6
    config.train.batch_size = 16
    return config
