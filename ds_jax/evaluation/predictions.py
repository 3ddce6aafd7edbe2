"""predictions.csv: the only file that evaluation reads, whichever system wrote it."""

import csv
import dataclasses
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.special

from ds_jax.data.corpus import Corpus, Utterance
from ds_jax.data.labels import COLUMNS
from ds_jax.evaluation import metrics
from ds_jax.runtime import files
from ds_jax.runtime.progress import many
from ds_jax.runtime.workdir import GATES, GENERATED, METRICS, PREDICTIONS

HEAD_PREFIX = "predictions_"  # begins the name of the file of an attention head
# The tolerance allows for rounding in the files of other programs and for float16.
_SUM_TOLERANCE = 1e-2


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
    """The rows of predictions.csv: what a system predicts for n utterances.

    Attributes:
        utterances: str [n], the names of the utterances.
        speakers: str [n].
        sentences: str [n], empty where unknown.
        styles: str [n].
        labels: int64 [n], the indices in `classes` of the true labels.
        probabilities: float64 [n, k] in the order of `classes`.
        classes: The k classes of the run.
    """

    utterances: np.ndarray
    speakers: np.ndarray
    sentences: np.ndarray
    styles: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    classes: tuple[str, ...]

    @property
    def predictions(self) -> np.ndarray:
        """int64 [n]: the index in `classes` of the most probable class, the first of equals."""
        return self.probabilities.argmax(axis=1)

    @property
    def confusion(self) -> np.ndarray:
        """int64 [k, k], see `metrics`."""
        return metrics.confusion(self.labels, self.predictions, len(self.classes))

    @property
    def columns(self) -> tuple[np.ndarray, ...]:
        """All arrays, in the order in which they stand above."""
        return tuple(getattr(self, field.name) for field in dataclasses.fields(self)[:-1])

    def keep(self, rows: np.ndarray) -> "Predictions":
        """Returns the given rows; they are indices or a mask."""
        return Predictions(*(column[rows] for column in self.columns), self.classes)


class Predicted(NamedTuple):
    """The outputs of a model for n inputs or n utterances.

    Attributes:
        probabilities: float64 [n, k], of the k classes of the run.
        head_probabilities: By the name of the attention head, float64 [n, k].
        gates: By the name of the attention head, float32 [n, height, width] in 0..1, and NaN after
            the end of a timeline.
    """

    probabilities: np.ndarray
    head_probabilities: dict[str, np.ndarray]
    gates: dict[str, np.ndarray]


def probabilities_of(logits: np.ndarray, head_logits: dict, gates: dict) -> Predicted:
    """Turns a network's outputs, float [rows, classes] each, into probabilities."""

    def softmax(x):
        return scipy.special.softmax(x.astype(np.float64), axis=-1)

    return Predicted(softmax(logits), {k: softmax(x) for k, x in head_logits.items()}, gates)


def average_windows(predicted: Predicted, corpus: Corpus, rows: np.ndarray) -> Predicted:
    """Averages the predictions for the windows of each utterance.

    Args:
        predicted: The predictions for the pictures `rows`.
        corpus: The corpus that the pictures belong to.
        rows: int [n], ascending.

    Returns:
        A prediction for each utterance that has a picture among `rows`, in the corpus' order.
    """
    starts = np.unique(corpus.owners[rows], return_index=True)[1]
    counts = np.diff([*starts, len(rows)])

    def mean(x):
        total = np.add.reduceat(x, starts, axis=0)
        return total / counts.reshape(-1, *(1,) * (x.ndim - 1)).astype(x.dtype)

    return _map(mean, predicted)


def mean(predictions: Sequence[Predicted]) -> Predicted:
    """Averages the predictions of several models for the same inputs."""
    return _map(lambda *parts: np.mean(parts, axis=0), *predictions)


