"""DS-AM's best, and ridges on ComParE and on Wu's modulation measures: the mean of the three.

    python launch.py --config=configs/ds_am_fused.py

Trained and tested on EmoDB, a speaker at a time; `--config.corpus=NAME` takes another corpus. The
three weigh alike, whatever they score alone. ComParE needs openSMILE, whose licence is
non-commercial and reaches the models: see requirements-opensmile.txt.
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    """Returns the experiment."""
    config = base.get_config()
    base.use_ds_am_fused(config)
    config.corpus = "emodb"
    config.folds.protocol = "leave_one_speaker_out"
    return config
