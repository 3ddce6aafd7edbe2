"""Protocols: which utterances train, which choose the epoch, and which test."""

import dataclasses
import difflib
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from operator import attrgetter
from pathlib import Path

from ds_jax.data import leakage
from ds_jax.data.corpus import Utterance
from ds_jax.runtime.files import read_json, write_json

PROTOCOLS = {
    "stratified": "folds over files with balanced labels, whoever speaks and whatever is said",
    "split_70_30": "independent splits of the files, 70 % training and 30 % test, labels balanced",
    "speakers": "folds of whole speakers: nobody is heard in both training and test",
    "leave_one_speaker_out": "one fold a speaker, who is heard in its test only",
    "sentences": "folds of whole sentences: no text is spoken in both training and test",
    "whole_corpus": "one model from the whole corpus, to be tested on other corpora",
    "custom": "folds given in a file",
}

# What is dealt out whole under each rule.
_UNITS = {"stratified": "name", "speakers": "speaker", "sentences": "sentence"}
# The development set is one of this many parts of the training side, whatever the fold count.
_DEV_PARTS = 10
_MOST = 100_000  # folds
# What no fold of these protocols has on both sides.
_DISJOINT = {"speakers": ("speakers", "leave_one_speaker_out"), "sentences": ("sentences",)}
SPLITS = ("train", "dev", "test")
# What the sides of a fold may share, and where an utterance says it.
_SHARED = {"speakers": "speaker", "sentences": "sentence", "recordings": "digest"}


@dataclasses.dataclass(frozen=True)
class Fold:
    """One division of a corpus into sides.

    Attributes:
        train: Sorted names of the utterances that are learnt from.
        dev: Sorted names of those that choose the epoch; empty where the test side does.
        test: Sorted names of those that are scored.
        dev_rule: How dev was taken from the training side: "stratified", "speakers" or
            "sentences"; empty without a dev side and where a file does not say.
    """

    train: tuple[str, ...]
    dev: tuple[str, ...]
    test: tuple[str, ...]
    dev_rule: str = ""

    @property
    def splits(self) -> dict[str, tuple[str, ...]]:
        """Each side by its name."""
        return {side: getattr(self, side) for side in SPLITS}


def check(made: Mapping, select_on: str) -> None:
    """Checks what can be checked of `config.folds` without the corpus.

    Raises:
        ValueError: A field is impossible.
    """
    if made["file"]:
        return  # it has a protocol and a count of its own
    _check_protocol(made["protocol"], made["count"], select_on)


def make_folds(
    utterances: Sequence[Utterance], protocol: str, count: int, seed: int, select_on: str = "dev"
) -> list[Fold]:
    """Divides a corpus by a protocol, equally on every machine.

    The order is that of SHA-256 digests of seed, purpose and name, dealt out like cards, so it
    depends neither on the order of `utterances` nor on any library's random numbers.

    A recording that the corpus holds under several names is left out of train and dev where test
    holds it, and out of train where dev does.

    Args:
        utterances: All utterances of the corpus.
        protocol: One of `PROTOCOLS` but "custom".
        count: How many folds or splits. Speakers and sentences give as many folds as there are
            of them if those are fewer; leave_one_speaker_out and whole_corpus do not use it.
        seed: Another seed deals differently.
        select_on: "dev" takes a development set from the training side, about a tenth of it, by
            the protocol's own rule: whole speakers, else whole sentences, else files. "test"
            leaves it empty: the paper's way, in which the test side chooses the epoch.

    Raises:
        ValueError: The protocol is unknown or the corpus cannot be divided by it.
    """
    utterances = sorted(utterances, key=attrgetter("name"))
    _check(utterances, protocol, count, select_on)
    folds = []
    for index, test in enumerate(_test_sides(utterances, protocol, count, seed)):
        training = [utterance for utterance in utterances if utterance.name not in test]
        rule, dev = "", set()
        if select_on == "dev":
            rule = _dev_rule(training, protocol)
            parts = _deal(training, rule, _DEV_PARTS, f"{seed}:dev {index}")
            dev = parts[index % len(parts)]  # in turn, so that women and men both choose
        train = {utterance.name for utterance in training} - dev
        dev -= leakage.same_recordings(test, utterances)
        train -= leakage.same_recordings(test | dev, utterances)
        if not train or (rule and not dev):
            raise ValueError(
                f"{len(utterances)} utterances are too few for protocol {protocol!r}: "
                f"nothing is left to train fold {index} on, or to choose its epoch on"
            )
        folds.append(Fold(_sorted(train), _sorted(dev), _sorted(test), rule))
    return folds


