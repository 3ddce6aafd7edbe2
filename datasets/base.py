"""What all corpora share: the way from recordings named as published to TFDS records.

The builder of a corpus only says which file is which utterance. This module finds the files, has
`workers` draw them or compute their features, and writes array_record without TensorFlow.
"""

import csv
import dataclasses
import filecmp
import functools
import itertools
import json
import math
import os
import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter

from datasets import synthetic, workers
from ds_jax.data.corpus import FEATURES, PICTURE
from ds_jax.features.extract import Settings
from ds_jax.features.source import SUFFIXES, Source
from ds_jax.features.spectrogram import PictureSettings
from ds_jax.runtime import progress
from ds_jax.runtime.files import files_below, path_text, printable
from ds_jax.runtime.progress import few, many

WAV_OR_FLAC = (".wav", ".flac")  # of two files with one name, the earlier suffix is taken
SHARD = 256  # recordings in one file of records
RECORDINGS = "recordings.json"  # the size and the time of each file that was prepared
REMARKS = "remarks.json"  # the utterance and the detail of each remark, by their kind


@dataclasses.dataclass(frozen=True)
class Recording:
    """One file of a corpus, and what its name or folder says about it.

    Attributes:
        path: The file.
        label: The label as published, or as a table has it.
        name, speaker, gender, sentence, style, start, end, fold: As in `data.corpus.Utterance`.
    """

    path: Path
    name: str
    label: str
    speaker: str
    gender: str = "unknown"
    sentence: str = ""
    style: str = "normal"
    start: float = 0.0
    end: float = math.inf
    fold: str = ""


@dataclasses.dataclass(eq=False)
class CorpusConfig(tfds.core.BuilderConfig):
    """The raw recordings and how they become records; its name is a folder of prepared data.

    Attributes:
        folder: The raw recordings, in the layout in which the corpus is published.
        settings: How pictures are drawn, or which features are computed.
        found: The recordings that were found in the folder, see `CorpusBuilder.find`; empty if
            only prepared data is there.
        audio: Whether reports are to play recordings; records do not depend on it.
    """

    folder: Path = Path()
    settings: Settings = dataclasses.field(default_factory=PictureSettings)
    found: Sequence[Recording] = ()
    audio: bool = False

    def source(self, recording: Recording) -> Source:
        """Returns how a recording is read."""
        return self.settings.source(recording.path, recording.start, recording.end)


class RecordWriter(tfds.core.ExampleWriter):
    """Writes array_record as TFDS does, but with the first level of zstd.

    For pictures the third level, TFDS' default, takes half as long again and saves no space.
    """

    def write(self, path, examples: Iterable[tuple]) -> None:
        writer = ArrayRecordWriter(os.fspath(path), "group_size:1,zstd:1")
        for _, example in examples:
            writer.write(example)
        try:
            writer.close()
        except RuntimeError as error:  # raised by array_record when the disk is full
            reason = str(error).partition(";")[0]
            raise OSError(
                f"{path} cannot be written ({reason}): make room, and start again"
            ) from error


class CorpusBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):
    """Prepares a corpus; its subclasses know the names of the files.

    Records are written shard by shard in the order of the utterances' names, because TFDS'
    shuffling builder needs TensorFlow for more than 1 GB.

    Attributes:
        VERSION: The version of the records' format. The settings' keys hold the versions of
            pictures and features, so that new pictures leave prepared features valid.
        title: The published name of the corpus.
        licence: The terms of its recordings, a phrase that completes "EmoDB is ...".
        audio_terms: The terms on which a report that plays recordings may be passed on; empty if
            no known terms allow it.
        layout: The expected names of files, for the error about another layout.
        source: A sentence that says how to get the corpus.
        suffixes: The suffixes of its published files, the preferred one first; others are taken
            where these are missing.
        totals: The published numbers of utterances; another number is said.
        own_labels: Whether the labels are the user's own, so that an unknown one may be a mistake.
    """

    VERSION = tfds.core.Version("2.1.0")
    title: str = ""
    licence: str = ""
    audio_terms: str = ""
    layout: str
    source: str
    suffixes: tuple[str, ...] = WAV_OR_FLAC
    totals: tuple[int, ...] = ()
    own_labels: bool = False

    @staticmethod
    @abstractmethod
    def recordings(folder: Path) -> Iterable[Recording]:
        """Lists which file below the folder is which utterance, in any order.

        Raises:
            ValueError: A file contradicts the corpus' layout, and only the user can decide.
        """

    @classmethod
    def find(cls, folder: Path) -> list[Recording]:
        """Finds the corpus' recordings, one for each utterance, in the order of their names.

        Raises:
            FileNotFoundError: The folder is missing, empty or of another layout.
            ValueError: Two different files have the name of the same utterance.
        """
        found = _unique(cls.recordings(folder), cls.suffixes) if folder.is_dir() else []
        found = [dataclasses.replace(r, name=path_text(r.name)) for r in found]
        if not found:
            raise FileNotFoundError(
                f"{folder.name}: looked for {cls.layout} in {folder.absolute()}, "
                f"{_describe(folder)}. {cls.source}"
            )
        cls.check_total(folder, len(found))
        return found

    @classmethod
    def check_total(cls, folder: Path, count: int) -> None:
        """Says if a corpus has another number of utterances than is published."""
        if cls.totals and not synthetic.is_synthetic(folder) and count not in cls.totals:
            totals = " or ".join(map(str, cls.totals))
            found = many(count, "utterance")
            progress.say(f"{folder.name}: {found} found where {totals} are published")

    @classmethod
    def terms(cls, folder: Path) -> dict[str, str]:
        """Returns `licence` and `audio_terms` of the recordings in a folder."""
        if synthetic.is_synthetic(folder):
            return dict.fromkeys(("licence", "audio_terms"), "synthetic speech, free of any terms")
        return {"licence": cls.licence, "audio_terms": cls.audio_terms}

    @classmethod
    def check_audio(cls, folder: Path) -> None:
        """Checks that reports may play the recordings in a folder.

        Raises:
            ValueError: No known terms let the recordings be passed on.
        """
        if not cls.terms(folder)["audio_terms"]:
            raise ValueError(
                f"--audio puts recordings into a page, and the known terms of {folder.name} "
                "do not let them be passed on: leave --audio out"
            )

    def playable(self) -> dict[str, Source]:
        """Returns the recording of each utterance if reports are to play them, else none.

        Raises:
            FileNotFoundError: The recordings are missing.
        """
        config = self.builder_config
        if not config.audio:
            return {}
        found = config.found or self.find(config.folder)
        return {recording.name: config.source(recording) for recording in found}

    def _info(self) -> tfds.core.DatasetInfo:
        settings, text = self.builder_config.settings, tfds.features.Text()
        if isinstance(settings, PictureSettings):
            shape = (*settings.shape, 1)
            inputs = {PICTURE: tfds.features.Image(shape=shape, encoding_format="png")}
        else:
            inputs = {FEATURES: tfds.features.Tensor(shape=settings.shape, dtype=np.float32)}
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "utterance": text,
                    "label": text,
                    "speaker": text,
                    "gender": text,
                    "sentence": text,
                    "style": text,
                    "seconds": np.float32,
                    "digest": text,  # of the samples; equal recordings have equal digests
                    "file": text,  # whose parts that overlap share sound
                    "start": text,  # as the records' numbers have 32 bits
                    "end": text,
                    "fold": text,
                    "window": np.int32,
                    **inputs,
                }
            )
        )

    def _shard_iterators_per_split(self, dl_manager):
        config = self.builder_config
        recordings = config.found
        self.skipped, self.remarks = [], {}
        self.found = len(recordings)
        self.listed = list_files(config.folder, recordings)
        sources = [config.source(recording) for recording in recordings]
        represented = workers.represent_all(sources, config.settings)
        title = f"preparing {config.folder.name}"
        outcomes = progress.bar(title, self.found, "recordings", represented)
        results = zip(recordings, outcomes, strict=True)
        # TFDS writes one shard after the other; the last takes all remaining recordings.
        counts = [SHARD] * ((self.found - 1) // SHARD) + [None]
        return {"full": [functools.partial(self._examples, results, count) for count in counts]}

    def _examples(self, results: Iterator, count: int | None) -> Iterator[tuple[str, dict]]:
        """Yields the examples of a shard, from `count` results or from all remaining ones."""
        folder = self.builder_config.folder
        for recording, outcome in itertools.islice(results, count):
            if isinstance(outcome, str):
                file = os.path.relpath(recording.path, folder)
                self.skipped.append((recording.name, path_text(file), path_text(outcome)))
                continue
            seconds, windows, digest, remarks = outcome
            for remark in remarks:
                named = recording.name, remark.detail
                self.remarks.setdefault(remark.kind, []).append(named)
            fields = vars(recording) | {"seconds": seconds, "digest": digest}
            fields["utterance"] = fields.pop("name")
            fields |= {name: repr(fields[name]) for name in ("start", "end")}
            file = os.path.realpath(fields.pop("path"))
            fields["file"] = path_text(os.path.relpath(file, os.path.realpath(folder)))
            for window, array in enumerate(windows):
                kind = PICTURE if isinstance(array, bytes) else FEATURES
                yield f"{recording.name}/{window}", fields | {"window": window, kind: array}
        if len(self.skipped) == self.found:
            raise ValueError(
                f"{folder.name}: of {many(self.found, 'recording')} in {folder} none can be used; "
                f"the first, {self.skipped[0][1]}, {self.skipped[0][2]}"
            )
        # TFDS' temporary folder: it gets its final name when all records are written.
        with open(self.data_path / "skipped.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("utterance", "file", "reason"), *self.skipped])
        for name, content in ((RECORDINGS, self.listed), (REMARKS, self.remarks)):
            (self.data_path / name).write_text(json.dumps(content), encoding="utf-8")

    def _example_writer(self) -> RecordWriter:
        return RecordWriter(self.info.file_format)

    def _create_builder_config(self, builder_config, version):
        """Returns the configuration; TFDS would warn that it is not a predefined one."""
        return builder_config

    def _log_download_bytes(self) -> None:
        """Prints nothing: there is no download."""

    def _log_download_done(self) -> None:
        count = many(self.found - len(self.skipped), "utterance")
        report = f"{self.builder_config.folder.name}: {count}"
        if self.skipped:
            report += f", {len(self.skipped)} skipped (see {self.data_path / 'skipped.csv'})"
        print(report)


def list_files(folder: Path, recordings: Iterable[Recording]) -> dict[str, list[int]]:
    """Returns the size in bytes and the time of change in ns of each file, by its path.

    A file that is none, such as a broken link, has neither.
    """
    listed = {}
    for path in {recording.path for recording in recordings}:
        try:
            state = path.stat()
            facts = [state.st_size, state.st_mtime_ns]
        except OSError:
            facts = []
        listed[path_text(os.path.relpath(path, folder))] = facts
    return dict(sorted(listed.items()))


def describe_changes(before: Mapping[str, list[int]], now: Mapping[str, list[int]]) -> str:
    """Says how files differ from those that were prepared; returns "" if they do not."""
    changes = {
        "new": now.keys() - before.keys(),
        "changed": {name for name in now.keys() & before.keys() if now[name] != before[name]},
        "gone": before.keys() - now.keys(),
    }
    return ", ".join(
        f"{len(names)} {what} (such as {printable(min(names))})"
        for what, names in changes.items()
        if names
    )


def audio_files(folder: Path) -> list[Path]:
    """Lists the files below a folder that have a suffix of audio, in any case.

    Hidden files are left out. Broken links, pipes and devices are listed, so that they are skipped
    with a reason.
    """
    found, errors = files_below(folder)
    for error in errors:
        progress.say(f"{printable(path_text(error.filename))} cannot be read: {error.strerror}")
    return [path for path in found if path.name.lower().endswith(SUFFIXES)]


def named(folder: Path, name: str) -> Iterator[tuple]:
    """Finds the audio files whose stems match a regular expression, in any case.

    Yields:
        The path and the match. Audio files with other names are skipped, which is said.
    """
    pattern, others = re.compile(name, re.IGNORECASE), []
    for path in audio_files(folder):
        if match := pattern.fullmatch(path.stem):
            yield path, match
        else:
            others.append(path)
    say_of(folder, others, "not named as published and passed over")


def say_of(folder: Path, paths: list[Path], what: str) -> None:
    """Says what holds of files, if there are any, with their number and the first few names."""
    if paths:
        names = few([printable(path_text(os.path.relpath(path, folder))) for path in paths])
        count = many(len(paths), "audio file")
        progress.say(f"{folder.name}: {count} {what}: {names}")


def _unique(recordings: Iterable[Recording], suffixes: tuple[str, ...]) -> list[Recording]:
    """Keeps one recording of each name: the published format, or either of two equal files."""

    def preference(recording: Recording) -> tuple:
        path, suffix = recording.path, recording.path.suffix.lower()
        rank = suffixes.index(suffix) if suffix in suffixes else len(suffixes)
        return rank, len(path.parts), path

    kept = {}
    for recording in sorted(recordings, key=preference):
        first = kept.setdefault(recording.name.lower(), recording)
        if first is recording or first.path.suffix.lower() != recording.path.suffix.lower():
            continue
        paths = first.path, recording.path
        if not (all(path.is_file() for path in paths) and filecmp.cmp(*paths, shallow=False)):
            raise ValueError(
                f"{first.path} and {recording.path} differ but are both named as utterance "
                f"{first.name}: remove one of them"
            )
    return sorted(kept.values(), key=lambda recording: recording.name)


def _describe(folder: Path) -> str:
    """Says what a folder holds in which a corpus was expected."""
    if not folder.is_dir():
        return "but there is no such folder: --corpora_dir says where the folders of corpora are"
    files, _ = files_below(folder)
    if not files:
        return "but that folder is empty"
    first = path_text(files[0].relative_to(folder))
    return f"but of {many(len(files), 'file')} there (such as {first}) none is named so"
