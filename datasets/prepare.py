"""Prepares a corpus as TFDS records, once for each way of drawing it and each set of features."""

import dataclasses
import difflib
import errno
import importlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from datasets import synthetic
from ds_jax.data import auxiliary, corpus, extension, labels
from ds_jax.data.names import plain
from ds_jax.features import extract, ffmpeg, remarks
from ds_jax.features.extract import FeatureSettings, Settings
from ds_jax.runtime import files, locks
from ds_jax.runtime.progress import few, many

# The published corpora: the folders that hold a builder. `manifest` describes any other corpus.
KNOWN = tuple(
    sorted(
        {path.parent.name for path in Path(__file__).parent.glob("*/*_dataset_builder.py")}
        - {"manifest"}
    )
)


def full_name(name: str, corpora_dir: Path) -> str:
    """Completes the unique beginning of a known corpus' name; returns other names unchanged.

    Case and punctuation do not matter, unless a folder of exactly this name has a
    manifest.
    """

    if name in KNOWN or Path(name).name != name or _has_manifest(name, corpora_dir):
        return name
    fits = [known for known in KNOWN if plain(name) and plain(known).startswith(plain(name))]
    return fits[0] if len(fits) == 1 else name


@dataclasses.dataclass(frozen=True)
class Corpora:
    """Where a command finds its corpora.

    Attributes:
        raw: The folder that holds the raw recordings, `<raw>/<corpus>/`.
        data: The folder of prepared data.
        synthetic: Whether the recordings are synthetic speech, which is written when needed.
        audio: Whether reports are to play recordings.
        trains: Whether models are trained, and so on variants and auxiliary recordings too.
        said: The remarks on recordings that were printed, since a command may load a corpus often.
    """

    raw: Path
    data: Path
    synthetic: bool = False
    audio: bool = False
    trains: bool = True
    said: set[str] = dataclasses.field(default_factory=set)

    def check(self, field: str, name: str) -> str:
        """Checks, before any work, that a corpus exists; returns its full name.

        Args:
            field: The field or flag that gives the name.
            name: The name or its unique beginning.

        Raises:
            ValueError: There is no such corpus, or no synthetic speech of that name.
        """
        full = full_name(name, self.raw)
        if self.synthetic and full not in synthetic.NAMES:
            known = " and ".join(synthetic.NAMES)
            raise ValueError(f"{field}={name!r}: synthetic speech is tested on {known} only")
        try:
            _check_name(full, self.raw)
        except ValueError as error:
            raise ValueError(f"{field}={name!r}: {error}") from error
        return full

    def complete(self, entries: Iterable[str]) -> tuple[str, ...]:
        """Checks entries of `config.auxiliary` as `check` does; completes the corpora's names."""
        named = [(auxiliary.parse(entry)[0], entry) for entry in entries]
        return tuple(self.check("auxiliary", name) + x.removeprefix(name) for name, x in named)

    def load(self, experiment, name: str, describes: bool = False) -> corpus.Corpus:
        """Prepares a corpus in the form that an experiment's config needs, and loads it.

        Args:
            experiment: The config.
            name: As in `prepare`.
            describes: As in `corpus.load`.

        Raises:
            FileNotFoundError, ValueError, OSError: As in `prepare`.
            ConfigError, ValueError: As in `auxiliary.shares` and `auxiliary.join`.
        """
        name = full_name(name, self.raw)
        trains = self.trains and name == full_name(experiment.corpus, self.raw)
        entries = self.complete(experiment.auxiliary) if trains else ()
        shares = auxiliary.shares(entries, name)
        if self.synthetic:
            print(f"{name}: SYNTHETIC SPEECH, which proves the plumbing and nothing else")
            synthetic.write_corpora(self.raw)  # keeps those that are there
        given = experiment.variants if trains else ()
        settings = [extract.settings({**experiment, "variant": each}) for each in ("", *given)]
        forms = len(settings) + len(shares)
        silent = dataclasses.replace(self, audio=False)  # since no page plays auxiliary recordings
        others = [  # first: they may be missing
            (silent._load(experiment, other, settings[0], False, forms), share)
            for other, share in shares.items()
        ]
        loaded = [self._load(experiment, name, s, describes, forms) for s in settings]
        found = extension.with_variants(loaded[0], loaded[1:]) if given else loaded[0]
        return auxiliary.join(found, others) if others else found

    def _load(
        self, experiment, name: str, settings: Settings, describes: bool, forms: int
    ) -> corpus.Corpus:
        classes, trains = experiment.classes, name == experiment.corpus

        def check(found: Iterable[str], are_own: bool) -> None:
            if not (describes and are_own):
                mapping, all_known = experiment.label_map, trains and are_own
                labels.check_found(name, found, classes, mapping, all_known)

        builder = prepare(name, self.raw, self.data, settings, self.audio, check)
        from datasets import base  # here, since it imports TFDS

        found = files.read_json(Path(builder.data_path) / base.REMARKS)
        for line in remarks.lines(found, settings):
            if (line := f"{name}: {line}") not in self.said:
                self.said.add(line)
                print(line)
        mapping = experiment.label_map
        return corpus.load(builder, name, classes, mapping, trains, describes, forms)