def inner_folds(
    utterances: Sequence[Utterance], fold: Fold, protocol: str, count: int, seed: int
) -> list[tuple[str, ...]]:
    """Divides a fold's training side once more, for what is chosen by an inner cross-validation.

    Args:
        utterances: All utterances of the corpus.
        fold: Whose train and dev are divided.
        protocol: That the fold was made by. The division keeps together what it keeps together:
            speakers, else sentences, else it balances labels over files.
        count: How many parts, or one a speaker or sentence if those are fewer.
        seed: Another seed deals differently.

    Returns:
        For each inner fold the sorted names that it holds out; the others are fitted.

    Raises:
        ValueError: The training side has a single utterance.
    """
    names = {*fold.train, *fold.dev}
    training = [utterance for utterance in utterances if utterance.name in names]
    if len(training) < 2:
        raise ValueError(f"a training side of {len(training)} utterance cannot be divided")
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
    """Writes folds.json; with it, of all utterances, by what their recordings are known again."""
    content = {"corpus": corpus, "protocol": protocol, "seed": seed, "select_on": select_on}
    content |= {"folds": [dataclasses.asdict(fold) for fold in folds]}
    digests = {utterance.name: utterance.digest for utterance in utterances if utterance.digest}
    write_json(path, content | {"digests": digests}, sealed=True)


def read_folds(
    path: str | Path, utterances: Sequence[Utterance], select_on: str = "dev", own: bool = False
) -> tuple[str, list[Fold]]:
    """Reads folds.json, one written here or one's own, and uses it as it is.

    The least a file must hold is `{"folds": [{"train": [names], "dev": [names], "test":
    [names]}]}`; "dev" may be left out where `select_on` is "test". Not every utterance need occur,
    but no recording may occur on two sides.

    Args:
        path: The file.
        utterances: All of the corpus.
        select_on: As in `make_folds`.
        own: Whether it is of a run on this corpus, whose recordings must be those of then.

    Returns:
        The file's protocol, "custom" if it names none, and the folds.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not of that form or does not fit the corpus.
        leaks.LeakError: A recording is on two sides of a fold.
    """
    protocol, entries = read_entries(path)
    if own:
        try:
            leakage.check_recordings(read_json(path).get("digests", {}), utterances)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    known = {utterance.name for utterance in utterances}
    optional = {"dev"} if select_on == "test" else set()
    if protocol == "whole_corpus" and select_on == "dev":
        optional.add("test")
    folds = []
    for index, entry in enumerate(entries):
        try:
            folds.append(_read_fold(entry, known, optional))
            leakage.check_splits(folds[-1].splits, utterances)
        except ValueError as error:
            raise type(error)(f"{path}, fold {index}: {error}") from error
    common = shared(folds, utterances)
    for kind, protocols in _DISJOINT.items():
        if protocol in protocols and common[kind]:
            raise ValueError(
                f"{path}: its protocol is {protocol!r}, but {common[kind]} {kind} are on both "
                'sides: correct the folds, or leave "protocol" out'
            )
    return protocol, folds


