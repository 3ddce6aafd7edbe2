"""Divides a corpus into folds: which utterances train, which choose the epoch, and which test."""

import dataclasses
import hashlib
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter

from ds_jax.data import leakage
from ds_jax.data.corpus import Utterance
from ds_jax.runtime.errors import ConfigError, check_choice, check_number
from ds_jax.runtime.progress import many

PROTOCOLS = {
    "stratified": "folds over files with balanced labels, whoever speaks and whatever is said",
    "split_70_30": "independent splits of the files, 70 % training and 30 % test, labels balanced",
    "speakers": "folds of whole speakers: nobody is heard in both training and test",
    "leave_one_speaker_out": "one fold a speaker, who is heard in its test only",
    "sentences": "folds of whole sentences: no text is spoken in both training and test",
    "genders": "folds of whole genders, children apart: training and test share none of them",
    "whole_corpus": "one model from the whole corpus, to be tested on other corpora",
    "custom": "folds that a file or the corpus itself gives",
}
SPLITS = ("train", "dev", "test")
# Which split may choose the epoch; "none": nothing does, and the last epoch counts.
SELECT_ON = ("dev", "test", "none")

# The attribute of an utterance by which a rule keeps utterances together.
_UNITS = {
    "stratified": "name",
    "speakers": "speaker",
    "sentences": "sentence",
    "genders": "gender",
}
# Dev is a part of this many of the training utterances, whatever the number of folds.
_DEV_PARTS = 10
_MOST = 100_000  # folds


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

    A recording that the corpus holds under several names, or in parts that overlap, is left out of
    train and dev where test holds it, and out of train where dev does.

    Args:
        utterances: All utterances of the corpus.
        protocol: A key of `PROTOCOLS` except "custom".
        count: The number of folds or splits. Each unit, such as a speaker, gives at most one fold;
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
            rule, dev = take_dev(training, protocol, index, seed)
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


def take_dev(
    training: Sequence[Utterance], protocol: str, index: int, seed: int
) -> tuple[str, set[str]]:
    """Chooses the dev of a fold.

    Args:
        training: The utterances of the fold that are not tested.
        protocol, seed: As for `make_folds`.
        index: The number of the fold.

    Returns:
        The rule, and names among the training utterances.
    """
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


def shared(folds: Sequence[Fold], utterances: Sequence[Utterance]) -> dict[str, int | None]:
    """Counts what training and test share.

    Returns:
        "speakers", "sentences" and "recordings": the number of those in test that are also in train
        or dev, summed over folds. Where none of those that are known is, and others are unknown
        (empty), it is None. Recordings are 0 for all folds that this module made, or `fold_files`
        read.
    """
    by_name, counts = {utterance.name: utterance for utterance in utterances}, Counter()
    unknown = set()
    for fold in folds:
        trained = fold.train + fold.dev
        for kind, where in (("speakers", "speaker"), ("sentences", "sentence")):
            first, second = (
                {getattr(by_name[name], where) for name in s} for s in (trained, fold.test)
            )
            counts[kind] += len((first & second) - {""})
            unknown |= {kind} if "" in first | second else set()
        known = leakage.same_recordings(trained, utterances)
        counts["recordings"] += len(known.intersection(fold.test))
    return {
        kind: None if kind in unknown and not counts[kind] else counts[kind]
        for kind in ("speakers", "sentences", "recordings")
    }


def excluded_duplicates(folds: Sequence[Fold], utterances: Sequence[Utterance]) -> set[str]:
    """Finds the utterances that a fold excludes since its dev or test shares their sound."""
    excluded = set()
    for fold in folds:
        held_out = {*fold.dev, *fold.test}
        excluded |= leakage.same_recordings(held_out, utterances) - held_out - {*fold.train}
    return excluded


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
    if name := repeated(utterance.name for utterance in utterances):
        raise ValueError(f"two utterances of the corpus are called {name!r}: rename one")
    if protocol == "stratified" and 2 <= len(utterances) < count:
        raise ConfigError("folds.count", count, f"at most {len(utterances)}, one an utterance")
    # The smallest corpus of which three tenths are one utterance has four.
    needed = 4 if protocol == "split_70_30" else 2
    if len(utterances) < needed:
        raise ValueError(f"{protocol!r} needs {needed} utterances and has {len(utterances)}")
    speakers = {utterance.speaker for utterance in utterances}
    if protocol in ("speakers", "leave_one_speaker_out"):
        if "" in speakers:
            raise ValueError(
                f"{protocol!r} needs the speaker of every utterance, and some are unknown: choose "
                "'sentences' or 'genders'"
            )
        if len(speakers) < 2:
            raise ValueError(
                f"{protocol!r} needs at least 2 speakers, and {min(speakers)!r} is the only one: "
                "choose another protocol for this corpus"
            )
    genders = {utterance.gender for utterance in utterances}
    if protocol == "genders" and (len(genders) < 2 or "unknown" in genders):
        raise ValueError(
            "'genders' needs at least 2 genders, and the gender of every utterance: choose another "
            "protocol for this corpus"
        )
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
    speakers = {utterance.speaker for utterance in training}
    if protocol != "sentences" and len(speakers) >= enough and "" not in speakers:
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


def repeated(names: Iterable[str]) -> str | None:
    """Returns a name that occurs more than once, if there is one."""
    return next((name for name, times in Counter(names).items() if times > 1), None)


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(names))
