"""Divides a corpus into folds: which utterances train, which choose the epoch, and which test."""

import dataclasses
import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from pathlib import Path

from ds_jax.data import leakage, tables
from ds_jax.data.corpus import Utterance
from ds_jax.runtime.errors import ConfigError, check_choice, check_number
from ds_jax.runtime.files import read_json, write_json
from ds_jax.runtime.progress import many

PROTOCOLS = {
    "stratified": "folds over files with balanced labels, whoever speaks and whatever is said",
    "split_70_30": "independent splits of the files, 70 % training and 30 % test, labels balanced",
    "speakers": "folds of whole speakers: nobody is heard in both training and test",
    "leave_one_speaker_out": "one fold a speaker, who is heard in its test only",
    "sentences": "folds of whole sentences: no text is spoken in both training and test",
    "whole_corpus": "one model from the whole corpus, to be tested on other corpora",
    "custom": "folds that a file or the corpus itself gives",
}
SPLITS = ("train", "dev", "test")
# Which split may choose the epoch; "none": nothing does, and the last epoch counts.
SELECT_ON = ("dev", "test", "none")
SHOWN = 5  # names shown in a message

# How tables call the splits, without case and punctuation.
_SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("dev", "development", "val", "valid", "validation"), "dev"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
# The columns of a table of folds.
_COLUMNS = {
    "utterance": ("utteranceid", "name", "id", "path", *tables.NAMES),
    "fold": tables.FOLDS,
}
# The attribute of an utterance by which a rule keeps utterances together.
_UNITS = {"stratified": "name", "speakers": "speaker", "sentences": "sentence"}
# Dev is a part of this many of the training utterances, whatever the number of folds.
_DEV_PARTS = 10
_MOST = 100_000  # folds
# The protocols whose folds share no speakers, or no sentences, between training and test.
_DISJOINT = {"speakers": ("speakers", "leave_one_speaker_out"), "sentences": ("sentences",)}
# What training and test may share, and the attribute of an utterance that tells.
_SHARED = {"speakers": "speaker", "sentences": "sentence", "recordings": "digest"}


@dataclasses.dataclass(frozen=True)
class Fold:
    """One division of a corpus into splits, each a sorted tuple of utterances' names.

    Attributes:
        train: The utterances that a system is fitted on.
        dev: The utterances that choose the epoch; empty where test does, or nothing.
        test: The utterances that are scored.
        dev_rule: How dev was taken from the training utterances: "stratified", "speakers" or
            "sentences"; empty if dev is empty, or if a file does not say.
    """

    train: tuple[str, ...]
    dev: tuple[str, ...]
    test: tuple[str, ...]
    dev_rule: str = ""

    @property
    def splits(self) -> dict[str, tuple[str, ...]]:
        """The splits by their names."""
        return {split: getattr(self, split) for split in SPLITS}


def check(config: Mapping, select_on: str) -> None:
    """Checks `config.folds` as far as that is possible without the corpus.

    Raises:
        ConfigError: A field is impossible.
    """
    if not config["file"]:  # a file has its own protocol and number of folds
        _check_protocol(config["protocol"], config["count"], select_on)


