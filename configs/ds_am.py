"""DS-AM on recordings of your own: its second form, with speakers kept apart.

    python launch.py --config=configs/ds_am.py --config.corpus=FOLDER

docs/first_hour.md says how a folder of recordings is labelled. Nobody is heard in both training and
test, in at most ten folds of speakers; --config.folds.protocol takes other folds. `ds_am_best.py`
is the mean of six such models.
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    """Returns the experiment."""
    config = base.get_config()
    base.use_ds_am_statistics(config)
    config.corpus = ""
    config.folds.protocol = "speakers"
    return config
