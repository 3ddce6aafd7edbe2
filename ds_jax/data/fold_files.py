"""Folds that files and corpora give, and the file in which a run keeps its own."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from ds_jax.data import leakage, tables
from ds_jax.data.corpus import Utterance
from ds_jax.data.folds import PROTOCOLS, SPLITS, Fold, repeated, shared, take_dev
from ds_jax.data.names import essence, plain
from ds_jax.runtime import progress
from ds_jax.runtime.errors import check_choice
from ds_jax.runtime.files import read_json, write_json
from ds_jax.runtime.progress import few, many

# How tables call the splits, without case and punctuation.
_SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "trn", "trainset", "trainingset"), "train"),
    **dict.fromkeys(("entrenamiento", "addestramento"), "train"),
    **dict.fromkeys(("dev", "devel", "development", "val", "valid", "validation", "devset"), "dev"),
    **dict.fromkeys(("validationset", "validacion", "desarrollo", "validierung"), "dev"),
    **dict.fromkeys(("entwicklung", "validazione", "sviluppo"), "dev"),
    **dict.fromkeys(("test", "testing", "tst", "testset", "prueba", "prova"), "test"),
}
# The columns of a table of folds, which has one of the first two.
_COLUMNS = {
    "utterance": ("utteranceid", "utt", "uttid", "name", "id", "path", *tables.NAMES),
    "speaker": tables.SPEAKERS,
    "fold": tables.FOLDS,
}
# The protocols whose folds share no speakers, or no sentences, between training and test.
_DISJOINT = {"speakers": ("speakers", "leave_one_speaker_out"), "sentences": ("sentences",)}


def write_folds(
    path: str | Path,
    corpus: str,
    protocol: str,
    seed: int,
    select_on: str,
    folds: Sequence[Fold],
    utterances: Sequence[Utterance] = (),
    auxiliary: Sequence[Mapping] = (),
) -> None:
    """Writes folds.json, with the digests of the utterances' recordings.

    Recordings of other corpora that train the models too stand there as `auxiliary` gives them.
    """
    content = {"corpus": corpus, "protocol": protocol, "seed": seed, "select_on": select_on}
    content |= {"folds": [dataclasses.asdict(fold) for fold in folds]}
    digests = {utterance.name: utterance.digest for utterance in utterances if utterance.digest}
    content |= {"auxiliary": list(auxiliary)} if auxiliary else {}
    write_json(path, content | {"digests": digests}, sealed=True)


def read_folds(
    path: str | Path,
    utterances: Sequence[Utterance],
    select_on: str = "dev",
    seed: int = 0,
    verify: bool = False,
    left_out: Mapping[str, str] | None = None,
) -> tuple[str, list[Fold]]:
    """Reads folds.json, written by this program or by its user, or a table of folds.

    A file must hold at least `{"folds": [{"train": [names], "test": [names]}]}`. A missing "dev" is
    taken from train as in `make_folds`, if `select_on` is "dev"; there must be none if it is
    "none". Not every utterance must occur, but no recording may be in two splits. For tables see
    `read_entries`.

    Args:
        path: The file.
        utterances, select_on, seed: As in `make_folds`.
        verify: Whether the corpus must still hold the recordings of which the folds were made.
        left_out: The names of utterances that the corpus has and the run leaves out, and why. The
            file may name them; how many it does is said.

    Returns:
        The protocol, "custom" if the file names none, and the folds.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file has another form, or does not fit the corpus.
        leakage.LeakError: A recording is in two splits of a fold.
    """
    protocol, entries = read_entries(path, utterances)
    if verify:
        try:
            leakage.check_recordings(read_json(path).get("digests", {}), utterances)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    folds = _read_entries(path, entries, utterances, protocol, select_on, seed, left_out or {})
    common = shared(folds, utterances)
    for kind, protocols in _DISJOINT.items():
        if protocol in protocols and common[kind]:
            raise ValueError(
                f"{path}: its protocol is {protocol!r}, but training and test share "
                f'{common[kind]} {kind}: correct the folds, or leave "protocol" out'
            )
    return protocol, folds


def given_folds(
    utterances: Sequence[Utterance], select_on: str = "dev", seed: int = 0
) -> list[Fold]:
    """Makes the folds that a corpus gives; the other arguments are those of `read_folds`.

    Each utterance says in which fold it is tested, or its split.

    Raises:
        ValueError: There is a single fold, or no test; or some are folds and others splits.
        leakage.LeakError: A recording is in two splits of a fold.
    """
    entries = _divide({utterance.name: utterance.fold for utterance in utterances})
    return _read_entries("the corpus", entries, utterances, "custom", select_on, seed, {})


def is_fold(text: str) -> bool:
    """Tells whether a text is a split's name, or a whole number."""
    return plain(text) in _SPLIT_NAMES or plain(text).isdecimal()


