"""A prepared corpus in memory, and the seven labels."""

import csv
import dataclasses
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import PIL.Image

from ds_jax import representation

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
    """

    name: str
    label: str
    speaker: str
    gender: str
    sentence: str
    style: str
    seconds: float


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A corpus in memory, ordered by utterance name and, within one, by time.

    Attributes:
        name: The corpus' name, for example `emodb`.
        utterances: One for each recording.
        inputs: What systems read, a row each, see `representation`: pictures, uint8 [n, canvas,
            canvas], indices into a 256-entry colour map; features, float32 [n, d]; or sequences
            of them, float32 [n, frames, d], NaN beyond their ends.
        owners: int32 [n], the row in `utterances` that each row of `inputs` comes from.
        skipped: How many recordings could not be used.
        directory: The prepared corpus, where what is computed from `inputs` may be kept.
        recordings: Where each utterance's recording is, by its name, if reports are to play it.
        audio_terms: On which a report that plays recordings may be passed on.
    """

    name: str
    utterances: tuple[Utterance, ...]
    inputs: np.ndarray
    owners: np.ndarray
    skipped: int = 0
    directory: Path | None = None
    recordings: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    audio_terms: str = ""

    @property
    def labels(self) -> np.ndarray:
        """int32 [n]: the index in `LABELS` of each row's label."""
        of_utterance = [LABELS.index(utterance.label) for utterance in self.utterances]
        return np.asarray(of_utterance, np.int32)[self.owners]

    def rows_of(self, names: tuple[str, ...]) -> np.ndarray:
        """int32: rows of `inputs` that come from the named utterances, in order."""
        wanted = set(names)
        mask = np.asarray([utterance.name in wanted for utterance in self.utterances], bool)
        return np.flatnonzero(mask[self.owners]).astype(np.int32)


def load(builder, name: str) -> Corpus:
    """Reads a prepared TFDS builder into memory.

    Args:
        builder: A prepared builder whose examples have the features of `datasets.base`.
        name: What the corpus is called in reports.

    Raises:
        FileNotFoundError: Reports are to play recordings, which are missing.
        ValueError: The prepared data holds no utterance.
    """
    import tensorflow_datasets as tfds  # slow to import, and only needed here

    undecoded = {PICTURE: tfds.decode.SkipDecoding()} if PICTURE in builder.info.features else {}
    examples = sorted(
        builder.as_data_source(split="full", decoders=undecoded),
        key=lambda example: (_text(example["utterance"]), int(example["window"])),
    )
    if not examples:
        raise ValueError(f"{builder.data_path} holds no utterance: delete it and prepare again")
    utterances, owners = [], []
    for example in examples:
        if int(example["window"]) == 0:
            utterances.append(
                Utterance(
                    name=_text(example["utterance"]),
                    label=LABELS[int(example["label"])],
                    speaker=_text(example["speaker"]),
                    gender=_text(example["gender"]),
                    sentence=_text(example["sentence"]),
                    style=_text(example["style"]),
                    seconds=float(example["seconds"]),
                )
            )
        owners.append(len(utterances) - 1)
    inputs = representation.stack(
        [
            _decode(example[PICTURE]) if PICTURE in example else example[FEATURES]
            for example in examples
        ]
    )
    with open(builder.data_path / "skipped.csv", newline="", encoding="utf-8") as file:
        skipped = sum(1 for _ in csv.reader(file)) - 1  # less the header
    owners = np.asarray(owners, np.int32)
    directory, audible = Path(builder.data_path), builder.audible()
    return Corpus(name, tuple(utterances), inputs, owners, skipped, directory, *audible)


def _decode(png: bytes) -> np.ndarray:
    """uint8 [height, width] of a grey PNG."""
    return np.asarray(PIL.Image.open(io.BytesIO(png)))


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
