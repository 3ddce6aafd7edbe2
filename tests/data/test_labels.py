"""Labels in four languages stand for the classes of a run."""

import pytest
from refusals import refused_field

from ds_jax.data.labels import LABELS, WORDS, check, classes_of_labels
from ds_jax.data.names import normalise


@pytest.mark.parametrize(
    ("label", "normal"),
    [
        ("Alegría", "alegria"),
        (" HOT_Anger ", "hot anger"),
        ("Überraschung", "uberraschung"),
        ("3.0", "3"),  # as spreadsheets write numbers
        ("-1", "-1"),
        ("-1.0", "-1"),
        ("joy+", "joy+"),
        ("joy-", "joy-"),
    ],
)
def test_case_accents_and_spaces_make_no_difference(label, normal):
    assert normalise(label) == normal


def test_no_word_stands_for_two_emotions():
    words = [word for text in WORDS.values() for word in text.split()]
    assert len(words) == len(set(words))
    assert words == [normalise(word) for word in words]
    assert tuple(WORDS) == LABELS == tuple(sorted(LABELS))


@pytest.mark.parametrize(
    ("label", "emotion"),
    [
        ("angry", "ANGER"),
        ("Ira", "ANGER"),
        ("Ärger", "ANGER"),
        ("asco", "DISGUST"),
        ("Ekel", "DISGUST"),
        ("paura", "FEAR"),
        ("Alegría", "JOY"),
        ("felicità", "JOY"),
        ("neutro", "NEUTRAL"),
        ("Traurigkeit", "SADNESS"),
        ("sorpresa", "SURPRISE"),
    ],
)
def test_the_seven_are_known_in_four_languages(label, emotion):
    assert classes_of_labels(LABELS, ())[normalise(label)] == emotion
    assert classes_of_labels((label, "boredom"), ())[normalise(emotion)] == label


def test_a_class_is_what_the_run_calls_it():
    known = classes_of_labels(("happy", "bored"), ())
    assert known["alegria"] == known["joy"] == known["happy"] == "happy"
    assert known["bored"] == "bored"
    assert "anger" not in known


def test_two_classes_of_one_emotion_are_known_by_their_names_alone():
    known = classes_of_labels(("happy", "joy"), ())
    assert (known["happy"], known["joy"]) == ("happy", "joy")
    assert "alegria" not in known


def test_numbers_have_a_class_by_the_map_alone():
    assert "3" not in classes_of_labels(LABELS, ())
    known = classes_of_labels(LABELS, ("3=JOY", "calm=", "a=b=FEAR", "ira=DISGUST"))
    assert (known["3"], known["calm"], known["a=b"]) == ("JOY", "", "FEAR")
    assert known["ira"] == "DISGUST"  # the map comes before all else


@pytest.mark.parametrize(
    "classes",
    [
        (),
        ("JOY",),
        ("JOY", "joy"),
        ("Alegría", "alegria"),
        ("JOY", " "),
        ("JOY", "Label"),
        ("JOY", "end"),
    ],
)
def test_impossible_classes_are_refused(classes):
    assert refused_field(check, classes, ()) == "classes"


@pytest.mark.parametrize("entries", [("3",), ("=JOY",), ("3=joy",), ("3=JOY", "3=FEAR")])
def test_impossible_maps_are_refused(entries):
    assert refused_field(check, LABELS, entries) == "label_map"


def test_the_default_and_a_map_are_possible():
    check(LABELS, ())
    check(("happy", "calm"), ("3=happy", "4=", "3=happy"))


def test_marks_of_other_scripts_tell_labels_apart():
    assert len({normalise(label) for label in ("राम", "रीम", "かた", "がだ")}) == 4
    check(("राम", "रीम"), ())
