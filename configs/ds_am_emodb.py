"""DS-AM on EmoDB (German, open), ten speakers.

    python launch.py --config=configs/ds_am_emodb.py

The paper has no such row. Five folds of whole speakers, so that nobody is heard in both training
and test; the six classes that the seven labels and EmoDB share. 454 pictures. On two cores take

    python launch.py --config=configs/ds_am_emodb.py --config.picture.size=128 \
        --config.model.freeze=block3

which needs less than half an hour.
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    """Returns the experiment."""
    config = base.get_config()
    config.corpus = "emodb"
    config.folds.protocol = "speakers"
    config.folds.count = 5
    config.train.batch_size = 16
    return config
