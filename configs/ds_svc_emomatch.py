"""DS-SVC on EmoMatchSpanishDB: table 3 of the paper, accuracy .525.

    python launch.py --config=configs/ds_svc_emomatch.py

VGG16 as a fixed extractor of features, computed once for the corpus, and a support vector
classifier whose C is chosen within the training set. The paper's features are fc2, as
DeepSpectrum's: --config.model.layers="('fc2',)", which needs the 553 MB weights. The default
takes the means of blocks 3 and 4. Folds are those of ds_am_emomatch.py.
"""

import ml_collections

from configs import base, ds_am_emomatch


def get_config() -> ml_collections.ConfigDict:
    """Returns the experiment."""
    config = ds_am_emomatch.get_config()
    base.use_ds_svc(config)
    return config
