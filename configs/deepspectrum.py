"""Features for other programs, as DeepSpectrum extracts them: the layer fc2 of VGG16.

    python launch.py --config=configs/deepspectrum.py --mode=features --output=features.csv FOLDER

Pictures are DeepSpectrum's for `-m mel -sr 16000`, and the table has its columns. fc2 needs the
553 MB weights. The 59 MB file suffices for the means over positions of blocks, such as
--config.model.layers="('block4_pool','block5_pool')". A row for each second, every tenth of a
second: --config.picture.window=1.0 --config.picture.window_hop=0.1.
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    """Returns DS-SVC with DeepSpectrum's layer."""
    config = base.get_config()
    base.use_ds_svc(config)
    config.model.layers = ("fc2",)
    config.picture.size = 0  # what the backbone was trained on
    return config
