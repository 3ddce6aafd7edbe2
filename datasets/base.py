"""What all corpora share: from recordings named as published to TFDS records.

A corpus' own builder only says which file is which utterance. Here the files are found and, drawn
or their features computed by `workers`, written as array_record without TensorFlow.
"""

import csv
import dataclasses
import filecmp
import functools
import itertools
import os
import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from array_record.python.array_record_module import ArrayRecordWriter

from datasets import synthetic, workers
from ds_jax.data.corpus import FEATURES, LABELS, PICTURE
from ds_jax.features import representation
from ds_jax.features.spectrogram import PictureSettings
from ds_jax.runtime import progress
from ds_jax.runtime.files import files_below, path_text, printable

WAV_OR_FLAC = (".wav", ".flac")  # of two files with one name, the suffix listed first is taken
SHARD = 256  # recordings in one file of records
SHOWN = 5  # file names shown in a warning


@dataclasses.dataclass(frozen=True)
class Recording:
    """One file of a corpus and what its name or folder says of it.

    Attributes:
        path: Where the file is.
        name: The utterance's name, unique in the corpus.
        label: One of `ds_jax.data.corpus.LABELS`.
        speaker: The corpus' own name of the speaker.
        gender: "female", "male" or "unknown".
        sentence: The corpus' own name of the text spoken; empty if unknown.
        style: "normal" unless the corpus tells styles apart.
    """

    path: Path
    name: str
    label: str
    speaker: str
    gender: str = "unknown"
    sentence: str = ""
    style: str = "normal"


@dataclasses.dataclass(eq=False)
class CorpusConfig(tfds.core.BuilderConfig):
    """Which raw recordings become which records; its name is the prepared version's folder.

    Attributes:
        folder: The raw recordings, in the layout in which the corpus is published.
        settings: How they are drawn, or which features are computed.
        audio: Whether reports are to play recordings; it changes no record.
    """

    folder: Path = Path()
    settings: representation.Settings = dataclasses.field(default_factory=PictureSettings)
    audio: bool = False


class RecordWriter(tfds.core.ExampleWriter):
    """Writes array_record as TFDS does, but compressed at zstd's first level.

    Of pictures, TFDS' third level makes no smaller files, and takes half as long again.
    """

    def write(self, path, examples: Iterable[tuple]) -> None:
        writer = ArrayRecordWriter(os.fspath(path), "group_size:1,zstd:1")
        for _, example in examples:
            writer.write(example)
        try:
            writer.close()
        except RuntimeError as error:  # what array_record makes of a full disk
            reason = str(error).partition(";")[0]
            raise OSError(
                f"{path} cannot be written ({reason}): make room, and start again"
            ) from error


class CorpusBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):
    """Prepares a corpus; subclasses say what its files are called.

    Records come shard by shard, in the order of utterance names, because TFDS' shuffling builder
    needs TensorFlow for anything above 1 GB.
    """

    VERSION = tfds.core.Version("1.1.0")
    layout: str  # what is looked for, told to a user whose folder is not so
    source: str  # how to get the corpus
    suffixes: tuple[str, ...] = WAV_OR_FLAC
    totals: tuple[int, ...] = ()  # published numbers of utterances; others are warned about
    audio_terms: str = (
        ""  # of recordings in a report, see ds_jax.data.licences; empty: they may not be
    )

    @staticmethod
    @abstractmethod
    def recordings(folder: Path) -> Iterable[Recording]:
        """Says which file below the folder is which utterance, in any order.

        Raises:
            ValueError: A file contradicts the corpus' layout in a way that needs the user.
        """

    @classmethod
    def find(cls, folder: Path) -> list[Recording]:
        """Finds the corpus' recordings, one an utterance, in the order of their names.

        Raises:
            FileNotFoundError: The folder is missing, empty or of another layout.
            ValueError: Two different files claim to be the same utterance.
        """
        found = _one_each(cls.recordings(folder), cls.suffixes) if folder.is_dir() else []
        found = [dataclasses.replace(one, name=path_text(one.name)) for one in found]
        if not found:
            raise FileNotFoundError(
                f"{folder.name}: looked for {cls.layout} in {folder.absolute()}, "
                f"{_sight(folder)}. {cls.source}"
            )
        if cls.totals and len(found) not in cls.totals:
            published = " or ".join(map(str, cls.totals))
            logging.warning(
                "%s: %d utterances found where %s are published", folder.name, len(found), published
            )
        return found

    @classmethod
    def terms(cls, folder: Path) -> str:
        """The terms on which a report may be passed on that plays recordings of the folder.

        Raises:
            ValueError: The corpus' licence does not let its recordings be passed on.
        """
        if synthetic.is_synthetic(folder):
            return "synthetic speech, free of any terms"
        if not cls.audio_terms:
            raise ValueError(
                f"--audio puts recordings into report.html, and the known terms of {folder.name} "
                "do not let them be passed on: leave --audio out"
            )
        return cls.audio_terms

    def audible(self) -> tuple[dict[str, Path], str]:
        """The recording of each utterance and the terms; nothing unless reports play them.

        Raises:
            FileNotFoundError: The recordings are missing.
            ValueError: The corpus' licence does not let them be passed on.
        """
        folder = self.builder_config.folder
        if not self.builder_config.audio:
            return {}, ""
        terms = self.terms(folder)
        return {recording.name: recording.path for recording in self.find(folder)}, terms

    def _info(self) -> tfds.core.DatasetInfo:
        settings, text = self.builder_config.settings, tfds.features.Text()
        if isinstance(settings, PictureSettings):
            shape = (settings.canvas, settings.canvas, 1)
            read = {PICTURE: tfds.features.Image(shape=shape, encoding_format="png")}
        else:
            read = {FEATURES: tfds.features.Tensor(shape=settings.shape, dtype=np.float32)}
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "utterance": text,
                    "label": tfds.features.ClassLabel(names=LABELS),
                    "speaker": text,
                    "gender": text,
                    "sentence": text,
                    "style": text,
                    "seconds": np.float32,
                    "digest": text,  # of the samples, by which equal recordings are known
                    "window": np.int32,
                    **read,
                }
            )
        )

    def _shard_iterators_per_split(self, dl_manager):
        folder = self.builder_config.folder
        recordings = self.find(folder)
        self.skipped = []
        self.found = len(recordings)
        paths = [recording.path for recording in recordings]
        represented = workers.represent_all(paths, self.builder_config.settings)
        title = f"preparing {folder.name}"
        outcomes = progress.bar(title, self.found, "recordings", represented)
        results = zip(recordings, outcomes, strict=True)
        # TFDS writes one shard after the other; the last takes all the rest.
        counts = [SHARD] * ((self.found - 1) // SHARD) + [None]
        return {"full": [functools.partial(self._examples, results, count) for count in counts]}

    def _examples(self, results: Iterator, count: int | None) -> Iterator[tuple[str, dict]]:
        """Yields the examples of one shard: of so many of the results, or of all that are left."""
        folder = self.builder_config.folder
        for recording, outcome in itertools.islice(results, count):
            if isinstance(outcome, str):
                file = os.path.relpath(recording.path, folder)
                self.skipped.append((recording.name, path_text(file), path_text(outcome)))
                continue
            seconds, windows, digest = outcome
            known = vars(recording) | {"seconds": seconds, "digest": digest}
            known["utterance"] = known.pop("name")
            del known["path"]
            for window, read in enumerate(windows):
                kind = PICTURE if isinstance(read, bytes) else FEATURES
                example = known | {"window": window, kind: read}
                yield f"{recording.name}/{window}", example
        if len(self.skipped) == self.found:
            raise ValueError(
                f"{folder.name}: none of the {self.found} recordings in {folder} can be used; "
                f"the first, {self.skipped[0][1]}, {self.skipped[0][2]}"
            )
        # TFDS' temporary folder: it gets its final name when all records are written.
        with open(self.data_path / "skipped.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("utterance", "file", "reason"), *self.skipped])

    def _example_writer(self) -> RecordWriter:
        return RecordWriter(self.info.file_format)

    def _create_builder_config(self, builder_config, version):
        """Takes the configuration as it is; TFDS would warn that it is not a predefined one."""
        return builder_config

    def _log_download_bytes(self) -> None:
        """Says nothing: there is no download."""

    def _log_download_done(self) -> None:
        report = f"{self.builder_config.folder.name}: {self.found - len(self.skipped)} utterances"
        if self.skipped:
            report += f", {len(self.skipped)} skipped (see {self.data_path / 'skipped.csv'})"
        print(report)


def audio_files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """All below a folder with one of the suffixes, in any case; hidden files are left out.

    What is no folder is taken, though it may be no file: it is then told why it cannot be used.
    """
    found, errors = files_below(folder)
    for error in errors:
        logging.warning("%s cannot be read: %s", error.filename, error.strerror)
    return [path for path in found if path.name.lower().endswith(suffixes)]


def named(folder: Path, name: str, suffixes: tuple[str, ...] = WAV_OR_FLAC) -> Iterator[tuple]:
    """Finds the audio files whose stems match a regular expression, ignoring case.

    Yields:
        The path and the match. Audio files of other names are passed over with a warning.
    """
    pattern, strays = re.compile(name, re.IGNORECASE), []
    for path in audio_files(folder, suffixes):
        if match := pattern.fullmatch(path.stem):
            yield path, match
        else:
            strays.append(path)
    warn_of(folder, strays, "not named as published and passed over")


def warn_of(folder: Path, paths: list[Path], what: str) -> None:
    """Warns of files, if there are any, by number and the first few names."""
    if paths:
        names = [printable(path_text(os.path.relpath(path, folder))) for path in paths[:SHOWN]]
        more = ", ..." if len(paths) > SHOWN else ""
        names = ", ".join(names) + more
        logging.warning("%s: %d audio files %s: %s", folder.name, len(paths), what, names)


def _one_each(recordings: Iterable[Recording], suffixes: tuple[str, ...]) -> list[Recording]:
    """Keeps one recording of each name: that of the published format, or of two equal files one."""

    def preference(recording: Recording) -> tuple:
        path, suffix = recording.path, recording.path.suffix.lower()
        rank = suffixes.index(suffix) if suffix in suffixes else len(suffixes)
        return rank, len(path.parts), path

    kept = {}
    for recording in sorted(recordings, key=preference):
        first = kept.setdefault(recording.name.lower(), recording)
        if first is recording or first.path.suffix.lower() != recording.path.suffix.lower():
            continue
        if not _equal(first.path, recording.path):
            raise ValueError(
                f"{first.path} and {recording.path} differ but are both named as utterance "
                f"{first.name}: remove one of them"
            )
    return sorted(kept.values(), key=lambda recording: recording.name)


def _equal(first: Path, second: Path) -> bool:
    files = first.is_file() and second.is_file()
    return files and filecmp.cmp(first, second, shallow=False)


def _sight(folder: Path) -> str:
    """What is to be seen where a corpus was expected."""
    if not folder.is_dir():
        return "but there is no such folder"
    files, _ = files_below(folder)
    if not files:
        return "but that folder is empty"
    first = path_text(files[0].relative_to(folder))
    return f"but of the {len(files)} files there (such as {first}) none is named so"
