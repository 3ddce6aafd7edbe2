"""Reads tables as people have them: of any usual separator, with columns of many names."""

import codecs
import csv
import difflib
import functools
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ds_jax.data.names import plain
from ds_jax.runtime import progress
from ds_jax.runtime.files import printable
from ds_jax.runtime.progress import few

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
NEAR = 0.82  # the likeness of two words above which one is taken for the other, misspelt

# The names of a column of files, besides "path", without case, accents, spaces and punctuation.
NAMES = (
    *("file", "filename", "filepath", "wav", "wavfile", "wavpath", "wavname", "audio"),
    *("audiofile", "audiopath", "audiofilename", "recording", "clip", "archivo", "fichero"),
    *("ruta", "datei", "dateiname", "dateipfad", "pfad", "aufnahme", "percorso", "nomefile"),
)
# Those of a column of speakers, besides "speaker".
SPEAKERS = (
    *("speakerid", "speakername", "spk", "spkid", "spkr", "subject", "subjectid", "actor"),
    *("actorid", "participant", "participantid", "talker", "talkerid", "person", "personid"),
    *("hablante", "locutor", "locutora", "sujeto", "participante", "sprecher", "sprecherin"),
    *("sprecherid", "proband", "probandin", "teilnehmer", "teilnehmerin", "parlante"),
    *("locutore", "soggetto", "partecipante", "attore", "attrice"),
)
# Those of a column that says yes for the rows of the test split, and no for those of train.
IS_TEST = ("istest", "test")
# Those of a column that says of which fold or split a row is, besides "fold".
FOLDS = (
    *("folds", "foldid", "foldnr", "foldno", "foldnumber", "cvfold", "kfold", "testfold", "cv"),
    *("split", "splits", "set", "subset", "partition", "phase", *IS_TEST),
    *("particion", "conjunto", "subconjunto", "teilmenge", "aufteilung", "partizione"),
)
YES = ("1", "true", "yes", "y", "t", "x", "test", "ja", "j", "wahr", "si", "s", "verdadero", "vero")
NO = ("0", "false", "no", "n", "f", "train", "nein", "falsch", "falso")


class Table(NamedTuple):
    """A table of text.

    Attributes:
        path: The file.
        separator: What separates its columns.
        columns: The names of its columns as they are written, without surrounding spaces.
        rows: The number of each row's line, and its cells without surrounding spaces, one for each
            column; rows of empty cells are left out.
    """

    path: Path
    separator: str
    columns: list[str]
    rows: list[tuple[int, list[str]]]

    def describe(self) -> str:
        """Returns a phrase that says how the table was understood."""
        if not self.columns:
            return "the table is empty"
        if len(self.columns) == 1:
            *known, last = SEPARATORS.values()
            return (
                f"the table has the one column {self.columns[0]!r}, which no {', '.join(known)} or "
                f"{last} separate into several"
            )
        return (
            f"the table is separated by {SEPARATORS[self.separator]} and has the columns "
            f"{', '.join(self.columns)}"
        )


def read(path: Path) -> Table:
    """Reads a table, whose separator is found from its header.

    Raises:
        ValueError: The file is no table, or is not UTF-8 (or UTF-16 with a byte order mark).
    """
    content = path.read_bytes()
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:  # as in UTF-16 without a mark, UTF-32 and the files of spreadsheets
        raise ValueError(f"{path} is not UTF-8 text: save it as such, from Excel as CSV UTF-8")
    separator, first = _separator(path, text)
    reader = _reader(text, separator)
    columns, rows = [], []
    try:
        for record in reader:
            cells = [cell.strip() for cell in record]
            if reader.line_num < first or not any(cells):
                continue
            if not columns:
                columns = cells
                continue
            if any(cells[len(columns) :]) and len(columns) == 1:
                raise ValueError(
                    f"{path}, line {reader.line_num} has several columns, but the first line names "
                    f"one, {columns[0]!r}: begin with the names of all columns"
                )
            if any(cells[len(columns) :]):
                raise ValueError(
                    f"{path}, line {reader.line_num}: more fields than columns; quote those with "
                    f"{SEPARATORS[separator]}"
                )
            cells = cells[: len(columns)] + [""] * (len(columns) - len(cells))
            rows.append((reader.line_num, cells))
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}") from error
    while columns and not columns[-1] and not any(cells[-1] for _, cells in rows):
        columns.pop()  # a spreadsheet's empty columns
        rows = [(line, cells[:-1]) for line, cells in rows]
    return Table(path, separator, columns, rows)


