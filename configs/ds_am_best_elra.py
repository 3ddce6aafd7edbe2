"""DS-AM's best on ELRA-S0329, in the folds of the paper's DS-AM.

    python launch.py --config=configs/ds_am_best_elra.py

The paper has no such row. This is `ds_am_best.py`, the mean of six members, in the ten stratified
folds of `ds_am_elra.py`: both speakers and all sentences are in training and in test, and the
report counts them. No epoch is chosen, so that no fold has a development split.
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    """Returns the experiment."""
    config = base.get_config()
    base.use_ds_am_best(config)
    config.corpus = "elra_s0329"
    config.folds.protocol = "stratified"
    return config
