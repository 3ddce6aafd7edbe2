"""Prepares a corpus as TFDS records, once for each way of drawing it and each set of features."""

import difflib
import errno
import hashlib
import importlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from absl import logging

from datasets.synthetic import NAMES
from ds_jax.data import corpus
from ds_jax.features import representation
from ds_jax.features.extract import FeatureSettings
from ds_jax.features.representation import Settings
from ds_jax.runtime import files, locks
from ds_jax.runtime.files import check_writable

KNOWN = ("elra_s0329", "emodb", "emomatch_spanish_db", "emovo", "ravdess")


def full_name(name: str) -> str:
    """Completes the unique beginning of a known corpus' name; other names stay as they are."""
    fits = [known for known in KNOWN if known.startswith(name)]
    return fits[0] if name not in KNOWN and len(fits) == 1 else name


def complete_names(config) -> None:
    """Completes the names of corpora in a config, in place."""
    for field in ("corpus", "elra", "emomatch"):
        if isinstance(config.get(field), str):  # what is not is told later
            config[field] = full_name(config[field])


def check_names(config, names: Mapping[str, str], corpora_dir: Path) -> None:
    """Checks that there are such corpora, before any work.

    Args:
        config: The experiment's.
        names: Of corpora, by the fields or flags that name them.
        corpora_dir: Holds the raw recordings in `<corpora_dir>/<corpus>/`.

    Raises:
        ValueError: There is no such corpus, or synthetic speech has none of that name.
    """
    for field, name in names.items():
        full = full_name(name)
        if config.synthetic and full not in NAMES:
            raise ValueError(
                f"{field}={name!r}: synthetic speech is tested on {' and '.join(NAMES)} only"
            )
        if full not in KNOWN:
            try:
                _manifest_digest(full, Path(corpora_dir) / full)
            except ValueError as error:
                raise ValueError(f"{field}={name!r}: {error}") from error


def load(
    corpora_dir: Path, data_dir: Path, synthetic: bool, audio: bool, experiment, name: str
) -> corpus.Corpus:
    """Prepares a corpus as an experiment wants it, and loads it.

    Args:
        corpora_dir: Holds the raw recordings in `<corpora_dir>/<corpus>/`.
        data_dir: Holds what is prepared.
        synthetic: Whether the recordings are generated ones, of which there are two corpora.
        audio: Whether reports are to play recordings.
        experiment: Its config.
        name: As for `prepare`.

    Raises:
        FileNotFoundError, ValueError: As `prepare`; or synthetic speech is to be more than that.
    """
    name = full_name(name)
    if synthetic and name not in NAMES:
        raise ValueError(f"{name}: synthetic speech is tested on {NAMES} only")
    if synthetic:
        logging.set_verbosity(logging.ERROR)  # they are smaller than what they are named after
    wanted = representation.settings(experiment)
    return corpus.load(prepare(name, corpora_dir, data_dir, wanted, audio), name)


def prepare(name: str, corpora_dir: Path, data_dir: Path, settings: Settings, audio: bool = False):
    """Returns the corpus' TFDS builder, prepared; at once if it was prepared before.

    What is prepared lies in `<data_dir>/<corpus>/<settings>/<version>`, other settings beside it,
    and is found there without the raw recordings (of a manifest corpus, its manifest.csv is
    needed still). Two processes never prepare the same corpus at once. What is not as it was
    written, going by its checksums, is prepared anew.

    Args:
        name: A known corpus or the unique beginning of its name, or any folder with a manifest.
        corpora_dir: Holds the raw recordings in `<corpora_dir>/<corpus>/`.
        data_dir: Holds what is prepared.
        settings: How the pictures are drawn, or which features are computed.
        audio: Whether reports are to play recordings, which are needed then.

    Raises:
        FileNotFoundError: The raw recordings are needed, and missing or not laid out as published.
        ValueError: There is no such corpus, none of its recordings can be used, or they are to be
            played and their licence forbids it.
        OSError: `data_dir` cannot be written.
    """
    name, key = full_name(name), settings.key()
    folder = Path(corpora_dir) / name
    package = name
    if name not in KNOWN:
        package = "manifest"
        key = f"{name}-{_manifest_digest(name, folder)}-{key}"
    base = importlib.import_module("datasets.base")
    module = importlib.import_module(f"datasets.{package}.{package}_dataset_builder")
    if audio:
        module.Builder.terms(folder)  # before any work
    config = base.CorpusConfig(name=key, folder=folder, settings=settings, audio=audio)
    path = Path(data_dir) / package / key / str(module.Builder.VERSION)
    if _is_whole(path):
        print(f"{name}: as prepared in {path}")
        return module.Builder(data_dir=data_dir, config=config)
    if isinstance(settings, FeatureSettings):
        settings.check()
    if not folder.is_dir():
        module.Builder.find(folder)  # says what is missing, before anything is made or removed
    check_writable(data_dir, "--data_dir")
    with locks.hold(Path(data_dir) / f"{package}.lock", f"{package} in {data_dir}", wait=True):
        if not _is_whole(path):  # another process may have done it
            _write(module.Builder, config, data_dir, path)
    return module.Builder(data_dir=data_dir, config=config)


def _is_whole(path: Path) -> bool:
    """Whether prepared data is there to its end; tells what is damaged."""
    if not (path / files.CHECKSUMS).is_file():
        return False
    damage = files.find_damage(path)
    if damage:
        print(f"{damage}, and is prepared anew")
    return not damage


def _write(builder, config, data_dir: Path, path: Path) -> None:
    """Prepares anew; the checksums are written last, and say that the data is there to its end."""
    for leftover in [path, *path.parent.glob("incomplete.*")]:
        shutil.rmtree(leftover, ignore_errors=True)
    with (
        tempfile.TemporaryDirectory() as downloads,  # TFDS wants a folder for downloads
        files.explain_write_errors(path),
    ):
        try:
            builder(data_dir=data_dir, config=config).download_and_prepare(
                download_dir=downloads, file_format="array_record"
            )
        except OSError as error:
            if "Not enough disk space" in str(error):  # TFDS says so without saying where
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            raise
        written = [file for file in path.rglob("*") if file.is_file()]
        for file in written:
            files.sync(file)
        files.sync(path)
        files.write_checksums(path, {str(f.relative_to(path)): files.sha256(f) for f in written})


def _manifest_digest(name: str, folder: Path) -> str:
    manifest = folder / "manifest.csv"
    if not name or Path(name).name != name or not manifest.is_file():
        nearest = difflib.get_close_matches(name, KNOWN, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"there is no corpus {name!r}: give one of {', '.join(KNOWN)} (the nearest is "
            f"{nearest}), or describe your own recordings in {manifest}, with columns path, label, "
            "speaker"
        )
    return hashlib.sha256(manifest.read_bytes()).hexdigest()[:8]
