"""A prepared corpus in memory."""

import csv
import dataclasses
import io
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import psutil

from ds_jax.data import labels
from ds_jax.data.labels import LABELS
from ds_jax.data.names import normalise
from ds_jax.features import audio, extract
from ds_jax.runtime import progress

# The two kinds of inputs; a record has a field of either name.
PICTURE, FEATURES = "picture", "features"
# The fields of a record that an utterance has as they are.
TEXTS = ("speaker", "gender", "sentence", "style", "digest", "file", "fold")
HOST_SHARE = 0.25  # of the machine's memory, which pictures may take


@dataclasses.dataclass(frozen=True)
class Utterance:
    """One recording of a corpus.

    Attributes:
        name: Unique in its corpus: the file's stem, or its path below the corpus' folder.
        label: The class of the run that its label stands for.
        speaker: The corpus' name of the speaker; empty if unknown.
        gender: "female", "male", "child" or "unknown".
        sentence: The corpus' name of the spoken text; empty where the corpus has none.
        style: "normal", or a style that the corpus marks (ELRA: loud, soft, slow, fast).
        seconds: Duration of the recording.
        digest: SHA-256 of the recording's samples, in hexadecimal digits; empty if unknown.
        file: The file that it is, or is a part of, below the corpus' folder; empty if unknown.
        start, end: The part of the file, in seconds; infinity is the file's end.
        fold: The fold in which it is tested, or its split, if the corpus says so; else empty.
    """

    name: str
    label: str
    speaker: str
    gender: str
    sentence: str
    style: str
    seconds: float
    digest: str = ""
    file: str = ""
    start: float = 0.0
    end: float = math.inf
    fold: str = ""


class Auxiliary(NamedTuple):
    """Recordings of another corpus, which train the models too and are in no split of a fold.

    Attributes:
        name, title, licence: As those of `Corpus`.
        share: What the recordings weigh together, times what the training split weighs.
        utterances: The recordings.
    """

    name: str
    title: str
    licence: str
    share: float
    utterances: tuple[Utterance, ...]


