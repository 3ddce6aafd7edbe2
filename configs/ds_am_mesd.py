"""DS-AM on MESD (Mexican Spanish, open): single words of women, men and children.

    python launch.py --config=configs/ds_am_mesd.py

The paper has no such row. This is DS-AM's second form, as in ds_am_emodb.py. The corpus does not
say who speaks, so three folds test women, men and children by models of the others.
Most words of its list B occur with one emotion alone, and are in training and test: see
datasets/mesd/README.md for list A, whose words tell nothing. --config.folds.protocol=sentences
keeps words apart, with the same people in training and test. 864 pictures of six of the seven
classes.
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    """Returns the experiment."""
    config = base.get_config()
    base.use_ds_am_statistics(config)
    config.corpus = "mesd"
    config.folds.protocol = "genders"
    config.folds.count = 3
    return config
