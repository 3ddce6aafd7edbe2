"""DS-AM on EmoMatchSpanishDB: tables 4, 6 and 7 of the paper, accuracy .683 (64.20 % in table 7).

    python launch.py --config=configs/ds_am_emomatch.py

Ten folds of 45 speakers against 5, as in the paper, which does not say what chooses its epoch: here
a tenth of the training speakers does (with --config.select_on=test the test fold). The cross-corpus
experiment (table 7: 41.54 %) trains one model on the whole corpus and tests it on ELRA-S0329 with
the normal neutral style only:

    python launch.py --config=configs/ds_am_emomatch.py --config.folds.protocol=whole_corpus \
        --workdir=runs/ds_am_emomatch_whole
    python launch.py --config=configs/ds_am_emomatch.py --workdir=runs/ds_am_emomatch_whole \
        --mode=evaluate --eval_on=elra

About 2,050 pictures, at most 40 epochs a fold: 6e16 operations for ten folds at 224 pixels, which
take nine minutes at least on a TPU v5e, as its compiler estimates (docs/devices.md).
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    """Returns the experiment."""
    config = base.get_config()
    config.corpus = "emomatch_spanish_db"
    config.folds.protocol = "speakers"
    return config
