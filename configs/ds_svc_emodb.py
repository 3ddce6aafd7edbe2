"""DS-SVC on EmoDB (German, open): each of the ten speakers is tested once.

    python launch.py --config=configs/ds_svc_emodb.py

The paper has no such row. VGG16's features are computed once, in a few minutes on two cores; the
ten fits take seconds.
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    """Returns the experiment."""
    config = base.get_config()
    base.use_ds_svc(config)
    config.corpus = "emodb"
    config.folds.protocol = "leave_one_speaker_out"
    return config