def read_fold(column: str, cell: str) -> str:
    """Returns the fold or the split that a cell of a column names.

    In a column such as "is_test" yes is the split "test", and no is "train".
    """
    if plain(column) not in IS_TEST or plain(cell) not in (*YES, *NO):
        return cell
    return "test" if plain(cell) in YES else "train"


def say_columns(table: Table, found: Mapping[str, int]) -> None:
    """Says which columns have other names than the fields that they are, once for each table."""
    columns = {field: table.columns[index] for field, index in found.items()}
    others = [f"{field} = {name}" for field, name in columns.items() if plain(name) != field]
    if others:
        _say_once(printable(f"{table.path}: {', '.join(others)}"))


@functools.cache
def _say_once(line: str) -> None:
    progress.say(line)


def find_columns(
    table: Table, fields: Mapping[str, Sequence[str]], required: Sequence[str]
) -> dict[str, int]:
    """Finds which column of a table is which field.

    Args:
        table: The table.
        fields: Other names of each field, as `names.plain` returns them. A column that has the name
            of the field itself goes before the others.
        required: The fields that must be there.

    Returns:
        The column of each field that the table has.

    Raises:
        ValueError: A field has no column, or may have several; or a column may be a field that is
            misspelt.
    """
    names = [plain(column) for column in table.columns]
    where, found = f"{table.path}, line 1", {}
    for field, others in fields.items():
        fits = [index for index, name in enumerate(names) if name == field]
        fits = fits or [index for index, name in enumerate(names) if name in others]
        if len(fits) > 1:
            several = " and ".join(repr(table.columns[index]) for index in fits)
            raise ValueError(
                f"{where}: the columns {several} may each be the {field}: call the right one "
                f"{field!r}, and give the others other names"
            )
        if fits:
            found[field] = fits[0]
            continue
        if near := _misspelt((field, *others), names, fields):
            column = table.columns[names.index(near)]
            raise ValueError(
                f"{where}: the column {column!r} may be the {field}: call it {field!r}, or take it "
                "out"
            )
        if field in required:
            raise ValueError(
                f"{where}: there is no column {field!r} (or {few(others)}): {table.describe()}"
            )
    return found


def _misspelt(
    wanted: Sequence[str], names: Sequence[str], fields: Mapping[str, Sequence[str]]
) -> str:
    """Returns a column's name that is no field's, and is almost one that is wanted; or ""."""
    known = {*fields}.union(*fields.values())
    others = [name for name in names if name not in known and len(name) > 3]
    for name in filter(lambda name: len(name) > 4, wanted):
        for near in difflib.get_close_matches(name, others, n=1, cutoff=NEAR):
            return near
    return ""


def _separator(path: Path, text: str) -> tuple[str, int]:
    """Finds the separator of a table, and the line of its header."""
    if declared := re.match(r"sep=([,;|\t])\r?\n", text):  # spreadsheets write and read this line
        return declared[1], 2
    counts = {}
    for separator in SEPARATORS:
        try:
            records = (record for record in _reader(text, separator) if any(map(str.strip, record)))
            counts[separator] = len(next(records, []))
        except csv.Error:  # quotes that end in the middle of a field
            counts[separator] = 0
    most = max(counts.values())
    best = [separator for separator, count in counts.items() if count == most]
    if len(best) > 1 and most > 1:
        raise ValueError(
            f"{path}, line 1: the columns may be separated by "
            f"{' or by '.join(SEPARATORS[separator] for separator in best)}: use one of them alone"
        )
    return best[0], 1


def _reader(text: str, separator: str):
    lines = io.StringIO(text, newline="")
    return csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)