def make_folds(
    utterances: Sequence[Utterance], protocol: str, count: int, seed: int, select_on: str = "dev"
) -> list[Fold]:
    """Divides a corpus by a protocol, equally on every machine.

    Utterances, speakers or sentences are dealt out in the order of SHA-256 digests of seed, purpose
    and name, so that the folds depend neither on the order of `utterances` nor on the random
    numbers of a library.

    A recording that the corpus holds under several names is left out of train and dev where test
    holds it, and out of train where dev does.

    Args:
        utterances: All utterances of the corpus.
        protocol: A key of `PROTOCOLS` except "custom".
        count: The number of folds or splits. Speakers and sentences give at most one fold each;
            leave_one_speaker_out and whole_corpus do not use the number.
        seed: Each seed gives other folds.
        select_on: "dev" takes about a tenth of the training utterances as dev, by the protocol's
            rule: whole speakers, whose genders take turns over the folds, else whole sentences,
            else files. "test" leaves dev empty, since test chooses the epoch, and so does "none",
            where the last one counts.

    Raises:
        ConfigError: A field is impossible for this corpus.
        ValueError: The corpus cannot be divided by the protocol.
    """
    utterances = sorted(utterances, key=attrgetter("name"))
    _check_corpus(utterances, protocol, count, select_on)
    folds = []
    for index, test in enumerate(_test_splits(utterances, protocol, count, seed)):
        training = [utterance for utterance in utterances if utterance.name not in test]
        rule, dev = "", set()
        if select_on == "dev":
            rule, dev = _take_dev(training, protocol, index, seed)
        train = {utterance.name for utterance in training} - dev
        dev -= leakage.same_recordings(test, utterances)
        train -= leakage.same_recordings(test | dev, utterances)
        if not train or (rule and not dev):
            raise ValueError(
                f"{many(len(utterances), 'utterance')} cannot be divided by protocol {protocol!r}: "
                f"nothing is left to train fold {index} on, or to choose its epoch on"
            )
        folds.append(Fold(_sorted(train), _sorted(dev), _sorted(test), rule))
    return folds


def inner_folds(
    utterances: Sequence[Utterance], fold: Fold, protocol: str, count: int, seed: int
) -> list[tuple[str, ...]]:
    """Divides train and dev of a fold once more, for an inner cross-validation.

    Args:
        utterances: All utterances of the corpus.
        fold, protocol: As in the protocol of the fold, the division keeps speakers or else
            sentences together, or else balances labels over files.
        count: The largest number of parts; there is at most one for each speaker or sentence.
        seed: Each seed gives other parts.

    Returns:
        For each inner fold the sorted names that it holds out; it fits the others.

    Raises:
        ValueError: Train and dev have a single utterance.
    """
    names = {*fold.train, *fold.dev}
    training = [utterance for utterance in utterances if utterance.name in names]
    if len(training) < 2:
        raise ValueError(f"{many(len(training), 'utterance')} to train on cannot be divided")
    rule = fold.dev_rule or _dev_rule(training, protocol)
    return [_sorted(part) for part in _deal(training, rule, count, f"{seed}:inner")]


def write_folds(
    path: str | Path,
    corpus: str,
    protocol: str,
    seed: int,
    select_on: str,
    folds: Sequence[Fold],
    utterances: Sequence[Utterance] = (),
) -> None:
    """Writes folds.json, with the digests of the utterances' recordings."""
    content = {"corpus": corpus, "protocol": protocol, "seed": seed, "select_on": select_on}
    content |= {"folds": [dataclasses.asdict(fold) for fold in folds]}
    digests = {utterance.name: utterance.digest for utterance in utterances if utterance.digest}
    write_json(path, content | {"digests": digests}, sealed=True)