def read_entries(path: str | Path, utterances: Sequence[Utterance] = ()) -> tuple[str, list]:
    """Reads the protocol and the list of folds of a folds.json, without checking the folds.

    A table (.csv, .tsv or .txt) has a row for each utterance, with its name and the fold that tests
    it, or with its split; or a row for each speaker of `utterances`, if it has no column of
    utterances.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file holds no folds.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of folds at {path}: correct the path")
    if path.suffix.lower() in (".csv", ".tsv", ".txt"):
        return "custom", _read_table(path, utterances)
    content = read_json(path)
    entries = content.get("folds")
    if not isinstance(entries, list) or not entries:
        raise ValueError(f'{path} needs a list "folds" with at least one fold in it')
    protocol = content.get("protocol", "custom")
    check_choice(f"{path}: protocol", protocol, PROTOCOLS)
    return protocol, entries


def _read_table(path: Path, utterances: Sequence[Utterance]) -> list[dict[str, list[str]]]:
    """Reads a table of folds as the entries of a folds.json."""
    table = tables.read(path)
    for kind in ("utterance", "speaker"):
        fields = {field: _COLUMNS[field] for field in (kind, "fold")}
        columns = tables.find_columns(table, fields, ("fold",))
        if kind in columns:
            break
    else:
        raise ValueError(
            f"{path}, line 1: there is no column 'utterance' or 'speaker': {table.describe()}"
        )
    tables.say_columns(table, columns)
    of_splits = [name for name in table.columns if plain(name) in _SPLIT_NAMES]
    if len(of_splits) > 1:
        raise ValueError(
            f"{path}, line 1: each of the columns {few(of_splits)} is of a split: give one column "
            "split, with train, dev or test in each row"
        )
    given = {}
    for line, cells in table.rows:
        name, fold = cells[columns[kind]], cells[columns["fold"]]
        if not name or not fold:
            raise ValueError(f"{path}, line {line}: give each {kind} its name and its fold")
        if name in given:
            raise ValueError(f"{path}, line {line}: {name!r} is listed a second time")
        given[name] = tables.read_fold(table.columns[columns["fold"]], fold)
    if not given:
        raise ValueError(f"{path} has no rows: give each {kind} its name and its fold")
    if kind == "speaker" and utterances:
        given = _folds_of_utterances(path, given, utterances)
    try:
        return _divide(given)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _folds_of_utterances(
    path: Path, given: Mapping[str, str], utterances: Sequence[Utterance]
) -> dict[str, str]:
    """Returns the fold or the split of each utterance for those of its speaker."""
    speakers = {utterance.speaker for utterance in utterances}
    if missing := sorted(speakers - {*given}):
        names = few(list(map(repr, missing)))
        raise ValueError(f"{path} has no fold for the speakers {names}: give them one")
    if absent := [name for name in given if name not in speakers]:
        progress.say(f"{path} names {few(absent)}, of whom the run has no utterances")
    return {utterance.name: given[utterance.speaker] for utterance in utterances}


def _divide(given: Mapping[str, str]) -> list[dict[str, list[str]]]:
    """Returns the entries of a folds.json for the fold or the split of each utterance."""
    splits = {name: _SPLIT_NAMES.get(plain(value)) for name, value in given.items()}
    if None not in splits.values():
        names = {split: [n for n, its in splits.items() if its == split] for split in SPLITS}
        return [names]
    if any(splits.values()):
        other = next(given[name] for name, split in splits.items() if split is None)
        raise ValueError(
            f"some utterances have a split, and others {other!r}: call the splits train, dev and "
            "test, or give all utterances the fold that tests them"
        )
    parts = {}  # "3" and "3.0" are one fold
    for name, value in given.items():
        parts.setdefault(essence(value), []).append(name)
    if len(parts) < 2:
        value = next(iter(given.values()))
        raise ValueError(f"all utterances are of the fold {value!r}: give two or more folds")
    # Numbers are ordered by their values.
    order = sorted(parts, key=lambda key: [(int(x) if x.isdecimal() else -1, x) for x in key])
    return [
        {"train": [n for key in parts if key != tested for n in parts[key]], "test": parts[tested]}
        for tested in order
    ]


def _read_entries(
    where: str | Path,
    entries: Sequence,
    utterances: Sequence[Utterance],
    protocol: str,
    select_on: str,
    seed: int,
    left_out: Mapping[str, str],
) -> list[Fold]:
    """Checks the entries of a folds.json, and takes dev from train where it is missing."""
    known = {utterance.name for utterance in utterances}
    untested = protocol == "whole_corpus" and select_on != "test"
    optional = {"dev", "test"} if untested else {"dev"}
    folds, passed_over = [], set()
    for index, entry in enumerate(entries):
        try:
            splits = _read_splits(entry, known, left_out)
            passed_over |= {name for names in splits.values() for name in names} - known
            fold = _make_fold(entry, splits, known, optional)
            if fold.dev and select_on == "none":
                raise ValueError(
                    '"dev" has nothing to choose where select_on="none": add it to "train"'
                )
            leakage.check_splits(fold.splits, utterances)
            if select_on == "dev" and not fold.dev:
                fold = _with_dev(fold, utterances, protocol, index, seed)
            folds.append(fold)
        except ValueError as error:
            raise type(error)(f"{where}, fold {index}: {error}") from error
    if passed_over:
        reasons = progress.counts(Counter(left_out[name] for name in passed_over))
        count = many(len(passed_over), "utterance")
        progress.say(f"{where} names {count} that the run leaves out: {reasons}")
    return folds


def _read_splits(
    entry: object, known: set[str], left_out: Mapping[str, str]
) -> dict[str, list[str]]:
    """Returns the names that an entry has for each split; all are the corpus'."""
    if not isinstance(entry, dict):
        raise ValueError('it must be an object with "train", "dev" and "test"')
    splits = {split: entry.get(split, []) for split in SPLITS}
    for split, names in splits.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f'"{split}" must be a list of utterance names')
        if unknown := [name for name in names if name not in known and name not in left_out]:
            shown = few(list(map(repr, unknown)))
            raise ValueError(f'"{split}" names {shown}, which the corpus does not have')
        if name := repeated(names):
            raise ValueError(f'"{split}" names {name!r} twice')
    if name := repeated(name for names in splits.values() for name in names):
        places = " and ".join(split for split, names in splits.items() if name in names)
        raise ValueError(f"{name!r} is in both {places}: leave it in one")
    return splits


def _make_fold(
    entry: Mapping, splits: Mapping[str, Sequence[str]], known: set[str], optional: set[str]
) -> Fold:
    """Makes a fold of those names that the run does not leave out."""
    kept = {split: tuple(sorted(known.intersection(splits[split]))) for split in SPLITS}
    for split in SPLITS:
        if not kept[split] and split not in optional:
            why = "is left out of the run" if splits[split] else "is missing or empty"
            raise ValueError(f'"{split}" {why}: name its utterances')
    return Fold(**kept, dev_rule=str(entry.get("dev_rule", "")))


def _with_dev(
    fold: Fold, utterances: Sequence[Utterance], protocol: str, index: int, seed: int
) -> Fold:
    """Returns a fold with a part of its training utterances as dev."""
    training = [utterance for utterance in utterances if utterance.name in {*fold.train}]
    rule, dev = take_dev(training, protocol, index, seed)
    train = {*fold.train} - leakage.same_recordings(dev, utterances)
    if not train:
        raise ValueError(
            f'"dev" is missing, and cannot be taken from {many(len(training), "utterance")} of '
            '"train": name its utterances, or more for train'
        )
    return Fold(tuple(sorted(train)), tuple(sorted(dev)), fold.test, rule)
