"""Features of one's own recordings by layers of VGG16, in the tables that DeepSpectrum writes."""

import collections
import csv
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import ml_collections
import numpy as np

from ds_jax.data import recordings
from ds_jax.data.recordings import Recording, Unusable, Window
from ds_jax.features import representation
from ds_jax.models.create import backbone_of
from ds_jax.runtime import files, processes
from ds_jax.runtime.files import path_text
from ds_jax.systems import deep_features
from ds_jax.training import parallel

FORMATS = (".csv", ".arff")
SHOWN = 5  # names shown in a message
FOLDERS, NONE = "folders", "none"  # the values of --labels that are no table


class Labels(NamedTuple):
    """What recordings are labelled.

    Attributes:
        columns: For each column of labels its name, and its values in alphabetical order, or None
            where all values are numbers.
        of: For each recording, by its name in the table, its values.
    """

    columns: tuple[tuple[str, tuple[str, ...] | None], ...]
    of: Mapping[str, Sequence[str]]


def run(
    config: ml_collections.ConfigDict,
    arguments: Sequence[str | Path],
    output: Path,
    labels: str = FOLDERS,
) -> None:
    """Writes a table with a row of features for each recording or window.

    The columns are DeepSpectrum's: `name` (the path below the folder that was given), `timeStamp`
    (the window's start in seconds; only with windows), `neuron_0` and so on, then the labels.

    Args:
        config: With `picture`, `model.layers` and `weights`, such as configs/deepspectrum.py.
        arguments: Files, folders and patterns, see `recordings.find`.
        output: A file ending in .csv or .arff; written whole or not at all.
        labels: "folders" (a recording's class is the name of its folder), "none", or a table: a
            .csv or .tsv file with a header, names in the first column and labels in the others.

    Raises:
        FileNotFoundError: There is no such table or file of weights.
        ValueError: A field or a label is impossible, no recording was given, or some cannot be
            used; the others are written first.
    """
    output = Path(output)
    if output.suffix.lower() not in FORMATS:
        raise ValueError(f"--output={output}: give a file ending in {' or '.join(FORMATS)}")
    if "picture" not in config or "layers" not in config.model:
        raise ValueError(
            "--mode=features needs a config with picture and model.layers: start from "
            "--config=configs/deepspectrum.py"
        )
    settings = representation.settings(config)
    deep_features.check(backbone_of(config), tuple(config.model.layers), settings.size)
    if not arguments:
        raise ValueError(
            "give recordings, folders or patterns: python launch.py --mode=features "
            "--config=configs/deepspectrum.py --output=features.csv FOLDER"
        )
    files.check_writable(output.parent, "--output")
    found, unusable = recordings.find(arguments)
    names = _names(found)
    known = _known(found, names, labels)
    names = {one: name for one, name in names.items() if labels == NONE or name in known.of}
    if names:
        extract = deep_features.create_features(config).create_extractor()
        windows = settings.window, settings.window_hop
        size = parallel.rows_together()
        rows = recordings.process(list(names), settings, *windows, size, extract, unusable)
        _write(output, rows, names, known, bool(settings.window), unusable)
        processes.say(f"features: {output}")
    if unusable:
        raise ValueError(recordings.complaint(unusable))


def _names(found: Sequence[Recording]) -> dict[Recording, str]:
    """Each recording's path below the folder that was given, as DeepSpectrum names it."""
    names = {one: path_text(one.path.relative_to(one.folder)) for one in found}
    if len(set(names.values())) < len(found):
        counts = collections.Counter([names[one] for one in found])
        twice = next(name for name, count in counts.items() if count > 1)
        raise ValueError(
            f"two recordings would be called {twice!r}: give the folder that holds both, once"
        )
    return names


