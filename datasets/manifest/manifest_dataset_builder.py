"""A corpus that a CSV file describes."""

import csv
import os
from collections.abc import Iterator
from pathlib import Path

from datasets.base import CorpusBuilder, Recording

REQUIRED = ("path", "label", "speaker")
GENDERS = ("female", "male", "unknown")


class Builder(CorpusBuilder):
    """Prepares the recordings that `manifest.csv` lists; the path is the utterance's name."""

    layout = "recordings listed in manifest.csv"
    source = "List at least one, with its path, label and speaker."
    own_labels = True
    audio_terms = "your own recordings, so see that their speakers and owners agree"

    @staticmethod
    def recordings(folder: Path) -> Iterator[Recording]:
        seen = {}
        for where, row in _rows(folder / "manifest.csv"):
            gender = row.get("gender", "").lower() or "unknown"
            path = folder / row["path"]
            if gender not in GENDERS:
                raise ValueError(
                    f"{where}, gender: {row['gender']!r} is none of {', '.join(GENDERS)}"
                )
            if not os.path.lexists(path):  # an unusable file is skipped
                raise ValueError(f"{where}, path: there is no file {path}")
            if path in seen:
                raise ValueError(f"{where}, path: {row['path']} is listed in {seen[path]} already")
            seen[path] = where.rsplit(", ")[-1]
            name = Path(row["path"]).as_posix()
            sentence, style = row.get("sentence", ""), row.get("style", "") or "normal"
            yield Recording(path, name, row["label"], row["speaker"], gender, sentence, style)


def _rows(manifest: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields each row, stripped, after a description of its place."""
    with manifest.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, restval="")
        try:
            columns = reader.fieldnames or []
            for column in REQUIRED:
                if column not in columns:
                    raise ValueError(
                        f"{manifest}, line 1: there is no column {column!r} among "
                        f"{', '.join(columns) or 'none'}"
                    )
            for row in reader:
                where = f"{manifest}, line {reader.line_num}"
                if None in row:
                    raise ValueError(f"{where}: more fields than columns; quote those with commas")
                row = {column: value.strip() for column, value in row.items()}
                for column in REQUIRED:
                    if not row[column]:
                        raise ValueError(f"{where}, {column}: the field is empty")
                yield where, row
        except UnicodeDecodeError as error:
            raise ValueError(f"{manifest} is not UTF-8 text: save it as such") from error
