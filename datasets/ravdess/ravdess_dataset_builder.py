"""RAVDESS: acted English, the spoken part."""

from collections.abc import Iterator
from pathlib import Path

from datasets.base import CorpusBuilder, Recording, named

# Modality (03 audio only), channel (01 speech, 02 song), emotion, intensity, statement,
# repetition, actor.
NAME = r"(?P<kind>\d\d-\d\d)-(?P<emotion>0[1-8])-\d\d-(?P<statement>\d\d)-\d\d-(?P<actor>\d\d)"
SPEECH = "03-01"
LABELS = {
    "01": "NEUTRAL",
    "02": "CALM",
    "03": "JOY",
    "04": "SADNESS",
    "05": "ANGER",
    "06": "FEAR",
    "07": "DISGUST",
    "08": "SURPRISE",
}


class Builder(CorpusBuilder):
    """Prepares RAVDESS' speech."""

    title = "RAVDESS"
    licence = "free for non-commercial use (CC BY-NC-SA 4.0)"
    audio_terms = (
        "RAVDESS is under CC BY-NC-SA 4.0: name Livingstone and Russo (2018), nothing commercial, "
        "and the same licence for what is made of it"
    )
    layout = "files named like Actor_12/03-01-05-02-01-01-12.wav"
    source = (
        "Unpack Audio_Speech_Actors_01-24.zip from https://doi.org/10.5281/zenodo.1188976 there."
    )
    totals = (1440,)

    @staticmethod
    def recordings(folder: Path) -> Iterator[Recording]:
        for path, match in named(folder, NAME):
            if match["kind"] == SPEECH:
                label, actor = LABELS[match["emotion"]], match["actor"]
                gender = "male" if int(actor) % 2 else "female"
                yield Recording(path, path.stem, label, actor, gender, match["statement"])