def _known(found: Sequence[Recording], names: Mapping[Recording, str], labels: str) -> Labels:
    """Labels recordings by their folders or by a table; says for which the table has no row."""
    if labels == NONE:
        return Labels((), dict.fromkeys(names.values(), ()))
    if labels == FOLDERS:
        of = {names[one]: (path_text(one.path.absolute().parent.name),) for one in found}
        return Labels((("class", tuple(sorted({label for (label,) in of.values()}))),), of)
    known = _read_table(Path(labels))
    missing = [name for name in names.values() if name not in known.of]
    if names and len(missing) == len(names):
        raise ValueError(
            f"{labels} labels none of the {len(names)} recordings: it tells of "
            f"{next(iter(known.of), 'nothing')!r}, and they are called like {missing[0]!r}"
        )
    found_names = set(names.values())
    unknown = [name for name in known.of if name not in found_names]
    for what, left in (
        ("recordings without a label", missing),
        ("labels without a recording", unknown),
    ):
        if left:
            more = ", ..." if len(left) > SHOWN else ""
            processes.say(f"{len(left)} {what} in {labels}: {', '.join(left[:SHOWN])}{more}")
    return known


def _read_table(path: Path) -> Labels:
    """Reads a table of labels, separated by commas or, in a .tsv file, by tabs."""
    if not path.is_file():
        raise FileNotFoundError(f"--labels={path}: there is no such table; or give folders or none")
    of, line = {}, 1
    try:
        # "utf-8-sig", since spreadsheets put a byte order mark in front.
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
            header = next(reader, [])
            if len(header) < 2:
                raise ValueError("the header must name a column of names and one of labels")
            for cells in reader:
                line = reader.line_num
                if not cells:
                    continue
                if len(cells) != len(header):
                    raise ValueError(f"there are {len(cells)} columns instead of {len(header)}")
                name = os.path.normpath(cells[0])
                if of.setdefault(name, tuple(cells[1:])) != tuple(cells[1:]):
                    raise ValueError(f"{name!r} is labelled a second time, and otherwise")
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path}, line {line}: {error}") from error
    columns = []
    for index, name in enumerate(header[1:]):
        values = {cells[index] for cells in of.values()}
        columns.append((name, None if all(map(_is_number, values)) else tuple(sorted(values))))
    return Labels(tuple(columns), of)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _write(
    output: Path,
    rows: Iterable[tuple[Sequence[Window], Mapping[str, np.ndarray]]],
    names: Mapping[Recording, str],
    known: Labels,
    windowed: bool,
    unusable: Sequence[Unusable],
) -> None:
    """Writes rows as they come; without any there is no file."""
    arff = output.suffix.lower() == ".arff"
    quote, row_format = _quote_arff if arff else _quote_csv, ""
    with files.open_text(output) as file:
        for batch, features in rows:
            vectors = np.concatenate(list(features.values()), axis=1)
            if not row_format:
                # Nine digits bring a float32 back as it was.
                row_format = ",".join(["%.9g"] * vectors.shape[1])
                columns = [("name", tuple(names.values()))]
                columns += [("timeStamp", None)] * windowed
                columns += [(f"neuron_{index}", None) for index in range(vectors.shape[1])]
                columns += known.columns
                file.write(_arff_header(columns) if arff else _csv_header(columns))
            for window, vector in zip(batch, vectors.tolist(), strict=True):
                name = names[window.recording]
                cells = [quote(name), *[f"{window.start:.10g}"] * windowed]
                cells += [row_format % tuple(vector)]
                for (_, values), label in zip(known.columns, known.of[name], strict=True):
                    cells.append(label if values is None else quote(label))
                file.write(",".join(cells) + "\n")
        if not row_format:
            raise ValueError(recordings.complaint(unusable))


def _csv_header(columns: Sequence[tuple[str, Sequence[str] | None]]) -> str:
    return ",".join(_quote_csv(name) for name, _ in columns) + "\n"


def _arff_header(columns: Sequence[tuple[str, Sequence[str] | None]]) -> str:
    """Names are listed like classes: of free text, which DeepSpectrum has, SciPy reads nothing."""
    lines = ["@relation 'VGG16 features'", ""]
    for name, values in columns:
        kind = "numeric" if values is None else "{" + ",".join(map(_quote_arff, values)) + "}"
        name = name if name.isidentifier() else _quote_arff(name)
        lines.append(f"@attribute {name} {kind}")
    return "\n".join([*lines, "", "@data", ""])


def _quote_csv(text: str) -> str:
    if not any(character in text for character in ',"\r\n'):
        return text
    return '"' + text.replace('"', '""') + '"'


def _quote_arff(text: str) -> str:
    """In quotes always, since SciPy guesses from the first row whether there are any."""
    mark = '"' if "'" in text and '"' not in text else "'"
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return mark + escaped.replace(mark, f"\\{mark}") + mark
