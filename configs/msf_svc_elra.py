"""SVC on modulation spectral features, ELRA-S0329: table 1 of the paper, accuracy .776.

    python launch.py --config=configs/msf_svc_elra.py

A system of Kerkeni et al. (2019), on the folds of ds_am_elra.py; --config.corpus=emovo runs it
on another corpus.

The published scores of this column fall when features are added, as those of an RBF kernel on
unscaled features do; --config.model.scaling=none gives that.
"""

import ml_collections

from configs import base, ds_am_elra


def get_config() -> ml_collections.ConfigDict:
    """Returns the experiment."""
    config = ds_am_elra.get_config()
    base.use_svc(config, "msf", kernel="rbf")
    return config
