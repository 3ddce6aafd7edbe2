"""EMOVO: acted Italian."""

from collections.abc import Iterator
from pathlib import Path

from datasets.base import CorpusBuilder, Recording, named

NAME = r"(?P<emotion>rab|dis|pau|gio|neu|tri|sor)-(?P<speaker>[fm]\d)-(?P<sentence>[a-z]\d)"
# Rabbia, disgusto, paura, gioia, neutralità, tristezza, sorpresa.
LABELS = {
    "rab": "ANGER",
    "dis": "DISGUST",
    "pau": "FEAR",
    "gio": "JOY",
    "neu": "NEUTRAL",
    "tri": "SADNESS",
    "sor": "SURPRISE",
}


class Builder(CorpusBuilder):
    """Prepares EMOVO."""

    title = "EMOVO"
    licence = "free for non-commercial use; no known terms allow recordings to be passed on"
    layout = "files named like f1/dis-f1-b1.wav"
    source = (
        "Unpack the archive from http://voice.fub.it/activities/corpora/emovo/index.html there."
    )
    totals = (588,)

    @staticmethod
    def recordings(folder: Path) -> Iterator[Recording]:
        for path, match in named(folder, NAME):
            speaker = match["speaker"].lower()
            gender = "female" if speaker.startswith("f") else "male"
            label = LABELS[match["emotion"].lower()]
            yield Recording(path, path.stem, label, speaker, gender, match["sentence"].lower())
