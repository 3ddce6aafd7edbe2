"""ELRA-S0329: acted Spanish of two speakers, the corpus of the paper."""

import re
from collections.abc import Iterator
from pathlib import Path

from datasets.base import CorpusBuilder, Recording, audio_files, say_of

# <speaker>/sess<style>00<session>/
FOLDERS = re.compile(r"(?:^|/)(?P<speaker>[fm])/sess(?P<style>[a-z])00(?P<session>[12])/", re.I)
# spf1f075 is read as speaker f, session 1, style f, sentence 075. Only one name is public, so this
# reading counts only where the folders give no answer.
NAME = re.compile(r"sp(?P<speaker>[fm])(?P<session>[12])(?P<style>[a-z])(?P<sentence>\d{3})", re.I)
STYLES = {
    "a": ("ANGER", "normal"),
    "d": ("DISGUST", "normal"),
    "f": ("FEAR", "normal"),
    "j": ("JOY", "normal"),
    "s": ("SADNESS", "normal"),
    "n": ("NEUTRAL", "normal"),
    "h": ("NEUTRAL", "loud"),
    "l": ("NEUTRAL", "soft"),
    "w": ("NEUTRAL", "slow"),
    "z": ("NEUTRAL", "fast"),
}
GENDERS = {"f": "female", "m": "male"}


class Builder(CorpusBuilder):
    """Prepares ELRA-S0329.

    The letter of surprise is not public: a single letter besides the ten known ones is taken for
    it.
    """

    title = "ELRA-S0329"
    licence = "sold by ELRA under a licence, which says what may be passed on"
    layout = "files named like S0329/INTER1SP_01/f/sessa001/*.l16"
    source = "Copy the folder that ELRA delivers (https://catalogue.elra.info) there."
    suffixes = (".l16", ".raw", ".wav")  # the published format, then conversions
    totals = (6041,)

    @staticmethod
    def recordings(folder: Path) -> Iterator[Recording]:
        placed, others, contrary = [], [], []
        for path in audio_files(folder):
            by_folder = FOLDERS.search(path.relative_to(folder).as_posix())
            by_name = NAME.fullmatch(path.stem)
            if not by_folder and not by_name:
                others.append(path)
                continue
            if by_folder and by_name and _place(by_folder) != _place(by_name):
                contrary.append(path)
            # Names of other forms end with the sentence's number too.
            sentence = by_name["sentence"] if by_name else re.search(r"\d{0,3}$", path.stem)[0]
            placed.append((path, *_place(by_folder or by_name), sentence))
        say_of(folder, others, "in no session and passed over")
        say_of(folder, contrary, "disagree with their folders, which are believed")
        unknown = sorted({style for _, _, style, _, _ in placed} - set(STYLES))
        if len(unknown) > 1:
            raise ValueError(
                f"{folder}: sessions of the unknown styles {', '.join(unknown)}; only one, "
                "surprise, may have a letter that is not documented: remove or rename the others"
            )
        surprised = [path for path, _, style, _, _ in placed if style in unknown]
        say_of(folder, surprised, f"in sessions of style {''.join(unknown)!r} taken for surprise")
        styles = STYLES | dict.fromkeys(unknown, ("SURPRISE", "normal"))
        for path, speaker, style, session, sentence in placed:
            name = f"{speaker}/sess{style}00{session}/{path.stem}"
            label, manner = styles[style]
            yield Recording(path, name, label, speaker, GENDERS[speaker], sentence, manner)


def _place(match: re.Match) -> tuple[str, str, str]:
    return match["speaker"].lower(), match["style"].lower(), match["session"]