def read_folds(
    path: str | Path,
    utterances: Sequence[Utterance],
    select_on: str = "dev",
    seed: int = 0,
    verify: bool = False,
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

    Returns:
        The protocol, "custom" if the file names none, and the folds.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file has another form, or does not fit the corpus.
        leakage.LeakError: A recording is in two splits of a fold.
    """
    protocol, entries = read_entries(path)
    if verify:
        try:
            leakage.check_recordings(read_json(path).get("digests", {}), utterances)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    folds = _read_entries(path, entries, utterances, protocol, select_on, seed)
    common = shared(folds, utterances)
    for kind, protocols in _DISJOINT.items():
        if protocol in protocols and common[kind]:
            raise ValueError(
                f"{path}: its protocol is {protocol!r}, but training and test share "
                f'{common[kind]} {kind}: correct the folds, or leave "protocol" out'
            )
    return protocol, folds


def given_folds(
    given: Mapping[str, str],
    utterances: Sequence[Utterance],
    select_on: str = "dev",
    seed: int = 0,
) -> list[Fold]:
    """Makes the folds that a corpus gives.

    Args:
        given: The fold in which each utterance is tested, or its split, by the utterance's name.
        utterances, select_on, seed: As in `read_folds`; some of those given may be missing.

    Raises:
        ValueError: There is a single fold, or no test; or some are folds and others splits.
        leakage.LeakError: A recording is in two splits of a fold.
    """
    known = {utterance.name for utterance in utterances}
    entries = _divide({name: fold for name, fold in given.items() if name in known})
    return _read_entries("the corpus", entries, utterances, "custom", select_on, seed)


def _divide(given: Mapping[str, str]) -> list[dict[str, list[str]]]:
    """Returns the entries of a folds.json for the fold or the split of each utterance."""
    splits = {name: _SPLIT_NAMES.get(tables.plain(value)) for name, value in given.items()}
    if None not in splits.values():
        names = {split: [n for n, its in splits.items() if its == split] for split in SPLITS}
        return [names]
    if any(splits.values()):
        other = next(given[name] for name, split in splits.items() if split is None)
        raise ValueError(
            f"some utterances have a split, and others {other!r}: call the splits train, dev and "
            "test, or give all utterances the fold that tests them"
        )
    # Numbers are ordered by their values.
    values = sorted(
        {*given.values()}, key=lambda v: (int(v) if re.fullmatch("[0-9]+", v) else -1, v)
    )
    if len(values) < 2:
        raise ValueError(f"all utterances are of the fold {values[0]!r}: give two or more folds")
    return [
        {
            "train": [name for name, fold in given.items() if fold != value],
            "test": [name for name, fold in given.items() if fold == value],
        }
        for value in values
    ]


def _read_entries(
    where: str | Path,
    entries: Sequence,
    utterances: Sequence[Utterance],
    protocol: str,
    select_on: str,
    seed: int,
) -> list[Fold]:
    """Checks the entries of a folds.json, and takes dev from train where it is missing."""
    known = {utterance.name for utterance in utterances}
    untested = protocol == "whole_corpus" and select_on != "test"
    optional = {"dev", "test"} if untested else {"dev"}
    folds = []
    for index, entry in enumerate(entries):
        try:
            fold = _read_fold(entry, known, optional)
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
    return folds


def _with_dev(
    fold: Fold, utterances: Sequence[Utterance], protocol: str, index: int, seed: int
) -> Fold:
    """Returns a fold with a part of its training utterances as dev."""
    training = [utterance for utterance in utterances if utterance.name in {*fold.train}]
    rule, dev = _take_dev(training, protocol, index, seed)
    train = {*fold.train} - leakage.same_recordings(dev, utterances)
    if not train:
        raise ValueError(
            f'"dev" is missing, and cannot be taken from {many(len(training), "utterance")} of '
            '"train": name its utterances, or more for train'
        )
    return Fold(_sorted(train), _sorted(dev), fold.test, rule)


def _take_dev(
    training: Sequence[Utterance], protocol: str, index: int, seed: int
) -> tuple[str, set[str]]:
    """Chooses the dev of a fold; returns the rule, and names among the training utterances."""
    rule, key = _dev_rule(training, protocol), f"{seed}:dev {index}"
    if rule == "speakers":
        order = _in_turn(training, index, key)
        chosen = {*order[: max(1, len(order) // _DEV_PARTS)]}
        return rule, {u.name for u in training if u.speaker in chosen}
    parts = _deal(training, rule, _DEV_PARTS, key)
    return rule, parts[index % len(parts)]


def _in_turn(utterances: Sequence[Utterance], first: int, key: str) -> list[str]:
    """Shuffles the speakers so that their genders take turns, the `first`-th one leading."""
    gender = {utterance.speaker: utterance.gender for utterance in utterances}
    order = _shuffled(utterances, attrgetter("speaker"), key)
    genders = sorted({*gender.values()})
    genders = genders[first % len(genders) :] + genders[: first % len(genders)]
    of_each = [[speaker for speaker in order if gender[speaker] == each] for each in genders]
    return [name for turn in itertools.zip_longest(*of_each) for name in turn if name is not None]


def read_entries(path: str | Path) -> tuple[str, list]:
    """Reads the protocol and the list of folds of a folds.json, without checking the folds.

    A table (.csv, .tsv or .txt) has a row for each utterance, with its name and the fold that tests
    it, or with its split.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file holds no folds.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of folds at {path}: correct the path")
    if path.suffix.lower() in (".csv", ".tsv", ".txt"):
        return "custom", _read_table(path)
    content = read_json(path)
    entries = content.get("folds")
    if not isinstance(entries, list) or not entries:
        raise ValueError(f'{path} needs a list "folds" with at least one fold in it')
    protocol = content.get("protocol", "custom")
    check_choice(f"{path}: protocol", protocol, PROTOCOLS)
    return protocol, entries


def shared(folds: Sequence[Fold], utterances: Sequence[Utterance]) -> dict[str, int]:
    """Counts what training and test share.

    Returns:
        "speakers", "sentences" and "recordings": the number of those in test that are also in train
        or dev, summed over folds, without unknown (empty) ones. Recordings are 0 for all folds that
        this module made or read.
    """

    def count(fold: Fold, attribute: str) -> int:
        trained, tested = (
            {getattr(by_name[name], attribute) for name in names}
            for names in (fold.train + fold.dev, fold.test)
        )
        return len(trained & tested - {""})

    by_name = {utterance.name: utterance for utterance in utterances}
    return {kind: sum(count(fold, where) for fold in folds) for kind, where in _SHARED.items()}


def _check_protocol(protocol: str, count: int, select_on: str) -> None:
    check_choice("folds.protocol", protocol, PROTOCOLS)
    if protocol == "custom":
        raise ConfigError("folds.protocol", protocol, "another one where folds.file is empty")
    check_choice("select_on", select_on, SELECT_ON)
    if protocol == "whole_corpus" and select_on == "test":
        allowed = "'dev' or 'none' where folds.protocol is 'whole_corpus'"
        raise ConfigError("select_on", select_on, allowed)
    check_number("folds.count", count, int, 2 if protocol in _UNITS else 1, _MOST)


def _check_corpus(
    utterances: Sequence[Utterance], protocol: str, count: int, select_on: str
) -> None:
    _check_protocol(protocol, count, select_on)
    if repeated := _repeated(utterance.name for utterance in utterances):
        raise ValueError(f"two utterances of the corpus are called {repeated!r}: rename one")
    if protocol == "stratified" and 2 <= len(utterances) < count:
        raise ConfigError("folds.count", count, f"at most {len(utterances)}, one an utterance")
    # The smallest corpus of which three tenths are one utterance has four.
    needed = 4 if protocol == "split_70_30" else 2
    if len(utterances) < needed:
        raise ValueError(f"{protocol!r} needs {needed} utterances and has {len(utterances)}")
    speakers = {utterance.speaker for utterance in utterances}
    if protocol in ("speakers", "leave_one_speaker_out") and len(speakers) < 2:
        raise ValueError(f"{protocol!r} needs at least 2 speakers: {speakers} is the only one")
    if protocol == "sentences" and not _has_sentences(utterances):
        raise ValueError(
            "'sentences' needs at least 2 sentences, and the sentence of every utterance: "
            "choose another protocol for this corpus"
        )


def _test_splits(
    utterances: Sequence[Utterance], protocol: str, count: int, seed: int
) -> list[set[str]]:
    if protocol == "whole_corpus":
        return [set()]
    if protocol == "leave_one_speaker_out":
        speakers = sorted({utterance.speaker for utterance in utterances})
        return [{u.name for u in utterances if u.speaker == speaker} for speaker in speakers]
    if protocol == "split_70_30":
        return [_three_tenths(utterances, f"{seed}:split {index}") for index in range(count)]
    return _deal(utterances, protocol, count, f"{seed}:test")


def _dev_rule(training: Sequence[Utterance], protocol: str) -> str:
    """Returns the protocol's rule or, if the training utterances are too uniform, the next."""
    # Two speakers are too few to take one for dev, unless the protocol asks for it.
    enough = 3 if protocol == "whole_corpus" else 2
    if protocol in ("stratified", "split_70_30"):
        return "stratified"
    if protocol != "sentences" and len({u.speaker for u in training}) >= enough:
        return "speakers"
    return "sentences" if _has_sentences(training) else "stratified"


def _has_sentences(utterances: Sequence[Utterance]) -> bool:
    sentences = {utterance.sentence for utterance in utterances}
    return len(sentences) >= 2 and "" not in sentences


def _deal(utterances: Sequence[Utterance], rule: str, count: int, key: str) -> list[set[str]]:
    """Deals shuffled units into `count` parts, or into one part a unit if those are fewer.

    Files are dealt label by label and speakers gender by gender, and each label or gender goes on
    where the one before ended. The sizes of two parts therefore differ by at most one, and so do
    their numbers of a label or gender.
    """
    unit = attrgetter(_UNITS[rule])
    order = _shuffled(utterances, unit, key)
    if rule == "stratified":
        order = _by_label(utterances, key)
    elif rule == "speakers":
        gender = {utterance.speaker: utterance.gender for utterance in utterances}
        order = sorted(order, key=gender.get)
    count = min(count, len(order))
    part = {name: position % count for position, name in enumerate(order)}
    return [{u.name for u in utterances if part[unit(u)] == index} for index in range(count)]


def _three_tenths(utterances: Sequence[Utterance], key: str) -> set[str]:
    """Takes each position at which 0.3 x position passes a whole number: 30 % of each label."""
    order = _by_label(utterances, key)
    return {name for i, name in enumerate(order) if (i + 1) * 3 // 10 > i * 3 // 10}


def _by_label(utterances: Sequence[Utterance], key: str) -> list[str]:
    labels = {utterance.name: utterance.label for utterance in utterances}
    return sorted(_shuffled(utterances, attrgetter("name"), key), key=labels.get)


def _shuffled(utterances: Sequence[Utterance], unit: attrgetter, key: str) -> list[str]:
    return sorted(
        {unit(utterance) for utterance in utterances},
        key=lambda name: hashlib.sha256(f"{key}:{name}".encode()).digest(),
    )


def _read_fold(entry: object, known: set[str], optional: set[str]) -> Fold:
    if not isinstance(entry, dict):
        raise ValueError('it must be an object with "train", "dev" and "test"')
    splits = {split: _read_split(entry.get(split, []), split, known) for split in SPLITS}
    for split, names in splits.items():
        if not names and split not in optional:
            raise ValueError(f'"{split}" is missing or empty: name its utterances')
    if repeated := _repeated(name for names in splits.values() for name in names):
        places = " and ".join(split for split, names in splits.items() if repeated in names)
        raise ValueError(f"{repeated!r} is in both {places}: leave it in one")
    return Fold(**splits, dev_rule=str(entry.get("dev_rule", "")))


def _read_table(path: Path) -> list[dict[str, list[str]]]:
    """Reads a table of folds as the entries of a folds.json."""
    table = tables.read(path)
    columns = tables.find_columns(table, _COLUMNS, tuple(_COLUMNS))
    given = {}
    for line, cells in table.rows:
        name, fold = (cells[columns[field]] for field in _COLUMNS)
        if not name or not fold:
            raise ValueError(f"{path}, line {line}: give each utterance its name and its fold")
        if name in given:
            raise ValueError(f"{path}, line {line}: {name!r} is listed a second time")
        given[name] = fold
    if not given:
        raise ValueError(f"{path} has no rows: give each utterance its name and its fold")
    try:
        return _divide(given)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _read_split(names: object, split: str, known: set[str]) -> tuple[str, ...]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f'"{split}" must be a list of utterance names')
    unknown = [name for name in names if name not in known]
    if unknown:
        shown = ", ".join(map(repr, unknown[:SHOWN]))
        more = f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
        raise ValueError(f'"{split}" names {shown}{more}, which the corpus does not have')
    if repeated := _repeated(names):
        raise ValueError(f'"{split}" names {repeated!r} twice')
    return _sorted(names)


def _repeated(names: Iterable[str]) -> str | None:
    """Returns a name that occurs more than once, if there is one."""
    return next((name for name, times in Counter(names).items() if times > 1), None)


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(names))
