"""EmoMatchSpanishDB: elicited Spanish of fifty speakers."""

from collections.abc import Iterator
from pathlib import Path

from datasets.base import CorpusBuilder, Recording, named

# Some copies double an underscore.
NAME = (
    r"(?P<speaker>\d{1,2})_+(?P<emotion>Ira|Asco|Miedo|Alegria|Neutro|Tristeza|Sorpresa)"
    r"_+(?P<sentence>\d{1,2})"
)
LABELS = {
    "ira": "ANGER",
    "asco": "DISGUST",
    "miedo": "FEAR",
    "alegria": "JOY",
    "neutro": "NEUTRAL",
    "tristeza": "SADNESS",
    "sorpresa": "SURPRISE",
}
# Public for 29 of the 50 speakers.
MALE = (1, 2, 5, 9, 12, 13, 22, 23, 31, 35, 36, 37, 43)
FEMALE = (3, 4, 6, 7, 8, 10, 11, 20, 25, 29, 33, 40, 41, 45, 46, 49)
GENDERS = dict.fromkeys(MALE, "male") | dict.fromkeys(FEMALE, "female")


class Builder(CorpusBuilder):
    """Prepares EmoMatchSpanishDB."""

    title = "EmoMatchSpanishDB"
    licence = "given out by its authors on request"
    layout = "files named like 03_Alegria_02.WAV"
    source = "Its authors give it out on request: see https://doi.org/10.1007/s11042-023-15959-w."
    totals = (2050, 2005)  # the paper's number, and that of later users

    @staticmethod
    def recordings(folder: Path) -> Iterator[Recording]:
        for path, match in named(folder, NAME):
            yield Recording(
                path,
                path.stem,
                LABELS[match["emotion"].lower()],
                match["speaker"].zfill(2),
                GENDERS.get(int(match["speaker"]), "unknown"),
                match["sentence"].zfill(2),
            )