class StoredPictures:
    """Pictures on the disk, which are read when rows of them are indexed as in a NumPy array.

    Args:
        read: Returns the picture at a position; several threads call it.
        positions: int [n], the position of each picture.
        shape: The shape of a picture.
    """

    dtype = np.dtype(np.uint8)

    def __init__(
        self, read: Callable[[int], np.ndarray], positions: np.ndarray, shape: tuple[int, int]
    ):
        self._read, self._positions = read, positions
        self.shape = (len(positions), *shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: int | slice | np.ndarray) -> np.ndarray:
        """Reads one row, uint8 [height, widest], or several, [..., height, widest]."""
        positions = self._positions[rows]
        pictures = np.zeros((*positions.shape, *self.shape[1:]), np.uint8)
        for index in np.ndindex(positions.shape):
            picture = self._read(int(positions[index]))
            pictures[index][:, : picture.shape[1]] = picture
        return pictures


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A corpus, ordered by the names of its utterances and, within an utterance, by time.

    Attributes:
        name: The corpus' name in the config, for example `emodb`.
        utterances: One for each recording.
        inputs: What systems read, one row a window: pictures, in memory or stored, uint8
            [n, height, widest], indices into a colour map of 256 entries, and 0 after the end of a
            timeline; features, float32 [n, d]; or sequences of features, float32 [n, frames, d],
            NaN after their ends.
        owners: int32 [n], the index in `all_utterances` of each row of `inputs`.
        extra: How many rows at the end of `inputs` only training reads: of variants of the
            recordings, of auxiliary recordings, or generated for a fold.
        blocks: The numbers of features of several kinds that stand side by side in `inputs`, see
            `systems.joined`; empty where there is one kind.
        auxiliary: Recordings of other corpora that train the models too.
        skipped: The rows of skipped.csv: the name of each utterance whose recording could not be
            used, its file and the reason.
        directory: The folder of the prepared corpus, where results computed from `inputs` may be
            kept.
        recordings: The recording of each utterance, by its name, if reports are to play it.
        audio_terms: The terms on which a report that plays recordings may be passed on.
        title: The corpus' published name, such as "EmoDB"; empty if it has none.
        licence: The terms of the recordings; empty if unknown.
        classes: The classes of the run that reads the corpus.
        left_out: The names of the utterances whose labels stand for none of them, and the labels.
        computed: What frozen blocks make of the inputs, on the devices, as long as the corpus is in
            memory; by what it depends on.
    """

    name: str
    utterances: tuple[Utterance, ...]
    inputs: np.ndarray | StoredPictures
    owners: np.ndarray
    skipped: Sequence[Sequence[str]] = ()
    directory: Path | None = None
    recordings: Mapping[str, audio.Source] = dataclasses.field(default_factory=dict)
    audio_terms: str = ""
    title: str = ""
    licence: str = ""
    classes: tuple[str, ...] = LABELS
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)
    extra: int = 0
    auxiliary: tuple[Auxiliary, ...] = ()
    blocks: tuple[int, ...] = ()
    computed: dict[str, Any] = dataclasses.field(default_factory=dict, init=False, repr=False)

    @property
    def all_utterances(self) -> tuple[Utterance, ...]:
        """The corpus' own utterances, and then the auxiliary ones."""
        return self.utterances + tuple(u for group in self.auxiliary for u in group.utterances)

    @property
    def labels(self) -> np.ndarray:
        """The index in `classes` of each row's label, int32 [n]."""
        labels = [self.classes.index(utterance.label) for utterance in self.all_utterances]
        return np.asarray(labels, np.int32)[self.owners]

    @property
    def gives_folds(self) -> bool:
        """Whether the corpus says in which fold, or of which split, its utterances are."""
        return any(utterance.fold for utterance in self.utterances)

    @property
    def absent(self) -> dict[str, str]:
        """Why the run does without an utterance of the corpus, by the utterance's name."""
        return dict.fromkeys((name for name, *_ in self.skipped), "unusable") | self.left_out

    @property
    def digests(self) -> dict[str, str]:
        """The digest of each recording, by its utterance's name."""
        return {utterance.name: utterance.digest for utterance in self.utterances}

    @property
    def recorded_owners(self) -> np.ndarray:
        """The owners of the rows that are of recordings themselves, in ascending order."""
        return self.owners[: len(self.owners) - self.extra]

    def rows_of(self, names: Iterable[str]) -> np.ndarray:
        """Returns the rows of the named utterances' recordings themselves, int32, in order."""
        wanted = set(names)
        mask = np.asarray([utterance.name in wanted for utterance in self.utterances], bool)
        return np.flatnonzero(mask[self.recorded_owners]).astype(np.int32)

    def training_rows(self, names: Iterable[str]) -> np.ndarray:
        """Returns the rows that train a model on the named utterances, int32, in order.

        They are the rows of the utterances and of their variants, and those of auxiliary recordings
        of the same classes.
        """
        wanted = set(names)
        labels = {utterance.label for utterance in self.utterances if utterance.name in wanted}
        mask = [utterance.name in wanted for utterance in self.utterances]
        mask += [u.label in labels for group in self.auxiliary for u in group.utterances]
        return np.flatnonzero(np.asarray(mask, bool)[self.owners]).astype(np.int32)

    def weights(self, rows: np.ndarray) -> np.ndarray | None:
        """Returns what each of some training rows weighs, float64 [n]; None if all weigh alike.

        Rows of the corpus itself weigh 1, and those of `auxiliary` recordings their share together.
        """
        if not self.auxiliary:
            return None
        owners, first = self.owners[rows], len(self.utterances)
        weights, own = np.ones(len(rows)), np.count_nonzero(owners < first)
        for group in self.auxiliary:
            of_group = (owners >= first) & (owners < first + len(group.utterances))
            weights[of_group] = group.share * own / max(1, np.count_nonzero(of_group))
            first += len(group.utterances)
        return weights


