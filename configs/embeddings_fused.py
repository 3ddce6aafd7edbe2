"""DS-AM's best, and a ridge on embeddings of WavLM: the mean of the two.

    python launch.py --config=configs/embeddings_fused.py

Trained and tested on EmoDB, a speaker at a time; --config.corpus=NAME takes another corpus, and
--config.members.embeddings.embeddings.model another model. The two weigh alike, whatever they score
alone. The embeddings need what embeddings_svc.py needs.
"""

import ml_collections

from configs import base, embeddings_svc


def get_config() -> ml_collections.ConfigDict:
    """Returns the experiment."""
    config = base.get_config()
    speech, pictures = base.get_config(), base.get_config()
    base.use_ridge(speech, "embeddings")
    speech.embeddings = embeddings_svc.get_config().embeddings
    base.use_ds_am_best(pictures)
    for member in (speech, pictures):
        member.seed = config.get_oneway_ref("seed")
    base.use_ensemble(config, embeddings=speech, pictures=pictures)
    config.corpus = "emodb"
    config.folds.protocol = "leave_one_speaker_out"
    return config
