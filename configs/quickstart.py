"""Quick start: DS-AM's second form on synthetic speech in the two Spanish corpora's layouts.

    python launch.py

Generates both corpora, draws their pictures, trains on the EmoMatch-like one in four folds of
whole speakers, tests the four models on the ELRA-like one, and writes report.html. On two cores
it takes a minute or two. Nothing is downloaded but VGG16's weights.

Synthetic speech proves the plumbing and nothing else: no score of it is evidence.
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    """Returns the experiment."""
    config = base.get_config()
    base.use_ds_am_statistics(config)
    config.synthetic = True
    config.corpus = "emomatch_spanish_db"
    config.eval_on = ("elra_s0329",)
    config.folds.protocol = "speakers"
    config.folds.count = 4
    config.train.epochs = 8
    return config
