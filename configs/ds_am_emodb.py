"""DS-AM on EmoDB (German, open): each of the ten speakers is tested once.

    python launch.py --config=configs/ds_am_emodb.py

The paper has no such row. This is DS-AM's second form, which reads pictures of a fixed time scale;
docs/results.md compares it with the paper's. 454 pictures of six of the seven classes.
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    """Returns the experiment."""
    config = base.get_config()
    base.use_ds_am_statistics(config)
    config.corpus = "emodb"
    config.folds.protocol = "leave_one_speaker_out"
    return config
