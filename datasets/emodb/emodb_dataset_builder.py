"""EmoDB: acted German."""

from collections.abc import Iterator
from pathlib import Path

from datasets.base import CorpusBuilder, Recording, named

# Speaker, text, emotion, version.
NAME = r"(?P<speaker>\d\d)(?P<text>[ab]\d\d)(?P<emotion>[wleaftn])[a-z]"
# The first letters of Wut, Langeweile (the L), Ekel, Angst, Freude, Trauer and Neutral.
LABELS = {
    "W": "ANGER",
    "L": "BOREDOM",
    "E": "DISGUST",
    "A": "FEAR",
    "F": "JOY",
    "T": "SADNESS",
    "N": "NEUTRAL",
}
GENDERS = dict.fromkeys(("03", "10", "11", "12", "15"), "male") | dict.fromkeys(
    ("08", "09", "13", "14", "16"), "female"
)


class Builder(CorpusBuilder):
    """Prepares EmoDB."""

    title = "EmoDB"
    licence = "free, from <http://emodb.bilderbar.info>"
    audio_terms = "EmoDB is free; name Burkhardt et al. (2005)"
    layout = "files named like wav/03a01Fa.wav"
    source = "Unpack the archive from http://emodb.bilderbar.info there."
    totals = (535,)

    @staticmethod
    def recordings(folder: Path) -> Iterator[Recording]:
        for path, match in named(folder, NAME):
            label = LABELS[match["emotion"].upper()]
            gender = GENDERS.get(match["speaker"], "unknown")
            yield Recording(path, path.stem, label, match["speaker"], gender, match["text"].lower())
