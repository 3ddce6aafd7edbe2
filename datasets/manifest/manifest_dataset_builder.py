"""A corpus that a table describes."""

import itertools
import math
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from absl import logging

from datasets.base import SHOWN, CorpusBuilder, Recording
from ds_jax.data import tables
from ds_jax.data.labels import without_accents
from ds_jax.runtime.files import printable

MANIFEST = "manifest.csv"
REQUIRED = ("path", "label", "speaker")
# The other names of columns, without case, accents, spaces and punctuation.
FIELDS = {
    "path": tables.NAMES,
    "label": (
        *("labels", "emotion", "emotions", "emotionlabel", "class", "category", "emo", "target"),
        *("emocion", "etiqueta", "clase", "emozione", "classe", "etichetta", "klasse"),
    ),
    "speaker": (
        *("speakerid", "speakername", "spk", "spkid", "spkr", "subject", "subjectid", "actor"),
        *("actorid", "participant", "participantid", "talker", "talkerid", "hablante", "locutor"),
        *("sprecher", "sprecherin", "parlante", "attore"),
    ),
    "gender": ("sex", "genero", "sexo", "geschlecht", "genere", "sesso"),
    "sentence": (
        *("sentenceid", "text", "textid", "transcript", "transcription", "utterance", "statement"),
        *("phrase", "prompt", "frase", "texto", "satz", "testo"),
    ),
    "style": ("speakingstyle", "speechstyle", "estilo", "stil", "stile"),
    "start": ("starttime", "startsec", "startseconds", "starts", "begin", "onset", "inicio"),
    "end": ("endtime", "endsec", "endseconds", "ends", "stop", "stoptime", "fin", "ende", "fine"),
    "fold": tables.FOLDS,
}
# Names like these mean something of which nothing may be ignored.
UNCLEAR = re.compile(r"(start|begin|onset|end|stop|offset)|.*(split|fold(?!er)|partition)|channel$")
GENDERS = {
    **dict.fromkeys(("", "u", "unknown", "na", "other", "divers", "diverse"), "unknown"),
    **dict.fromkeys(
        (
            *("f", "w", "female", "woman", "women", "girl", "feminine", "femenino", "femenina"),
            *("mujer", "weiblich", "frau", "femminile", "femmina", "donna"),
        ),
        "female",
    ),
    **dict.fromkeys(
        (
            *("m", "male", "man", "men", "boy", "masculine", "masculino", "hombre", "mannlich"),
            *("maennlich", "mann", "maschile", "maschio", "uomo"),
        ),
        "male",
    ),
}


class Row(NamedTuple):
    """A row of the table; `where` describes its place, the others are as in `Recording`."""

    where: str
    path: Path
    name: str
    label: str
    speaker: str
    gender: str
    sentence: str
    style: str
    start: float
    end: float
    fold: str


class Builder(CorpusBuilder):
    """Prepares the recordings that `manifest.csv` lists; the path is the utterance's name.

    A part of a recording has its start and end in its name.
    """

    layout = f"recordings listed in {MANIFEST}"
    source = "List at least one, with its path, label and speaker."
    own_labels = True
    audio_terms = "your own recordings, so see that their speakers and owners agree"

    @staticmethod
    def recordings(folder: Path) -> Iterator[Recording]:
        table, found = _read(folder)
        rows = list(_rows(folder, table, found))
        _check_files(folder, rows)
        for field in ("speaker", "fold", "sentence"):
            _check_alike(field, rows)
        _check_overlap(folder, rows)
        if others := _others(table, found):
            logging.warning("%s: columns of %s without a use: %s", folder.name, MANIFEST, others)
        seen = {}
        for row in rows:
            place = row.path, row.start, row.end
            if place in seen:
                raise ValueError(
                    f"{row.where}, path: {row.name} is listed in {seen[place]} already"
                )
            seen[place] = row.where.rsplit(", ")[-1]
            fields = row._asdict()
            del fields["where"], fields["fold"]
            yield Recording(**fields)

    @classmethod
    def folds(cls, folder: Path) -> dict[str, str]:
        table, found = _read(folder)
        return {row.name: row.fold for row in _rows(folder, table, found) if row.fold}


def _read(folder: Path) -> tuple[tables.Table, dict[str, int]]:
    """Reads the table, and finds the column of each field."""
    table = tables.read(folder / MANIFEST)
    found = tables.find_columns(table, FIELDS, REQUIRED)
    where = f"{table.path}, line 1"
    for index, column in enumerate(table.columns):
        if index not in found.values() and UNCLEAR.match(tables.plain(column)):
            raise ValueError(
                f"{where}: the column {column!r} is not understood, and may matter: start and end "
                "(in seconds) cut an utterance out of a file, and fold, or split, gives the "
                "folds; change it into these, or take it out"
            )
    for one, other in (("start", "end"), ("end", "start")):
        if one in found and other not in found:
            raise ValueError(f"{where}: there is a column {one!r}, and none {other!r}: add it")
    return table, found


