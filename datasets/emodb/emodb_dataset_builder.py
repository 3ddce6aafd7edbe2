"""EmoDB: acted German."""

from collections.abc import Iterator
from pathlib import Path

from datasets.base import CorpusBuilder, Recording, named

# Speaker, text, emotion, version.
NAME = r"(?P<speaker>\d\d)(?P<text>[ab]\d\d)(?P<emotion>[wleaftn])[a-z]"
# The first letters of Wut, Ekel, Angst, Freude, Neutral and Trauer; L, Langeweile, is boredom.
LABELS = {"W": "ANGER", "E": "DISGUST", "A": "FEAR", "F": "JOY", "N": "NEUTRAL", "T": "SADNESS"}
GENDERS = dict.fromkeys(("03", "10", "11", "12", "15"), "male") | dict.fromkeys(
    ("08", "09", "13", "14", "16"), "female"
)


class Builder(CorpusBuilder):
    """Prepares EmoDB without boredom, which is none of the seven emotions."""

    title = "EmoDB"
    licence = "free, from <http://emodb.bilderbar.info>"
    audio_terms = "EmoDB is free; name Burkhardt et al. (2005)"
    layout = "files named like wav/03a01Fa.wav"
    source = "Unpack the archive from http://emodb.bilderbar.info there."
    totals = (454,)

    @staticmethod
    def recordings(folder: Path) -> Iterator[Recording]:
        for path, match in named(folder, NAME):
            if label := LABELS.get(match["emotion"].upper()):
                gender = GENDERS.get(match["speaker"], "unknown")
                sentence = match["text"].lower()
                yield Recording(path, path.stem, label, match["speaker"], gender, sentence)
