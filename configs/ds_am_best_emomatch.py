"""DS-AM's best on EmoMatchSpanishDB, in the folds of the paper's DS-AM.

    python launch.py --config=configs/ds_am_best_emomatch.py

The paper has no such row. This is `ds_am_best.py`, the mean of six members, in the ten folds of
whole speakers of `ds_am_emomatch.py`. No epoch is chosen, so that no fold has a development split.
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    """Returns the experiment."""
    config = base.get_config()
    base.use_ds_am_best(config)
    config.corpus = "emomatch_spanish_db"
    config.folds.protocol = "speakers"
    return config
