"""--mode=features: writes a network's features of recordings in the tables of DeepSpectrum."""

import collections
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from ds_jax.data import recordings, tables
from ds_jax.data.names import plain
from ds_jax.data.recordings import Recording, Unusable, Window
from ds_jax.features import extract
from ds_jax.models.backbones import backbone_of
from ds_jax.runtime import files, processes
from ds_jax.runtime.errors import number
from ds_jax.runtime.files import path_text
from ds_jax.runtime.progress import few, many
from ds_jax.systems import base as systems
from ds_jax.systems import deep_features

FORMATS = (".csv", ".arff")
FOLDERS, NONE = "folders", "none"  # the values of --labels that are no table
COLUMNS = (
    "a header, a column of the recordings' names below the folder (the first, unless another is "
    "called path, file or the like) and one or more of labels"
)

Column = tuple[str, Sequence[str] | None]  # a name, and all values or None if they are numbers


class Labels(NamedTuple):
    """The labels of recordings.

    Attributes:
        columns: The columns of labels, with their values in alphabetical order.
        cells: The labels of each recording, by its name in the table.
    """

    columns: Sequence[Column]
    cells: Mapping[str, Sequence[str]]


def run(
    config: ConfigDict, arguments: Sequence[str | Path], output: Path, labels: str = FOLDERS
) -> None:
    """Writes a table with a row of features for each recording or window.

    The columns are those of DeepSpectrum: `name` (the path below the given folder), `timeStamp`
    (the start of the window in seconds; only with windows), `neuron_0` and so on, then the labels.

    Args:
        config: A config with `picture`, `model.layers` and `weights`, see configs/deepspectrum.py.
        arguments: Files, folders and patterns, see `recordings.find`.
        output: A file ending in .csv or .arff, which is written completely or not at all.
        labels: "folders" (the class of a recording is the name of its folder), "none", or a table:
            a file with a header, a column of names (the first, unless another is called file or the
            like), and labels in the others, see `tables.read`.

    Raises:
        FileNotFoundError: The table of labels or the file of weights does not exist.
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
    systems.check(config)
    settings = extract.settings(config)
    if not arguments:
        raise ValueError(
            "give recordings, folders or patterns: python launch.py --mode=features "
            "--config=configs/deepspectrum.py --output=features.csv FOLDER"
        )
    files.check_writable(output.parent, "--output")
    found, unusable = recordings.find(arguments)
    names = _names(found)
    labelled = _label(names, labels)
    names = {recording: name for recording, name in names.items() if name in labelled.cells}
    if names:
        batches = deep_features.process(list(names), config, unusable)
        title = f"{backbone_of(config).title} features"
        _write(output, title, batches, names, labelled, bool(settings.window), unusable)
        processes.say(f"features: {output}")
    if unusable:
        raise ValueError(recordings.complaint(unusable))


def _names(found: Sequence[Recording]) -> dict[Recording, str]:
    """Returns each recording's path below the given folder, which DeepSpectrum takes as a name."""
    names = [path_text(each.path.relative_to(each.folder)) for each in found]
    if repeated := [name for name, count in collections.Counter(names).items() if count > 1]:
        raise ValueError(
            f"two recordings would be called {repeated[0]!r}: give the folder that holds both, once"
        )
    return dict(zip(found, names, strict=True))


def _label(names: Mapping[Recording, str], labels: str) -> Labels:
    """Labels recordings by their folders or by a table; prints which have no row in the table."""
    if labels == NONE:
        return Labels((), dict.fromkeys(names.values(), ()))
    if labels == FOLDERS:
        folders = {name: path_text(one.path.absolute().parent.name) for one, name in names.items()}
        column = "class", sorted(set(folders.values()))
        return Labels([column], {name: (folder,) for name, folder in folders.items()})
    table = _read_table(Path(labels))
    missing = [name for name in names.values() if name not in table.cells]
    if names and len(missing) == len(names):
        raise ValueError(
            f"{labels} labels none of {many(len(names), 'recording')}: its names are like "
            f"{next(iter(table.cells), 'nothing')!r}, and theirs are like {missing[0]!r}"
        )
    known = set(names.values())
    unknown = [name for name in table.cells if name not in known]
    for what, lacking, left in (("recording", "label", missing), ("label", "recording", unknown)):
        if left:
            count = many(len(left), what)
            processes.say(f"{count} without a {lacking} in {labels}: {few(left)}")
    return table


