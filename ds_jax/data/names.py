"""Names as people write them: labels, speakers, folds, columns and corpora."""

import re
import unicodedata


def normalise(name: str) -> str:
    """Returns a name without case, accents and outer spaces; hyphens and underscores are spaces.

    Signs outside of words and numbers stay, since -1 is not 1. "3.0", as spreadsheets write 3, is
    "3".
    """
    text = re.sub(r"(?<=\w)[-_]+(?=\w)", " ", _without_accents(name).casefold())
    return re.sub(r"^([+-]?\d+)\.0+$", r"\1", " ".join(text.split()))


def plain(name: str) -> str:
    """Returns the letters and digits of a normalised name."""
    return _letters(name, "")


def essence(name: str) -> tuple[str, ...]:
    """Returns the words and the numbers of a normalised name, numbers without leading zeros.

    Two names of equal essence may be the same one, spelt in two ways. A name of punctuation alone
    is its own essence.
    """
    parts = re.findall(r"\d+|[^\d\s]+", _letters(name, " "))
    return tuple(part.lstrip("0") or "0" for part in parts) or (name,)


def _letters(name: str, other: str) -> str:
    # Marks are letters' parts in most scripts: without them names would be alike that are not.
    return "".join(
        sign if unicodedata.category(sign)[0] in "LMN" else other for sign in normalise(name)
    )


def _without_accents(text: str) -> str:
    """Returns a text without the accents of Latin letters; marks of other scripts stay."""
    letters = []
    for letter in unicodedata.normalize("NFKD", text):
        accent = unicodedata.combining(letter) and letters
        if not (accent and unicodedata.name(letters[-1], "").startswith("LATIN")):
            letters.append(letter)
    return unicodedata.normalize("NFC", "".join(letters))
