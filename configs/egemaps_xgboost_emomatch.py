"""XGBoost on eGeMAPSv02, EmoMatchSpanishDB: table 2 of the paper, accuracy .562.

    python launch.py --config=configs/egemaps_xgboost_emomatch.py

A system of Garcia-Cuesta et al. (2024), on the folds of ds_am_emomatch.py; configs/base.py decides
what they leave open. It needs the package opensmile, whose licence is non-commercial:
pip install -r requirements-opensmile.txt. --config.corpus=emodb runs it on another corpus.
"""

import ml_collections

from configs import base, ds_am_emomatch


def get_config() -> ml_collections.ConfigDict:
    """Returns the experiment."""
    config = ds_am_emomatch.get_config()
    base.use_xgboost(config, "egemaps")
    return config
