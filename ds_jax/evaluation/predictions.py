"""predictions.csv: the one thing that evaluation reads, whatever system wrote it."""

import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ds_jax.data.corpus import LABELS, Utterance
from ds_jax.runtime import files
from ds_jax.runtime.files import write_bytes

COLUMNS = ("utterance", "speaker", "sentence", "style", "label", "prediction", *LABELS)
# Room for the rounding of others' files and for float16; ours sum to one far better.
_SUM_TOLERANCE = 1e-2


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
    """What a system said of n utterances, a row each.

    Attributes:
        utterances: str [n], names.
        speakers: str [n].
        sentences: str [n], empty where unknown.
        styles: str [n].
        labels: int64 [n], indices in `LABELS` of what they are.
        probabilities: float64 [n, 7] in the order of `LABELS`.
    """

    utterances: np.ndarray
    speakers: np.ndarray
    sentences: np.ndarray
    styles: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray

    @property
    def predictions(self) -> np.ndarray:
        """int64 [n]: indices in `LABELS` of the most probable label, the first of equals."""
        return self.probabilities.argmax(axis=1)

    def keep(self, rows: np.ndarray) -> "Predictions":
        """The given rows, as indices or as a mask."""
        return Predictions(
            **{field.name: getattr(self, field.name)[rows] for field in dataclasses.fields(self)}
        )


class Predicted(NamedTuple):
    """What a system says of n inputs or utterances.

    Attributes:
        probabilities: float64 [n, 7].
        head_probabilities: For each attention head, float64 [n, 7].
        gates: For each attention head, float32 [n, height, width] in 0..1.
    """

    probabilities: np.ndarray
    head_probabilities: dict[str, np.ndarray]
    gates: dict[str, np.ndarray]


def from_utterances(utterances: Sequence[Utterance], probabilities: np.ndarray) -> Predictions:
    """Puts what is known of n utterances beside their probabilities, float [n, 7]."""
    columns = [(u.name, u.speaker, u.sentence, u.style) for u in utterances]
    return Predictions(
        *(np.asarray(column, str) for column in zip(*columns, strict=True)),
        labels=np.asarray([LABELS.index(utterance.label) for utterance in utterances], np.int64),
        probabilities=np.asarray(probabilities, np.float64),
    )


def concatenate(parts: Sequence[Predictions]) -> Predictions:
    """Pools predictions of several folds; an utterance tested in several keeps all its rows."""
    names = [field.name for field in dataclasses.fields(Predictions)]
    return Predictions(
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    )


def write(path: str | Path, utterances: Sequence[Utterance], probabilities: np.ndarray) -> None:
    """Writes what `encode` gives."""
    write_bytes(path, encode(path, utterances, probabilities))


def encode(path: str | Path, utterances: Sequence[Utterance], probabilities: np.ndarray) -> bytes:
    """The content of predictions.csv, ordered by utterance; `read` gives the same numbers.

    Args:
        path: The file that it is for.
        utterances: n utterances of one fold, each once.
        probabilities: Float [n, 7], rows in the order of `utterances`.

    Returns:
        The file's content; it holds the numbers bit for bit.

    Raises:
        ValueError: The numbers are not one distribution over `LABELS` for each utterance.
    """
    probabilities = np.asarray(probabilities, np.float64)
    if probabilities.shape != (len(utterances), len(LABELS)):
        raise ValueError(
            f"{path}: probabilities are {probabilities.shape} "
            f"and must be {(len(utterances), len(LABELS))}"
        )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    seen = set()
    for row in sorted(range(len(utterances)), key=lambda row: utterances[row].name):
        utterance, distribution = utterances[row], probabilities[row]
        try:
            _check(utterance.name, seen, distribution)
        except ValueError as error:
            raise ValueError(f"{path}, {utterance.name}: {error}") from error
        known = (utterance.name, utterance.speaker, utterance.sentence, utterance.style)
        prediction = LABELS[distribution.argmax()]
        writer.writerow([*known, utterance.label, prediction, *map(repr, distribution.tolist())])
    return text.getvalue().encode()


def read(path: str | Path) -> Predictions:
    """Reads predictions.csv, keeping its order.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not as `write` writes it; the message names the line. Or it is
            not as it was written, going by the checksums beside it.
    """
    rows, seen, line = [], set(), 1
    content = files.check_content(Path(path), Path(path).read_bytes())
    try:
        # "utf-8-sig", since spreadsheets put a byte order mark in front.
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        if tuple(next(reader, [])) != COLUMNS:
            raise ValueError(f"the header must be {','.join(COLUMNS)}")
        for cells in reader:
            line = reader.line_num
            rows.append(_row(cells, seen))
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path}, line {line}: {error}") from error
    columns = list(zip(*rows, strict=True)) or [()] * 6
    return Predictions(
        *(np.asarray(column, str) for column in columns[:4]),
        labels=np.asarray(columns[4], np.int64),
        probabilities=np.asarray(columns[5], np.float64).reshape(-1, len(LABELS)),
    )


def _row(cells: list[str], seen: set[str]) -> tuple:
    """One line as (utterance, speaker, sentence, style, index of the label, probabilities)."""
    if len(cells) != len(COLUMNS):
        raise ValueError(f"there are {len(cells)} columns instead of {len(COLUMNS)}")
    label, prediction = cells[4:6]
    for value in (label, prediction):
        if value not in LABELS:
            raise ValueError(f"{value!r} is not one of {', '.join(LABELS)}")
    distribution = np.asarray([float(cell) for cell in cells[6:]])
    _check(cells[0], seen, distribution)
    if prediction != LABELS[distribution.argmax()]:
        raise ValueError(
            f"the prediction is {prediction}, but {LABELS[distribution.argmax()]} is most probable"
        )
    return *cells[:4], LABELS.index(label), distribution


def _check(name: str, seen: set[str], distribution: np.ndarray) -> None:
    """Raises unless the utterance is new and its probabilities are; remembers its name."""
    if name in seen:
        raise ValueError(f"utterance {name!r} occurs twice")
    seen.add(name)
    # Written so that a NaN fails too.
    if not (distribution.min() >= 0 and abs(distribution.sum() - 1) <= _SUM_TOLERANCE):
        raise ValueError(f"{distribution.tolist()} are not probabilities that sum to 1")
