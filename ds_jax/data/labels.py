"""The classes of a run, and the labels of corpora that stand for them."""

import json
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence

from ds_jax.data.names import normalise
from ds_jax.runtime import progress
from ds_jax.runtime.errors import ConfigError

# The paper's seven emotions in alphabetical order, the classes of a run unless it names others.
LABELS = ("ANGER", "DISGUST", "FEAR", "JOY", "NEUTRAL", "SADNESS", "SURPRISE")
# Other words for them in English, Spanish, German and Italian, as `normalise` returns them.
WORDS = {
    "ANGER": "angry furious enfado enfadado enfadada enojo enojado enojada ira rabia colera "
    "wut wutend wuetend arger aerger argerlich aergerlich zorn zornig rabbia "
    "arrabbiato arrabbiata collera verargert veraergert",
    "DISGUST": "disgusted asco asqueado asqueada repugnancia ekel disgusto disgustato disgustata "
    "angewidert",
    "FEAR": "fearful afraid scared frightened miedo asustado asustada temor angst angstlich "
    "aengstlich furcht paura spaventato spaventata impaurito impaurita",
    "JOY": "joyful happy happiness alegria alegre contento contenta felicidad feliz freude "
    "freudig gluck glueck glucklich gluecklich frohlich froehlich gioia felicita "
    "felice allegria allegro allegra",
    "NEUTRAL": "neutrality neutro neutra neutralidad neutralitat neutralitaet neutrale neutralita",
    "SADNESS": "sad tristeza triste trauer traurig traurigkeit tristezza",
    "SURPRISE": "surprised sorpresa sorprendido sorprendida uberraschung ueberraschung uberrascht "
    "ueberrascht sorpreso",
}
# A run's classes are columns of its predictions.csv, beside these, and of what predict prints.
COLUMNS = ("utterance", "speaker", "sentence", "style", "label", "prediction")
RESERVED = (*COLUMNS, "recording", "start", "end")


def check(classes: Sequence[str], label_map: Sequence[str]) -> None:
    """Checks the fields `classes` and `label_map` of a config.

    Raises:
        ConfigError: There are not two classes, two are the same, or a name cannot be one; or an
            entry of the map is not `label=class`, names no class, or contradicts another.
    """
    names = [normalise(name) for name in classes]
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if len(classes) < 2 or repeated or not all(names) or set(names) & set(RESERVED):
        allowed = 'two or more names, such as ("anger", "calm"), all different without case and '
        allowed += "accents, and none empty or "
        raise ConfigError("classes", tuple(classes), f"{allowed}one of {', '.join(RESERVED)}")
    mapped = {}
    for entry in label_map:
        label, equals, name = entry.rpartition("=")
        if not (equals and normalise(label) and (not name or name in classes)):
            allowed = f"label=CLASS, with one of {', '.join(classes)}, or label= to leave it out"
            raise ConfigError("label_map", entry, allowed)
        if mapped.setdefault(normalise(label), name) != name:
            raise ConfigError("label_map", tuple(label_map), f"without two classes for {label!r}")


def classes_of_labels(classes: Sequence[str], label_map: Sequence[str]) -> dict[str, str]:
    """Returns the class of each label that is known, by the normalised label.

    A class is known by its name. Where it is one of the paper's seven emotions, by whichever word,
    it is known by all words for this emotion.

    Args:
        classes: The classes of a run.
        label_map: Entries such as "3=JOY"; "calm=" leaves utterances of this label out, and has the
            class "" here.
    """
    known = {}
    for emotion, text in WORDS.items():
        words = {normalise(emotion), *text.split()}
        named = [name for name in classes if normalise(name) in words]
        if len(named) == 1:  # of two, such as "happy" and "joy", each is known by its name alone
            known |= dict.fromkeys(words, named[0])
    known |= {normalise(name): name for name in classes}
    return known | entries(label_map)


def entries(label_map: Sequence[str]) -> dict[str, str]:
    """Returns the class that each entry of a map gives, or "", by the normalised label."""
    parts = (entry.rpartition("=") for entry in label_map)
    return {normalise(label): name for label, _, name in parts}


def check_found(
    name: str,
    found: Iterable[str],
    classes: Sequence[str],
    label_map: Sequence[str],
    all_known: bool,
) -> None:
    """Checks that the labels of a corpus stand for classes of a run.

    Args:
        name: The name of the corpus.
        found: The label of each utterance.
        classes, label_map: The fields of a config.
        all_known: Whether each label must stand for a class, or be left out by the map; else one
            that stands for a class is enough.

    Raises:
        ValueError: They do not; the message names those that stand for no class.
    """
    known, counts = classes_of_labels(classes, label_map), Counter(found)
    present = {known[normalise(label)] for label in counts if known.get(normalise(label))}
    if present and not all_known:
        return
    if present:
        counts = {label: n for label, n in counts.items() if normalise(label) not in known}
    if not counts:
        return
    others = {normalise(label): label for label in sorted(counts)}.values()
    wanted = [*sorted(present), *others]
    advice = f"To tell these apart too give {classes_flag(wanted)}; or g" if wanted[1:] else "G"
    raise ValueError(
        f"{name} has labels that stand for no class: {progress.counts(counts)}. The run tells "
        f"{', '.join(classes)} apart. {advice}ive labels a class or none by config.label_map, such "
        'as ("3=JOY", "calm=")'
    )


def classes_flag(names: Iterable[str]) -> str:
    """Returns the flag by which a run tells some classes apart, as a shell takes it."""
    listed = ",".join(json.dumps(name, ensure_ascii=False) for name in names)
    return f"--config.classes={shlex.quote(f'({listed})')}"