def _map(function: Callable, *predicted: Predicted) -> Predicted:
    """Applies a function to the arrays of the same name."""
    heads, gates = predicted[0].head_probabilities, predicted[0].gates
    return Predicted(
        function(*(each.probabilities for each in predicted)),
        {name: function(*(each.head_probabilities[name] for each in predicted)) for name in heads},
        {name: function(*(each.gates[name] for each in predicted)) for name in gates},
    )


def concatenate(parts: Sequence[Predictions]) -> Predictions:
    """Pools the predictions of several folds; an utterance tested in several keeps all its rows.

    Raises:
        ValueError: The folds have different classes.
    """
    if len({part.classes for part in parts}) > 1:
        raise ValueError("the folds have different classes: bring back their files")
    columns = zip(*(part.columns for part in parts), strict=True)
    return Predictions(*map(np.concatenate, columns), parts[0].classes)


def write(
    directory: Path, utterances: Sequence[Utterance], predicted: Predicted, classes: Sequence[str]
) -> None:
    """Writes predictions.csv and, for attention heads, their files of the same form and the gates.

    checksums.json is written before predictions.csv, and predictions.csv last: where it exists, all
    other files of the folder exist too.

    Args:
        directory: The folder of a fold or of an evaluation.
        utterances: The n utterances that were tested, each once.
        predicted: The outputs for them, in the same order.
        classes: The classes of the run.

    Raises:
        ValueError: The outputs are not a distribution over the classes for each utterance.
    """
    files.make_folder(directory)
    heads = {f"{HEAD_PREFIX}{head}.csv": p for head, p in predicted.head_probabilities.items()}
    tables = heads | {PREDICTIONS: predicted.probabilities}
    contents = {
        name: _encode(directory / name, utterances, p, classes) for name, p in tables.items()
    }
    if predicted.gates:
        names = np.asarray([utterance.name for utterance in utterances])
        gates = {head: gate.astype(np.float16) for head, gate in predicted.gates.items()}
        packed = io.BytesIO()
        np.savez_compressed(packed, utterances=names, **gates)
        contents[GATES] = packed.getvalue()
    digests = {name: files.sha256(content) for name, content in contents.items()}
    for name in (METRICS, GENERATED):
        if (directory / name).is_file():  # training has written it
            digests[name] = files.sha256(directory / name)
    last = contents.pop(PREDICTIONS)
    for name, content in contents.items():
        files.write_bytes(directory / name, content)
    files.write_checksums(directory, digests)
    files.write_bytes(directory / PREDICTIONS, last)


def read(path: str | Path) -> Predictions:
    """Reads predictions.csv, or the file of an attention head, and keeps the order of its rows.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file has another form than `write` gives it (the message names the line), or
            it does not agree with the checksums in its folder.
    """
    rows, seen, line = [], set(), 1
    content = files.check_content(Path(path), Path(path).read_bytes())
    try:
        # "utf-8-sig", since spreadsheets put a byte order mark in front.
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        header = tuple(next(reader, ()))
        classes = header[len(COLUMNS) :]
        if header[: len(COLUMNS)] != COLUMNS or len({*classes}) < max(2, len(classes)):
            raise ValueError(f"the header must be {','.join(COLUMNS)}, and two or more classes")
        for cells in reader:
            line = reader.line_num
            rows.append(_row(cells, seen, classes))
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path}, line {line}: {error}") from error
    columns = list(zip(*rows, strict=True)) or [()] * 6
    return Predictions(
        *(np.asarray(column, str) for column in columns[:4]),
        labels=np.asarray(columns[4], np.int64),
        probabilities=np.asarray(columns[5], np.float64).reshape(-1, len(classes)),
        classes=classes,
    )


def read_pooled(directories: Sequence[Path], name: str = PREDICTIONS) -> Predictions:
    """Reads the file of this name in some folders that `write` has filled, and pools the rows."""
    return concatenate([read(directory / name) for directory in directories])


