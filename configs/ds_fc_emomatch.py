"""DS-FC on EmoMatchSpanishDB: table 4 of the paper, accuracy .659.

    python launch.py --config=configs/ds_fc_emomatch.py

VGG16 fine-tuned with its own fully connected layers, 4096-4096-7. These need the weights of the
whole network (553 MB, from Keras' address or by --config.weights); --config.model.head=gap takes
the mean over positions instead and needs the trunk alone. Protocol and cost are those of
ds_am_emomatch.py.
"""

import ml_collections

from configs import base, ds_am_emomatch


def get_config() -> ml_collections.ConfigDict:
    """Returns the experiment."""
    config = ds_am_emomatch.get_config()
    base.use_ds_fc(config)
    return config