def _read_table(path: Path) -> Labels:
    """Reads a table of labels; names are in the first column, unless another is called so."""
    if not path.is_file():
        raise FileNotFoundError(
            f"--labels={path}: there is no such table: give one with {COLUMNS}, or folders or none"
        )
    table, rows = tables.read(path), {}
    named = [index for index, column in enumerate(table.columns) if column]
    if len(named) < 2:
        raise ValueError(f"{path}, line 1: --labels needs {COLUMNS}: {table.describe()}")
    known = ("path", *tables.NAMES)
    first = next((i for i in named if plain(table.columns[i]) in known), named[0])
    named.remove(first)
    for line, cells in table.rows:
        name, labels = os.path.normpath(cells[first]), [cells[index] for index in named]
        if not cells[first] or not all(labels):
            raise ValueError(f"{path}, line {line}: the name or a label is missing")
        if rows.setdefault(name, labels) != labels:
            raise ValueError(f"{path}, line {line}: {name!r} is labelled again, and otherwise")
    columns = []
    for index, column in enumerate(named):
        values = {labels[index] for labels in rows.values()}
        numbers = all(math.isfinite(number(value)) for value in values)
        columns.append((table.columns[column], None if numbers else sorted(values)))
    return Labels(columns, rows)


def _write(
    output: Path,
    title: str,
    batches: Iterable[tuple[Sequence[Window], np.ndarray]],
    names: Mapping[Recording, str],
    labels: Labels,
    windowed: bool,
    unusable: Sequence[Unusable],
) -> None:
    """Writes rows as they come; without any row there is no file."""
    arff = output.suffix.lower() == ".arff"
    quote, numbers = _quote_arff if arff else _quote_csv, ""
    with files.open_text(output) as file:
        for batch, vectors in batches:
            if not numbers:
                numbers = ",".join(["%.9g"] * vectors.shape[1])  # 9 digits restore a float32
                columns = [("name", tuple(names.values()))]
                columns += [("timeStamp", None)] * windowed
                columns += [(f"neuron_{index}", None) for index in range(vectors.shape[1])]
                columns += labels.columns
                header = ",".join(_quote_csv(name) for name, _ in columns) + "\n"
                file.write(_arff_header(title, columns) if arff else header)
            for window, vector in zip(batch, vectors.tolist(), strict=True):
                name = names[window.recording]
                cells = [quote(name), *[f"{window.start:.10g}"] * windowed, numbers % tuple(vector)]
                for (_, values), label in zip(labels.columns, labels.cells[name], strict=True):
                    cells.append(label if values is None else quote(label))
                file.write(",".join(cells) + "\n")
        if not numbers:
            raise ValueError(recordings.complaint(unusable))


def _arff_header(title: str, columns: Sequence[Column]) -> str:
    """Lists all names as nominal values, since SciPy reads no free text, which DeepSpectrum has."""
    lines = [f"@relation '{title}'", ""]
    for name, values in columns:
        kind = "numeric" if values is None else "{" + ",".join(map(_quote_arff, values)) + "}"
        name = name if name.isidentifier() else _quote_arff(name)
        lines.append(f"@attribute {name} {kind}")
    return "\n".join([*lines, "", "@data", ""])


# Both are quoted by hand: before Python 3.13 the csv module leaves a lone carriage return without
# quotes; SciPy writes no ARFF, and reads no "a,b.wav" that liac-arff (2.5, of 2020) has written.
def _quote_csv(text: str) -> str:
    if not any(character in text for character in ',"\r\n'):
        return text
    return '"' + text.replace('"', '""') + '"'


def _quote_arff(text: str) -> str:
    """Quotes every text, since SciPy guesses from the first row whether there are quotes."""
    mark = '"' if "'" in text and '"' not in text else "'"
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return mark + escaped.replace(mark, f"\\{mark}") + mark