def load(
    builder,
    name: str,
    classes: Sequence[str] = LABELS,
    label_map: Sequence[str] = (),
    trains: bool = True,
    describes: bool = False,
    forms: int = 1,
) -> Corpus:
    """Reads a prepared corpus into memory; pictures that are too many for it stay on the disk.

    Args:
        builder: A prepared `datasets.base.CorpusBuilder`.
        name: The name of the corpus in reports.
        classes: The classes of the run.
        label_map: The class of other labels, see `labels.classes_of_labels`.
        trains: Whether the run is trained on this corpus, each label of which must then stand for
            a class or be left out by `label_map`, if the labels are the user's own. Labels of a
            published corpus, or of one that is only tested, are left out.
        describes: Whether the corpus is only described: the user's own labels that stand for no
            class are then classes of their own.
        forms: How many forms of the corpus, this one among them, share the memory.

    Raises:
        FileNotFoundError: Reports are to play recordings, which are missing.
        ValueError: The prepared data holds no utterance of the classes, or other labels.
    """
    import tensorflow_datasets as tfds  # slow to import, and only needed here

    features = builder.info.features
    pictures = PICTURE in features
    undecoded = {PICTURE: tfds.decode.SkipDecoding()} if pictures else {}
    source = builder.as_data_source(split="full", decoders=undecoded)
    if not len(source):
        raise ValueError(f"{builder.data_path} holds no utterance: delete it and prepare again")
    most = HOST_SHARE * psutil.virtual_memory().total / forms
    shape, stored = (0, 0), False  # of the largest picture so far, and whether all are too large
    known, left_out = labels.classes_of_labels(classes, label_map), {}
    found, others = {}, {}  # the label of each utterance, and labels that are made classes
    entries = {} if trains else labels.entries(label_map)
    mapped = Counter()  # what the map, which was made for another corpus, says of this one
    records, inputs = [], []  # utterance, window and position of each record
    positions = range(len(source))
    for position in progress.bar(f"reading {name}", len(source), "records", positions):
        example = source[position]
        texts = {field: example[field].decode() for field in TEXTS}
        texts["name"], label = example["utterance"].decode(), example["label"].decode()
        if describes and builder.own_labels and normalise(label) not in known:
            known[normalise(label)] = others[normalise(label)] = label
        window, label_class = int(example["window"]), known.get(normalise(label))
        found[texts["name"]] = label
        if window == 0 and normalise(label) in entries:
            mapped[f"{label}={label_class}"] += 1
        if not label_class:
            left_out[texts["name"]] = label
            continue
        numbers = {field: float(example[field]) for field in ("seconds", "start", "end")}
        utterance = Utterance(label=label_class, **texts, **numbers)
        records.append((utterance, window, position))
        if pictures:
            image = _open(example[PICTURE])
            shape = max(shape[0], image.height), max(shape[1], image.width)
            stored = len(source) * math.prod(shape) > most
        if stored:
            inputs.clear()
        else:
            inputs.append(np.asarray(image) if pictures else example[FEATURES])
    classes = (*classes, *sorted(others.values()))
    labels.check_found(name, found.values(), classes, label_map, trains and builder.own_labels)
    if others:
        present = {known[normalise(label)] for label in found.values()}
        given = labels.classes_flag([label for label in classes if label in present])
        progress.say(
            f"{name}: described as classes of their own, since they stand for none of the run: "
            f"{', '.join(sorted(others.values()))}. A run needs {given}"
        )
    if left_out:
        counts = progress.counts(Counter(left_out.values()))
        progress.say(f"{name}: left out, since they stand for no class of the run: {counts}")
    if mapped:
        counts = progress.counts(mapped)
        progress.say(f"{name}: config.label_map holds for this corpus too: {counts}")
    present = {utterance.label for utterance, _, _ in records}
    if missing := [label for label in classes if label not in present]:
        progress.say(f"{name}: no utterance of {', '.join(missing)}")
    records = [(*record, number) for number, record in enumerate(records)]
    records.sort(key=lambda record: (record[0].name, record[1]))
    positions = np.asarray([position for _, _, position, _ in records])
    utterances = tuple(utterance for utterance, window, _, _ in records if window == 0)
    owners = np.cumsum([window == 0 for _, window, _, _ in records], dtype=np.int32) - 1
    if stored:
        picture = tfds.features.FeaturesDict({PICTURE: features[PICTURE]})

        def read(position: int) -> np.ndarray:
            # The rest of an example would take longer to decode than its picture.
            record = source.data_source[position]
            example = picture.deserialize_example_np(record, decoders=undecoded)
            return np.asarray(_open(example[PICTURE]))

        inputs = StoredPictures(read, positions, shape)
    else:
        inputs = extract.stack([inputs[number] for _, _, _, number in records])
    directory = Path(builder.data_path)
    with open(directory / "skipped.csv", newline="", encoding="utf-8") as file:
        skipped = list(csv.reader(file))[1:]
    known = {"title": builder.title} | builder.terms(builder.builder_config.folder)
    known |= {"classes": tuple(classes), "left_out": left_out}
    recordings = builder.playable()
    return Corpus(name, utterances, inputs, owners, skipped, directory, recordings, **known)


def _open(png: bytes) -> PIL.Image.Image:
    """Opens a grey PNG; as an array it is uint8 [height, width]."""
    return PIL.Image.open(io.BytesIO(png))


def keep_last(load: Callable[[Mapping, str], Corpus]) -> Callable[[Mapping, str], Corpus]:
    """Keeps the corpus that was loaded last, since the next experiment often wants the same inputs.

    Args:
        load: Returns the corpus of a name with the inputs that a config describes.
    """
    kept = {}

    def load_or_take(config: Mapping, name: str) -> Corpus:
        read = ("features", "embeddings", "picture", "trim", "channel", "raw_rate")
        values = [config.get(field) for field in (*read, "classes", "label_map")]
        # What trains the models too belongs to the corpus alone that they are trained on.
        if name == config.corpus:
            more = {field: config.get(field) for field in ("variants", "auxiliary")}
            values += [(field, given) for field, given in more.items() if given]
        key = name, str(values)
        if key not in kept:
            kept.clear()
            kept[key] = load(config, name)
        return kept[key]

    return load_or_take