def _rows(folder: Path, table: tables.Table, found: dict[str, int]) -> Iterator[Row]:
    for line, cells in table.rows:
        where = f"{table.path}, line {line}"
        row = {field: cells[found[field]] if field in found else "" for field in FIELDS}
        for field in (*REQUIRED, "fold") if "fold" in found else REQUIRED:
            if not row[field]:
                raise ValueError(f"{where}, {field}: the field is empty")
        gender = GENDERS.get(tables.plain(row["gender"]))
        if gender is None:
            known = ", ".join(name for name in GENDERS if name)
            raise ValueError(f"{where}, gender: {row['gender']!r} is none of {known}")
        if "\\" in row["path"] and not os.path.lexists(folder / row["path"]):
            row["path"] = row["path"].replace("\\", "/")  # as Windows writes it
        name, start, end = Path(row["path"]).as_posix(), 0.0, math.inf
        if row["start"] or row["end"]:
            start, end = (_seconds(where, field, row[field]) for field in ("start", "end"))
            if start >= end:
                raise ValueError(f"{where}, end: {row['end']} must be later than the start")
            name += f"_{start:.10g}-{end:.10g}"
        fold = row["fold"]
        if re.fullmatch(r"\d+\.0+", fold):  # as spreadsheets write whole numbers
            fold = fold.partition(".")[0]
        yield Row(
            where,
            folder / row["path"],
            name,
            row["label"],
            row["speaker"],
            gender,
            row["sentence"],
            row["style"] or "normal",
            start,
            end,
            fold,
        )


def _seconds(where: str, field: str, text: str) -> float:
    """Reads a time, whose decimals may follow a comma."""
    try:
        seconds = float(text.replace(",", "."))
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{where}, {field}: {text!r} must be a number of seconds, 0 or more")
    return seconds


def _check_files(folder: Path, rows: list[Row]) -> None:
    """Checks that all files are there; an unusable one is skipped later."""
    missing = [row for row in rows if not os.path.lexists(row.path)]
    if not missing:
        return
    shown = [f"{row.where.rsplit(', ')[-1]}, {row.path}" for row in missing[1 : 2 * SHOWN]]
    message = f"{missing[0].where}, path: there is no file {missing[0].path}"
    if shown:
        more = (
            f", and {len(missing) - 1 - len(shown)} more" if len(missing) > 1 + len(shown) else ""
        )
        message += f"; nor are there {len(missing) - 1} others: {'; '.join(shown)}{more}"
    # Prepared data can do without all recordings, but not without some.
    raise (FileNotFoundError if len(missing) == len(rows) else ValueError)(printable(message))


def _check_alike(field: str, rows: Iterable[Row]) -> None:
    """Checks that no two names of speakers or folds may be the same one, spelt in two ways.

    A speaker of two names would be heard in both training and test. Of sentences it only warns,
    since they may be told apart by punctuation.
    """
    first = {}
    for row in rows:
        name = getattr(row, field)
        other, where = first.setdefault(_essence(name), (name, row.where))
        if other == name:
            continue
        where = where.rsplit(", line ")[-1]
        message = f"{row.where}, {field}: {name!r} and {other!r} in line {where} may be the same"
        if field == "sentence":
            logging.warning("%s: write them alike if they are", message)
            return
        if field == "speaker":
            message += ", and would then be in both training and test"
        raise ValueError(f"{message}: write them alike, or more differently")


def _essence(name: str) -> tuple[str, ...]:
    """Returns what is left of a name without case, accents, punctuation and leading zeros."""
    text = without_accents(re.sub(r"^(\d+)\.0+$", r"\1", name)).casefold()
    # Marks are letters' parts in most scripts: without them names would be alike that are not.
    text = "".join(sign if unicodedata.category(sign)[0] in "LMN" else " " for sign in text)
    parts = [part.lstrip("0") or "0" for part in re.findall(r"\d+|[^\d\s]+", text)]
    return tuple(parts) or (name,)


def _check_overlap(folder: Path, rows: list[Row]) -> None:
    """Warns of parts of a recording that overlap, whose sound may be in both training and test."""
    places = sorted((row.path, row.start, row.end, row.where) for row in rows)
    lines = []
    for before, after in itertools.pairwise(places):
        if before[0] == after[0] and after[1] < before[2] and before[1:3] != after[1:3]:
            lines.append(f"{before[3].rsplit(' ')[-1]} and {after[3].rsplit(' ')[-1]}")
    if lines:
        more = ", ..." if len(lines) > SHOWN else ""
        logging.warning(
            "%s: parts of one recording overlap, and may be in both training and test: lines %s%s",
            *(folder.name, ", ".join(lines[:SHOWN]), more),
        )


def _others(table: tables.Table, found: dict[str, int]) -> str:
    """Lists the columns that are no field's; those without names if they hold anything."""
    return ", ".join(
        printable(column) or "one without a name"
        for index, column in enumerate(table.columns)
        if index not in found.values() and (column or any(cells[index] for _, cells in table.rows))
    )
