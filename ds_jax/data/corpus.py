"""A prepared corpus in memory, and the seven labels."""

import csv
import dataclasses
import io
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import PIL.Image
import psutil

from ds_jax.features import representation
from ds_jax.runtime import progress

# The paper's seven emotions in alphabetical order; a label's index is its position here.
LABELS = ("ANGER", "DISGUST", "FEAR", "JOY", "NEUTRAL", "SADNESS", "SURPRISE")
# Of corpora, as their publishers write them; others are called as in the config.
TITLES = {
    "elra_s0329": "ELRA-S0329",
    "emodb": "EmoDB",
    "emomatch_spanish_db": "EmoMatchSpanishDB",
    "emovo": "EMOVO",
    "ravdess": "RAVDESS",
}
# A record holds one of these two.
PICTURE, FEATURES = "picture", "features"
HOST_SHARE = 0.25  # of the machine's memory, which pictures may take


@dataclasses.dataclass(frozen=True)
class Utterance:
    """What is known of one recording.

    Attributes:
        name: Unique in its corpus: the file's stem, or its path below the corpus' folder.
        label: One of `LABELS`.
        speaker: The corpus' own name of the speaker.
        gender: "female", "male" or "unknown".
        sentence: The corpus' own name of the text spoken; empty where the corpus has none.
        style: "normal" unless the corpus tells styles apart (ELRA: loud, soft, slow, fast).
        seconds: Duration of the recording.
        digest: SHA-256 of its samples, in hex: equal recordings have equal ones. Empty if unknown.
    """

    name: str
    label: str
    speaker: str
    gender: str
    sentence: str
    style: str
    seconds: float
    digest: str = ""


class StoredPictures:
    """Pictures that stay on the disk and are read when they are asked for, like a NumPy array.

    Args:
        read: Gives the PNG at a position of a prepared corpus; several threads call it.
        positions: int [n], where each picture is.
        shape: Of a picture.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, read: Callable[[int], bytes], positions: np.ndarray, shape: tuple[int, int]):
        self._read, self._positions = read, positions
        self.shape = (len(positions), *shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: int | slice | np.ndarray) -> np.ndarray:
        """Reads uint8 [canvas, canvas] of a row, or [..., canvas, canvas] of several."""
        positions = self._positions[rows]
        pictures = np.empty((*positions.shape, *self.shape[1:]), np.uint8)
        for index in np.ndindex(positions.shape):
            pictures[index] = _decode(self._read(int(positions[index])))
        return pictures


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A corpus, ordered by utterance name and, within one, by time.

    Attributes:
        name: The corpus' name, for example `emodb`.
        utterances: One for each recording.
        inputs: What systems read, a row each, see `representation`: pictures, in memory or
            stored, uint8 [n, canvas, canvas], indices into a 256-entry colour map; features,
            float32 [n, d]; or sequences of them, float32 [n, frames, d], NaN beyond their ends.
        owners: int32 [n], the row in `utterances` that each row of `inputs` comes from.
        skipped: How many recordings could not be used.
        directory: The prepared corpus, where what is computed from `inputs` may be kept.
        recordings: Where each utterance's recording is, by its name, if reports are to play it.
        audio_terms: On which a report that plays recordings may be passed on.
        title: The corpus' published name, such as "EmoDB"; empty if it has none.
        licence: The terms of the recordings; empty if unknown.
    """

    name: str
    utterances: tuple[Utterance, ...]
    inputs: np.ndarray | StoredPictures
    owners: np.ndarray
    skipped: int = 0
    directory: Path | None = None
    recordings: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    audio_terms: str = ""
    title: str = ""
    licence: str = ""

    @property
    def labels(self) -> np.ndarray:
        """int32 [n]: the index in `LABELS` of each row's label."""
        of_utterance = [LABELS.index(utterance.label) for utterance in self.utterances]
        return np.asarray(of_utterance, np.int32)[self.owners]

    @property
    def digests(self) -> dict[str, str]:
        """Of the recordings, by the names of their utterances."""
        return {utterance.name: utterance.digest for utterance in self.utterances}

    def rows_of(self, names: Iterable[str]) -> np.ndarray:
        """int32: rows of `inputs` that come from the named utterances, in order."""
        wanted = set(names)
        mask = np.asarray([utterance.name in wanted for utterance in self.utterances], bool)
        return np.flatnonzero(mask[self.owners]).astype(np.int32)


def load(builder, name: str) -> Corpus:
    """Reads a prepared TFDS builder: into memory, or pictures that are too many for it as stored.

    Args:
        builder: A prepared builder whose examples have the features of `datasets.base`.
        name: What the corpus is called in reports.

    Raises:
        FileNotFoundError: Reports are to play recordings, which are missing.
        ValueError: The prepared data holds no utterance.
    """
    import tensorflow_datasets as tfds  # slow to import, and only needed here

    features = builder.info.features
    pictures = PICTURE in features
    undecoded = {PICTURE: tfds.decode.SkipDecoding()} if pictures else {}
    source = builder.as_data_source(split="full", decoders=undecoded)
    if not len(source):
        raise ValueError(f"{builder.data_path} holds no utterance: delete it and prepare again")
    size = len(source) * math.prod(features[PICTURE].shape) if pictures else 0
    stored = size > HOST_SHARE * psutil.virtual_memory().total
    known, inputs = [], []
    positions = range(len(source))
    for position in progress.bar(f"reading {name}", len(source), "records", positions):
        example = source[position]
        utterance = Utterance(
            name=_text(example["utterance"]),
            label=LABELS[int(example["label"])],
            speaker=_text(example["speaker"]),
            gender=_text(example["gender"]),
            sentence=_text(example["sentence"]),
            style=_text(example["style"]),
            seconds=float(example["seconds"]),
            digest=_text(example["digest"]),
        )
        known.append((utterance.name, int(example["window"]), position, utterance))
        if not stored:
            inputs.append(_decode(example[PICTURE]) if pictures else example[FEATURES])
    known.sort(key=lambda one: one[:2])
    positions = np.asarray([position for _, _, position, _ in known])
    utterances = tuple(utterance for _, window, _, utterance in known if window == 0)
    owners = np.cumsum([window == 0 for _, window, _, _ in known], dtype=np.int32) - 1
    if stored:
        picture = tfds.features.FeaturesDict({PICTURE: features[PICTURE]})

        def read(position: int) -> bytes:
            # The rest of an example would take longer to decode than its picture.
            record = source.data_source[position]
            return picture.deserialize_example_np(record, decoders=undecoded)[PICTURE]

        inputs = StoredPictures(read, positions, features[PICTURE].shape[:2])
    else:
        inputs = representation.stack([inputs[position] for position in positions])
    with open(builder.data_path / "skipped.csv", newline="", encoding="utf-8") as file:
        skipped = sum(1 for _ in csv.reader(file)) - 1  # less the header
    directory, audible = Path(builder.data_path), builder.audible()
    return Corpus(name, utterances, inputs, owners, skipped, directory, *audible)


def _decode(png: bytes) -> np.ndarray:
    """uint8 [height, width] of a grey PNG."""
    return np.asarray(PIL.Image.open(io.BytesIO(png)))


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
