"""MESD, the Mexican Emotional Speech Database: acted Spanish words."""

from collections.abc import Iterator
from pathlib import Path

from datasets.base import CorpusBuilder, Recording, named

# Emotion, kind of voice, list of words, word.
NAME = (
    r"(?P<emotion>Anger|Disgust|Fear|Happiness|Neutral|Sadness)_(?P<voice>[FMC])_[AB]_(?P<word>.+)"
)
LABELS = {
    "anger": "ANGER",
    "disgust": "DISGUST",
    "fear": "FEAR",
    "happiness": "JOY",
    "neutral": "NEUTRAL",
    "sadness": "SADNESS",
}
GENDERS = {"f": "female", "m": "male", "c": "child"}
# Two files have other names than their places among the 24 words of list A suggest.
WORDS = {"afuera": "fuera", "lento_dentro": "lento"}


class Builder(CorpusBuilder):
    """Prepares MESD; the names tell no speakers apart, and so every one is unknown."""

    title = "MESD"
    licence = "licensed under CC BY 4.0, from <https://doi.org/10.17632/cy34mh68j9>"
    audio_terms = "MESD is licensed under CC BY 4.0; name Duville et al. (2021)"
    layout = "files named like Anger_C_A_abajo.wav"
    source = "Unpack the archive from https://doi.org/10.17632/cy34mh68j9 there."
    totals = (862, 864)

    @staticmethod
    def recordings(folder: Path) -> Iterator[Recording]:
        for path, match in named(folder, NAME):
            word = match["word"].lower()
            label, gender = LABELS[match["emotion"].lower()], GENDERS[match["voice"].lower()]
            yield Recording(path, path.stem, label, "", gender, WORDS.get(word, word))
