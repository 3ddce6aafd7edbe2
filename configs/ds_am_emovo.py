"""DS-AM on EMOVO (Italian, open for non-commercial use): each of the six speakers is tested once.

    python launch.py --config=configs/ds_am_emovo.py

The paper has no such row. This is DS-AM's second form, as in ds_am_emodb.py. All six speakers say
the same fourteen sentences, and the report counts them. 588 pictures.
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    """Returns the experiment."""
    config = base.get_config()
    base.use_ds_am_statistics(config)
    config.corpus = "emovo"
    config.folds.protocol = "leave_one_speaker_out"
    return config