def read_entries(path: str | Path) -> tuple[str, list]:
    """Reads the protocol and the list of folds in a folds.json, whatever corpus they are of.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file holds no list of folds.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file of folds at {path}: correct the path")
    content = read_json(path)
    entries = content.get("folds")
    if not isinstance(entries, list) or not entries:
        raise ValueError(f'{path} needs a list "folds" with at least one fold in it')
    protocol = content.get("protocol", "custom")
    if protocol not in list(PROTOCOLS):  # A list, since JSON may give something unhashable.
        raise ValueError(f"{path}: {_unknown_protocol(protocol)}")
    return protocol, entries


def shared(folds: Sequence[Fold], utterances: Sequence[Utterance]) -> dict[str, int]:
    """Counts what the sides share.

    Returns:
        "speakers", "sentences" and "recordings": how many of a test side's are also in its train
        or dev, summed over folds. Unknown (empty) ones do not count. Shared recordings are 0 in
        all folds that were made or read here.
    """

    def common(fold: Fold, of: dict[str, str]) -> int:
        heard = {of[name] for name in fold.train + fold.dev}
        return len(heard & {of[name] for name in fold.test} - {""})

    counts = {}
    for kind, attribute in _SHARED.items():
        of = {utterance.name: getattr(utterance, attribute) for utterance in utterances}
        counts[kind] = sum(common(fold, of) for fold in folds)
    return counts


def _check_protocol(protocol: str, count: int, select_on: str) -> None:
    if protocol == "custom":
        raise ValueError("folds.protocol='custom' is that of a file: name one in folds.file")
    if protocol not in PROTOCOLS:
        raise ValueError(f"folds.protocol={protocol!r}: {_unknown_protocol(protocol)}")
    if select_on not in ("dev", "test"):
        raise ValueError(f"select_on is {select_on!r}: it must be 'dev' or 'test'")
    if protocol == "whole_corpus" and select_on == "test":
        raise ValueError(
            "folds.protocol='whole_corpus' has no test side to choose the epoch on: take "
            "select_on='dev'"
        )
    if count < 2 and protocol in _UNITS:
        raise ValueError(f"folds.count={count}: {protocol!r} needs at least 2 folds, not {count}")
    if count < 1:
        raise ValueError(f"folds.count={count}: {protocol!r} needs at least 1 split")
    if count > _MOST:
        raise ValueError(f"folds.count={count} must be at most {_MOST}")


def _check(utterances: Sequence[Utterance], protocol: str, count: int, select_on: str) -> None:
    _check_protocol(protocol, count, select_on)
    repeated = _repeated([utterance.name for utterance in utterances])
    if repeated:
        raise ValueError(f"two utterances of the corpus are called {repeated!r}: rename one")
    # The smallest corpus of which three tenths are one utterance has four.
    needed = {"stratified": count, "split_70_30": 4}.get(protocol, 2)
    if len(utterances) < needed:
        raise ValueError(
            f"folds.count={count}: {protocol!r} needs {needed} utterances and has {len(utterances)}"
        )
    speakers = {utterance.speaker for utterance in utterances}
    if protocol in ("speakers", "leave_one_speaker_out") and len(speakers) < 2:
        raise ValueError(f"{protocol!r} needs at least 2 speakers: {speakers} is the only one")
    if protocol == "sentences" and not _divisible_by_sentence(utterances):
        raise ValueError(
            "'sentences' needs at least 2 sentences, and the sentence of every utterance: "
            "choose another protocol for this corpus"
        )


def _unknown_protocol(name: object) -> str:
    near = difflib.get_close_matches(str(name), PROTOCOLS, 1, 0)
    return f"there is no protocol {name!r}: did you mean {near[0]!r} (of {', '.join(PROTOCOLS)})?"


def _test_sides(
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
    """The protocol's own rule or, where the training side is too uniform for it, the next."""
    # Two speakers are too precious to spend one on choosing, unless the protocol asks for it.
    enough = 3 if protocol == "whole_corpus" else 2
    if protocol in ("stratified", "split_70_30"):
        return "stratified"
    if protocol != "sentences" and len({u.speaker for u in training}) >= enough:
        return "speakers"
    return "sentences" if _divisible_by_sentence(training) else "stratified"


def _divisible_by_sentence(utterances: Sequence[Utterance]) -> bool:
    sentences = {utterance.sentence for utterance in utterances}
    return len(sentences) >= 2 and "" not in sentences


def _deal(utterances: Sequence[Utterance], rule: str, count: int, key: str) -> list[set[str]]:
    """Deals shuffled units into `count` parts, or one part a unit if those are fewer.

    Files are dealt label by label and speakers gender by gender, without starting anew, so neither
    a part's size nor its share of a label or gender is more than one above another's.
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
    """Every position at which 0.3 x position passes a whole number: 30 % of each label."""
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
    sides = {side: _read_side(entry.get(side, []), side, known) for side in SPLITS}
    for side in SPLITS:
        if not sides[side] and side not in optional:
            advice = ' or choose the epoch with select_on="test"' if side == "dev" else ""
            raise ValueError(f'"{side}" is missing or empty: name its utterances{advice}')
    repeated = _repeated([name for side in SPLITS for name in sides[side]])
    if repeated:
        where = " and ".join(side for side in SPLITS if repeated in sides[side])
        raise ValueError(f"{repeated!r} is in both {where}: leave it in one")
    return Fold(**sides, dev_rule=str(entry.get("dev_rule", "")))


def _read_side(names: object, side: str, known: set[str]) -> tuple[str, ...]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f'"{side}" must be a list of utterance names')
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f'"{side}" names {unknown[0]!r}, which the corpus does not have')
    repeated = _repeated(names)
    if repeated:
        raise ValueError(f'"{side}" names {repeated!r} twice')
    return _sorted(names)


def _repeated(names: Sequence[str]) -> str | None:
    """A name that occurs more than once, if any."""
    return next((name for name, times in Counter(names).items() if times > 1), None)


def _sorted(names: Sequence[str] | set[str]) -> tuple[str, ...]:
    return tuple(sorted(names))