def read_heads(directories: Sequence[Path]) -> dict[str, Predictions]:
    """Reads the predictions of each attention head alone, pooled over some folders."""
    names = sorted(path.name for path in directories[0].glob(f"{HEAD_PREFIX}*.csv"))
    return {
        name.removeprefix(HEAD_PREFIX).removesuffix(".csv"): read_pooled(directories, name)
        for name in names
    }


def read_gates(directory: Path, utterance: str) -> dict[str, np.ndarray]:
    """Reads the gates of an utterance by the name of the layer; none of a system without gates.

    Raises:
        ValueError: The file is damaged.
    """
    path = directory / GATES
    if not path.is_file():
        return {}
    content = files.check_content(path, path.read_bytes())
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            position = int(np.flatnonzero(stored["utterances"] == utterance)[0])
            heads = [head for head in stored.files if head != "utterances"]
            return {head: unpadded(stored[head][position].astype(np.float32)) for head in heads}
    except Exception as error:  # NumPy raises errors of many kinds for a damaged file
        raise ValueError(
            f"{path} is damaged ({error}): delete {directory / PREDICTIONS} and run the fold again"
        ) from error


def unpadded(gate: np.ndarray) -> np.ndarray:
    """Returns a gate, float [height, width], without the columns after the end of a timeline."""
    return gate[:, ~np.isnan(gate[0])]


def read_metrics(directory: Path) -> list[dict]:
    """Reads the rows of a fold's metrics.jsonl.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged.
    """
    path = directory / METRICS
    content = files.check_content(path, path.read_bytes())
    return [json.loads(line) for line in content.decode().splitlines()]


def _encode(
    path: Path, utterances: Sequence[Utterance], probabilities: np.ndarray, classes: Sequence[str]
) -> bytes:
    """Returns the content of predictions.csv, ordered by utterance; `read` gives equal numbers."""
    probabilities = np.asarray(probabilities, np.float64)
    if probabilities.shape != (len(utterances), len(classes)):
        raise ValueError(
            f"{path}: probabilities are {probabilities.shape} "
            f"and must be {(len(utterances), len(classes))}"
        )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*COLUMNS, *classes))
    seen = set()
    for row in sorted(range(len(utterances)), key=lambda row: utterances[row].name):
        utterance, distribution = utterances[row], probabilities[row]
        try:
            _check(utterance.name, seen, distribution)
        except ValueError as error:
            raise ValueError(f"{path}, {utterance.name}: {error}") from error
        first = (utterance.name, utterance.speaker, utterance.sentence, utterance.style)
        prediction = classes[distribution.argmax()]
        writer.writerow([*first, utterance.label, prediction, *map(repr, distribution.tolist())])
    return text.getvalue().encode()


def _row(cells: list[str], seen: set[str], classes: tuple[str, ...]) -> tuple:
    """Returns utterance, speaker, sentence, style, index of the label and probabilities."""
    if len(cells) != len(COLUMNS + classes):
        wanted = len(COLUMNS + classes)
        raise ValueError(f"it has {many(len(cells), 'column')} instead of {wanted}")
    label, prediction = cells[4:6]
    for value in (label, prediction):
        if value not in classes:
            raise ValueError(f"{value!r} is not one of {', '.join(classes)}")
    distribution = np.asarray([float(cell) for cell in cells[6:]])
    _check(cells[0], seen, distribution)
    if prediction != classes[distribution.argmax()]:
        raise ValueError(
            f"the prediction is {prediction}, but {classes[distribution.argmax()]} is most probable"
        )
    return *cells[:4], classes.index(label), distribution


def _check(name: str, seen: set[str], distribution: np.ndarray) -> None:
    """Raises unless the utterance is new and its probabilities are; remembers its name."""
    if name in seen:
        raise ValueError(f"utterance {name!r} occurs twice")
    seen.add(name)
    # This form of the comparison refuses a NaN too.
    if not (distribution.min() >= 0 and abs(distribution.sum() - 1) <= _SUM_TOLERANCE):
        raise ValueError(f"{distribution.tolist()} are not probabilities that sum to 1")
