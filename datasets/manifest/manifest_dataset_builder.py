"""A corpus that a table describes."""

import itertools
import math
import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from datasets.base import CorpusBuilder, Recording
from ds_jax.data import fold_files, tables
from ds_jax.data.names import essence, plain
from ds_jax.data.tables import Table
from ds_jax.runtime import progress
from ds_jax.runtime.errors import number
from ds_jax.runtime.files import files_below, printable
from ds_jax.runtime.progress import few, many

MANIFEST = "manifest.csv"
REQUIRED = ("path", "label", "speaker")
_TIME = ("", "time", "zeit", "tiempo", "tempo")
_SECONDS = ("", "s", "sec", "secs", "seconds", "sek", "sekunden", "seg", "segundos", "secondi")


def _times(*words: str) -> tuple[str, ...]:
    return tuple(map("".join, itertools.product(words, _TIME, _SECONDS)))


# The other names of columns, without case, accents, spaces and punctuation.
FIELDS = {
    "path": tables.NAMES,
    "label": (
        *("labels", "emotion", "emotions", "emotionlabel", "class", "category", "emo", "target"),
        *("affect", "mood", "emocion", "etiqueta", "clase", "sentimiento", "animo"),
        *("emozione", "classe", "etichetta", "sentimento", "umore", "klasse", "stimmung"),
        *("gefuhl", "gefuehl", "affekt", "bezeichnung"),
    ),
    "speaker": tables.SPEAKERS,
    "gender": ("sex", "genero", "sexo", "geschlecht", "genere", "sesso"),
    "sentence": (
        *("sentenceid", "text", "textid", "transcript", "transcription", "statement"),
        *("phrase", "prompt", "frase", "texto", "oracion", "satz", "testo"),
    ),
    "style": ("speakingstyle", "speechstyle", "estilo", "stil", "stile"),
    "start": _times(
        *("start", "tstart", "begin", "tbegin", "onset", "from", "inicio", "comienzo", "desde"),
        *("anfang", "beginn", "von", "inizio"),
    ),
    "end": _times(
        *("end", "tend", "stop", "tstop", "to", "fin", "hasta", "ende", "bis", "fine"),
    ),
    "fold": tables.FOLDS,
}
# These are no fields: what they say is found out from the other columns, or from their cells.
DURATION = _times("duration", "dur", "length", "dauer", "lange", "laenge", "duracion", "durata")
OFFSET = _times("offset")
UTTERANCE = ("utterance", "utt", "ausserung", "aeusserung", "enunciado", "enunciato")
KNOWN = {*FIELDS, *itertools.chain(*FIELDS.values()), *DURATION, *OFFSET}
# Names like these mean something of which nothing may be ignored.
UNCLEAR = re.compile(
    r"(start|begin|onset|end|stop|offset)|.*(split|fold(?!er)|partition)|channel$|"
    r"(is)?(train|training|dev|devel|val|valid|validation|eval)$|"
    rf"({'|'.join((*FIELDS['start'], *FIELDS['end']))})(ms|msec|milli\w*|frames?|samples?|min\w*)$"
)
_WORDS = {
    "unknown": ("", "u", "unknown", "na", "other", "divers", "diverse"),
    "female": (
        *("f", "w", "female", "woman", "women", "girl", "feminine", "femenino", "femenina"),
        *("mujer", "weiblich", "frau", "femminile", "femmina", "donna"),
    ),
    "male": (
        *("m", "male", "man", "men", "boy", "masculine", "masculino", "hombre", "mannlich"),
        *("maennlich", "mann", "maschile", "maschio", "uomo"),
    ),
    "child": (
        *("c", "child", "children", "kid", "nino", "nina", "infantil", "kind", "bambino"),
        *("bambina",),
    ),
}
GENDERS = {word: gender for gender, words in _WORDS.items() for word in words}


