"""DS-FC on ELRA-S0329: table 4 of the paper, accuracy .975.

    python launch.py --config=configs/ds_fc_elra.py

VGG16 fine-tuned with its own fully connected layers, 4096-4096-7. These need the weights of the
whole network (553 MB, from Keras' address or by --config.weights); --config.model.head=gap takes
the mean over positions instead and needs the trunk alone. Protocol and cost are those of
ds_am_elra.py.
"""

import ml_collections

from configs import base, ds_am_elra


def get_config() -> ml_collections.ConfigDict:
    """Returns the experiment."""
    config = ds_am_elra.get_config()
    base.use_ds_fc(config)
    return config
