"""MLR on modulation spectral features, ELRA-S0329: table 1 of the paper, accuracy .706.

    python launch.py --config=configs/msf_mlr_elra.py

A system of Kerkeni et al. (2019), on the folds of ds_am_elra.py; --config.corpus=emovo runs it
on another corpus.

Least squares on one-hot targets.
"""

import ml_collections

from configs import base, ds_am_elra


def get_config() -> ml_collections.ConfigDict:
    """Returns the experiment."""
    config = ds_am_elra.get_config()
    base.use_mlr(config, "msf")
    return config
