"""DS-AM on EMOVO (Italian, open for non-commercial use), six speakers.

    python launch.py --config=configs/ds_am_emovo.py

The paper has no such row. Three folds of two speakers each, so that nobody is heard in both
training and test. All six speak the same fourteen sentences, and the report counts them. 588
pictures: about ten minutes on two cores with picture.size=128 and model.freeze=block3.
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    """Returns the experiment."""
    config = base.get_config()
    config.corpus = "emovo"
    config.folds.protocol = "speakers"
    config.folds.count = 3
    config.train.batch_size = 16
    return config