class Builder(CorpusBuilder):
    """Prepares the recordings that `manifest.csv` lists; the path is the utterance's name.

    A part of a recording has its start and end in its name.
    """

    layout = f"recordings listed in {MANIFEST}"
    source = "List at least one, with its path, label and speaker."
    own_labels = True
    audio_terms = "your own recordings, so see that their speakers and owners agree"

    @staticmethod
    def recordings(folder: Path) -> Iterable[Recording]:
        table = tables.read(folder / MANIFEST)
        found = _find_columns(table)
        tables.say_columns(table, found)
        if others := _others(table, found):
            progress.say(f"{folder.name}: columns of {MANIFEST} without a use: {others}")
        rows = {line: _read_row(folder, table, found, line, cells) for line, cells in table.rows}
        _check_files(folder, table.path, rows)
        _check_alike("speaker", table.path, rows)
        _check_alike("sentence", table.path, rows)
        seen = {}
        for line, row in rows.items():
            first = seen.setdefault((row.path, row.start, row.end), line)
            if first != line:
                raise ValueError(
                    f"{table.path}, line {line}, path: {row.name} is listed in line {first} already"
                )
        return rows.values()


def _find_columns(table: Table) -> dict[str, int]:
    """Finds the column of each field, and of "duration" where that takes the place of "end"."""
    names = [plain(column) for column in table.columns]
    _check_clear(table, [index for index, name in enumerate(names) if name in KNOWN])
    found = tables.find_columns(table, FIELDS, REQUIRED)

    def add(field: str, known: tuple[str, ...]) -> None:
        fits = [index for index, name in enumerate(names) if name in known]
        if len(fits) == 1:
            found[field] = fits[0]

    if "start" not in found and {*DURATION} & {*names}:
        add("start", OFFSET)
    if "start" in found and "end" not in found:
        add("duration", DURATION)
        if "duration" not in found:
            add("end", OFFSET)
    if "sentence" not in found:
        add("sentence", UTTERANCE)
        if "sentence" in found and not _are_sentences(table, found):
            del found["sentence"]
    _check_clear(table, found.values())
    if ("start" in found) != bool({"end", "duration"} & found.keys()):
        there, missing = ("start", "end") if "start" in found else ("end", "start")
        column = table.columns[found[there]]
        raise ValueError(
            f"{table.path}, line 1: there is a column {column!r}, and none {missing!r}: add it"
        )
    if "fold" in found and "fold" not in names[found["fold"]]:
        _check_folds(table, found["fold"])
    return found


def _check_clear(table: Table, understood: Collection[int]) -> None:
    """Checks that no column which is not understood seems to matter."""
    for index, column in enumerate(table.columns):
        if index not in understood and UNCLEAR.match(plain(column)):
            raise ValueError(
                f"{table.path}, line 1: the column {column!r} is not understood, and may matter: "
                "start and end (in seconds) cut an utterance out of a file, and fold, or split, "
                "gives the folds; change it into these, or take it out"
            )


def _check_folds(table: Table, index: int) -> None:
    """Checks that a column whose name may mean something else names splits, or numbers folds."""
    column = table.columns[index]
    for line, cells in table.rows:
        if not fold_files.is_fold(tables.read_fold(column, cells[index]) if cells[index] else "0"):
            raise ValueError(
                f"{table.path}, line {line}: the column {column!r} has {cells[index]!r}, which is "
                "none of train, dev and test, and no number: call the column fold if it says in "
                "which fold a row is tested, or else take it out"
            )


def _are_sentences(table: Table, found: Mapping[str, int]) -> bool:
    """Tells whether a column called utterance has sentences; else it has names of utterances.

    Raises:
        ValueError: It may have either.
    """
    index = found["sentence"]
    pairs = [(Path(cells[found["path"]]), cells[index]) for _, cells in table.rows if cells[index]]
    texts = [text for _, text in pairs]
    if any(text in (path.as_posix(), path.name, path.stem) for path, text in pairs):
        return False
    if len({*texts}) < len(texts) or any(" " in text for text in texts):
        return True
    raise ValueError(
        f"{table.path}, line 1: the column {table.columns[index]!r} may have sentences or names of "
        f"utterances, since each row has another word ({few(texts)}): call it sentence, or take it "
        "out"
    )


