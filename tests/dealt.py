"""Utterances to deal into folds."""

import itertools

from ds_jax.data.corpus import Utterance
from ds_jax.data.labels import LABELS

RULES = ("stratified", "split_70_30", "speakers", "leave_one_speaker_out", "sentences")


def corpus(speakers=6, sentences=12, labels=LABELS, skip=7):
    """Every speaker says every sentence with a label, except each `skip`-th utterance."""
    utterances = []
    for speaker, sentence in itertools.product(range(speakers), range(sentences)):
        if (speaker * sentences + sentence) % skip < skip - 1:
            name = f"s{speaker:02}_{sentence:02}"
            label = labels[(speaker + sentence * 3) % len(labels)]
            spoken = f"s{speaker:02}", "unknown", f"t{sentence}"
            utterances.append(Utterance(name, label, *spoken, "", 1))
    return utterances


def attributes(utterances, names, attribute):
    return {getattr(u, attribute) for u in utterances if u.name in set(names)}
