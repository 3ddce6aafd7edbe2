"""DS-AM's best: its second form on two pictures, three times each, and ridges on the same blocks.

    python launch.py --config=configs/ds_am_best.py

Trained and tested on EmoDB, a speaker at a time. `--config.corpus=NAME` takes another corpus or a
folder of your own, and `--config.folds.protocol` other folds. The probabilities are the mean of ten
members, each of which has its report in `runs/ds_am_best/members/`; docs/results.md says what they
score, and what they cost.
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    """Returns the experiment."""
    config = base.get_config()
    base.use_ds_am_best(config)
    config.corpus = "emodb"
    config.folds.protocol = "leave_one_speaker_out"
    return config
