"""DS-AM on ELRA-S0329: tables 4, 5 and 7 of the paper, accuracy .984.

    python launch.py --config=configs/ds_am_elra.py

Ten stratified folds over files, the paper's protocol: both speakers and all 184 sentences are in
training and in test, and the report counts them. For another question than "does it know these
two voices?" take --config.folds.protocol=sentences or leave_one_speaker_out; for the paper's ten
70/30 splits split_70_30; for the choice of the epoch that we assume of the paper, which does not
say, --config.select_on=test.

The cross-corpus experiment (table 7: 35.66 %) trains one model on the whole corpus:

    python launch.py --config=configs/ds_am_elra.py --config.folds.protocol=whole_corpus \
        --workdir=runs/ds_am_elra_whole
    python launch.py --config=configs/ds_am_elra.py --workdir=runs/ds_am_elra_whole \
        --mode=evaluate --eval_on=emomatch

6,041 pictures, at most 40 epochs a fold: 1.8e17 operations for ten folds at 224 pixels, which take
26 minutes at least on a TPU v5e, as its compiler estimates (docs/devices.md).
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    """Returns the experiment."""
    config = base.get_config()
    config.corpus = "elra_s0329"
    config.folds.protocol = "stratified"
    return config
