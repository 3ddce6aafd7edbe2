"""LSTM on modulation spectral features, ELRA-S0329: table 1 of the paper, accuracy .823.

    python launch.py --config=configs/msf_lstm_elra.py

A system of Kerkeni et al. (2019), on the folds of ds_am_elra.py; --config.corpus=emovo runs it
on another corpus.

A recording is one vector, a sequence of one step.
"""

import ml_collections

from configs import base, ds_am_elra


def get_config() -> ml_collections.ConfigDict:
    """Returns the experiment."""
    config = ds_am_elra.get_config()
    base.use_lstm(config, "msf")
    return config