def prepare(
    name: str,
    corpora_dir: Path,
    data_dir: Path,
    settings: Settings,
    audio: bool = False,
    check: Callable[[Iterable[str], bool], None] = lambda labels, are_own: None,
):
    """Returns a builder of the prepared corpus; prepares it unless it was prepared before.

    The prepared data lies in `<data_dir>/<corpus>/<settings>/<version>`. It is found there without
    the raw recordings (a manifest corpus still needs its manifest.csv). Two processes never prepare
    the same corpus at once. Data whose checksums are wrong is prepared again, and so is data of
    recordings that were added, changed or taken away since.

    Args:
        name: A known corpus or the unique beginning of its name, or a folder with a manifest.
        corpora_dir, data_dir, audio: As `raw`, `data` and `audio` of `Corpora`.
        settings: How pictures are drawn, or which features are computed.
        check: What may refuse the labels of the utterances, and is told whether they are the user's
            own, before a recording is read.

    Raises:
        FileNotFoundError: The raw recordings are needed, and missing or not laid out as published.
        ValueError: There is no such corpus, none of its recordings can be used, or reports are to
            play them against their licence.
        OSError: `data_dir` cannot be written.
    """
    name, key = full_name(name, corpora_dir), settings.key()
    folder = Path(corpora_dir) / name
    package = name
    if name not in KNOWN:
        _check_name(name, corpora_dir)
        package = "manifest"
        key = f"{name}-{files.sha256(folder / 'manifest.csv')[:8]}-{key}"
    base = importlib.import_module("datasets.base")  # slow: it imports TFDS
    builder = importlib.import_module(f"datasets.{package}.{package}_dataset_builder").Builder
    if audio:
        builder.check_audio(folder)  # before any work
    path = Path(data_dir) / package / key / str(builder.VERSION)
    try:
        found = builder.find(folder)
    except FileNotFoundError:
        if _find_fault(path):
            raise
        found = []  # the prepared data does without
        builder.check_total(folder, len(files.read_json(path / base.RECORDINGS)))
    if found:
        check([recording.label for recording in found], builder.own_labels)
    listed = base.list_files(folder, found)
    config = base.CorpusConfig(name=key, folder=folder, settings=settings, found=found, audio=audio)
    if not _find_fault(path, listed):
        absent = "" if found else f"; there are no recordings in {folder} to compare it with"
        print(f"{name}: as prepared in {path}{absent}")
        return builder(data_dir=data_dir, config=config)
    if isinstance(settings, FeatureSettings):
        settings.check()
    files.check_writable(data_dir, "--data_dir")
    with locks.hold(Path(data_dir) / f"{package}.lock", f"{package} in {data_dir}", wait=True):
        if fault := _find_fault(path, listed):  # another process may have prepared it
            if (path / files.CHECKSUMS).is_file():
                print(f"{fault}: it is prepared anew")
            print(f"{name}: preparing {many(len(found), 'recording')} in {path}", flush=True)
            _write(builder, config, data_dir, path)
    return builder(data_dir=data_dir, config=config)


def _check_name(name: str, corpora_dir: Path) -> None:
    """Checks that a corpus is known, or has a manifest."""
    if name in KNOWN or _has_manifest(name, corpora_dir):
        return
    folder = Path(corpora_dir) / name
    tables = sorted(p.name for p in folder.glob("*") if p.suffix.lower() in (".csv", ".tsv"))
    if tables and name and Path(name).name == name:
        raise ValueError(
            f"there is no corpus {name!r}, since {folder} has no manifest.csv: call the table of "
            f"its recordings so (there is {few(tables)}), with columns path, label, speaker"
        )
    own = sorted(path.parent.name for path in Path(corpora_dir).glob("*/manifest.csv"))
    nearest = difflib.get_close_matches(name, [*own, *KNOWN], n=1, cutoff=0.0)[0]
    hint = f" (the nearest is {nearest})" if name else ""
    known = ", ".join([*KNOWN, few(own)] if own else KNOWN)
    manifest = Path(corpora_dir) / (name or "NAME") / "manifest.csv"
    raise ValueError(
        f"there is no corpus {name!r}: give one of {known}{hint}, or describe your own recordings "
        f"in {manifest}, with columns path, label, speaker; --corpora_dir says where the folders "
        "of corpora are"
    )


def _has_manifest(name: str, corpora_dir: Path) -> bool:
    """Tells whether a folder of this very name describes its recordings by a manifest."""
    manifest = Path(corpora_dir) / name / "manifest.csv"
    return bool(name) and Path(name).name == name and manifest.is_file()


def _find_fault(path: Path, listed: Mapping[str, list[int]] | None = None) -> str:
    """Says why prepared data cannot be used; "" if it can.

    It must be complete and, if any files are listed, of these.
    """
    if not (path / files.CHECKSUMS).is_file():
        return f"{path} is not complete"
    if damage := files.find_damage(path):
        return damage
    if not listed:
        return ""
    from datasets import base  # here, since it imports TFDS

    if changes := base.describe_changes(files.read_json(path / base.RECORDINGS), listed):
        return f"{path} is of other recordings than there are now: {changes}"
    skipped = (path / "skipped.csv").read_text(encoding="utf-8")
    if shutil.which("ffmpeg") and ffmpeg.ABSENT in skipped:
        return f"{path} lacks recordings that ffmpeg, which is here now, can decode"
    return ""


def _write(builder, config, data_dir: Path, path: Path) -> None:
    """Prepares a corpus; the checksums are written last, and mark the data as complete."""
    for leftover in [path, *path.parent.glob("incomplete.*")]:
        shutil.rmtree(leftover, ignore_errors=True)
    with (
        tempfile.TemporaryDirectory() as downloads,  # TFDS needs a folder for downloads
        files.explain_write_errors(path),
    ):
        try:
            builder(data_dir=data_dir, config=config).download_and_prepare(
                download_dir=downloads, file_format="array_record"
            )
        except OSError as error:
            if "Not enough disk space" in str(error):  # TFDS' error does not name the place
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            raise
        written = [file for file in path.rglob("*") if file.is_file()]
        for file in written:
            files.sync(file)
        files.sync(path)
        files.write_checksums(path, {str(f.relative_to(path)): files.sha256(f) for f in written})