def _read_row(
    folder: Path, table: Table, found: Mapping[str, int], line: int, cells: Sequence[str]
) -> Recording:
    where, row = f"{table.path}, line {line}", {field: cells[i] for field, i in found.items()}
    for field in (*REQUIRED, "fold") if "fold" in found else REQUIRED:
        if not row[field]:
            raise ValueError(f"{where}, {field}: the field is empty")
    gender = GENDERS.get(plain(row.get("gender", "")))
    if gender is None:
        known = ", ".join(dict.fromkeys(GENDERS.values()))
        raise ValueError(
            f"{where}, gender: {row['gender']!r} is none of {known}, and no other word for them"
        )
    path = row["path"]
    if not os.path.lexists(folder / path):
        # As Windows writes it; and accents are parts of their letters, or signs of their own.
        path = os.path.expanduser(path.replace("\\", "/"))
        ways = (path, *(unicodedata.normalize(form, path) for form in ("NFC", "NFD")))
        path = next((way for way in ways if os.path.lexists(folder / way)), path)
    name, (start, end) = Path(path).as_posix(), _read_times(where, row)
    if end < math.inf:
        name += f"_{start:.10g}-{end:.10g}"
    fold = row.get("fold", "")
    return Recording(
        folder / path,
        name,
        row["label"],
        row["speaker"],
        gender,
        row.get("sentence", ""),
        row.get("style") or "normal",
        start,
        end,
        fold and tables.read_fold(table.columns[found["fold"]], fold),
    )


def _read_times(where: str, row: Mapping[str, str]) -> tuple[float, float]:
    """Reads the times of a part; those of a whole file are empty."""
    other = "duration" if "duration" in row else "end"
    if not (row.get("start") or row.get(other)):
        return 0.0, math.inf
    start, end = (_seconds(where, field, row[field]) for field in ("start", other))
    end += start if other == "duration" else 0.0
    if start >= end:
        raise ValueError(f"{where}, {other}: {row[other]} must be later than the start")
    return start, end


def _seconds(where: str, field: str, text: str) -> float:
    """Reads a time, whose decimals may follow a comma."""
    seconds = number(text.replace(",", "."))
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{where}, {field}: {text!r} must be a number of seconds, 0 or more")
    return seconds


def _check_files(folder: Path, table: Path, rows: Mapping[int, Recording]) -> None:
    """Checks that all files are there; an unusable one is skipped later."""
    missing = [line for line, row in rows.items() if not os.path.lexists(row.path)]
    if not missing:
        return
    names = [f"line {line}, {os.path.relpath(rows[line].path, folder)}" for line in missing]
    message = f"{table}, line {missing[0]}, path: there is no file {rows[missing[0]].path}"
    if others := names[1:]:
        verb = "is" if len(others) == 1 else "are"
        message += f"; nor {verb} there {many(len(others), 'other')}: {'; '.join(others)}"
    if near := _near(folder, rows[missing[0]].path):
        message += f". There is {near}: a path begins in this folder, and ends as its file does"
    # Prepared data can do without all recordings, but not without some.
    raise (FileNotFoundError if len(missing) == len(rows) else ValueError)(printable(message))


def _near(folder: Path, missing: Path) -> str:
    """Returns a file whose name is almost that of a missing one; "" if there is none."""
    names = {plain(missing.name), plain(missing.stem)}
    near = (path for path in files_below(folder)[0] if plain(path.stem) in names)
    return os.path.relpath(path, folder) if (path := next(near, None)) else ""


def _check_alike(field: str, table: Path, rows: Mapping[int, Recording]) -> None:
    """Checks that no two names of speakers may be the same one, spelt in two ways.

    A speaker of two names would be heard in both training and test. Of sentences it is only said,
    since they may be told apart by punctuation.
    """
    first = {}
    for line, row in rows.items():
        name = getattr(row, field)
        other, place = first.setdefault(essence(name), (name, line))
        if other == name:
            continue
        message = (
            f"{table}, line {line}, {field}: {name!r} and {other!r} in line {place} may be the same"
        )
        if field == "sentence":
            progress.say(printable(f"{message}: write them alike if they are"))
            return
        raise ValueError(
            f"{message}, and would then be in both training and test: write them alike, or more "
            "differently"
        )


def _others(table: Table, found: Mapping[str, int]) -> str:
    """Lists the columns that are no field's; those without names if they hold anything."""
    return ", ".join(
        printable(column) or "one without a name"
        for index, column in enumerate(table.columns)
        if index not in found.values() and (column or any(cells[index] for _, cells in table.rows))
    )
