"""FFNN on ComParE_2016, EmoMatchSpanishDB: table 2 of the paper, accuracy .596.

    python launch.py --config=configs/compare_ffnn_emomatch.py

A system of Garcia-Cuesta et al. (2024), on the folds of ds_am_emomatch.py; configs/base.py decides
what they leave open. It needs the package opensmile, whose licence is non-commercial:
pip install -r requirements-opensmile.txt. --config.corpus=emodb runs it on another corpus.

Table 4 prints .554 for this cell.
"""

import ml_collections

from configs import base, ds_am_emomatch


def get_config() -> ml_collections.ConfigDict:
    """Returns the experiment."""
    config = ds_am_emomatch.get_config()
    base.use_ffnn(config, "compare")
    return config
