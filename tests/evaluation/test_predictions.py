"""predictions.csv keeps every bit, and a file that is not right is refused."""

import dataclasses

import numpy as np
import pytest

from ds_jax.data.corpus import Utterance
from ds_jax.data.labels import LABELS
from ds_jax.evaluation import predictions
from ds_jax.evaluation.predictions import COLUMNS, Predicted, concatenate, read
from ds_jax.runtime import files

NAMES = ["b,1", 'a "quoted" one', "niño/02", "z\nz", "c d"]
HEADER = (
    "utterance,speaker,sentence,style,label,prediction,"
    "ANGER,DISGUST,FEAR,JOY,NEUTRAL,SADNESS,SURPRISE"
)


def some(names=NAMES):
    return [
        Utterance(name, LABELS[i % 7], f"voz, {i}", "female", "", "normal", 1.0)
        for i, name in enumerate(names)
    ]


def write(path, utterances, probabilities):
    """Writes predictions.csv under another name."""
    predictions.write(path.parent, utterances, Predicted(probabilities, {}, {}), LABELS)
    (path.parent / "predictions.csv").rename(path)


def distributions(count, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(7), count)


@pytest.fixture
def path(tmp_path):
    """A file of five utterances."""
    write(tmp_path / "p.csv", some(), distributions(5))
    return tmp_path / "p.csv"


def test_what_was_written_is_read_bit_for_bit(path):
    utterances, probabilities = some(), distributions(5)
    found = read(path)
    order = sorted(range(5), key=lambda i: NAMES[i])
    assert found.utterances.tolist() == [NAMES[i] for i in order]
    assert found.speakers.tolist() == [utterances[i].speaker for i in order]
    assert found.sentences.tolist() == [""] * 5
    assert found.styles.tolist() == ["normal"] * 5
    assert [LABELS[i] for i in found.labels] == [utterances[i].label for i in order]
    assert found.probabilities.dtype == np.float64
    np.testing.assert_array_equal(found.probabilities, probabilities[order])
    np.testing.assert_array_equal(found.predictions, probabilities[order].argmax(1))


def test_the_header_is_the_agreed_one(path):
    assert path.read_text(encoding="utf-8").splitlines()[0] == HEADER
    assert ",".join((*COLUMNS, *LABELS)) == HEADER


def test_classes_may_be_any_and_are_the_same_in_all_folds(tmp_path):
    one = [dataclasses.replace(some()[0], label="calm, or bored")]
    shares = Predicted(np.asarray([[0.25, 0.75]]), {}, {})
    for name, classes in (("a", ("calm, or bored", "glad")), ("b", ("glad", "calm, or bored"))):
        predictions.write(tmp_path / name, one, shares, classes)
        found = read(tmp_path / name / "predictions.csv")
        assert (found.classes, found.confusion.sum()) == (classes, 1)
        assert found.labels.tolist() == [classes.index("calm, or bored")]
    with pytest.raises(ValueError, match="different classes"):
        predictions.read_pooled([tmp_path / "a", tmp_path / "b"])


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_the_most_probable_label_survives_however_close_the_next_is(tmp_path, kind):
    probabilities = np.full((2, 7), 1 / 7, kind)
    probabilities[0, 4] = np.nextafter(probabilities[0, 4], kind(1))
    write(tmp_path / "p.csv", some()[:2], probabilities)
    found = read(tmp_path / "p.csv")
    assert dict(zip(found.utterances.tolist(), found.predictions.tolist(), strict=True)) == {
        NAMES[0]: 4,
        NAMES[1]: 0,
    }


def test_the_bytes_do_not_depend_on_the_order_of_the_rows(tmp_path):
    utterances, probabilities = some(), distributions(5)
    write(tmp_path / "one.csv", utterances, probabilities)
    write(tmp_path / "other.csv", utterances[::-1], probabilities[::-1])
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "other.csv").read_bytes()
    assert b"\r" not in (tmp_path / "one.csv").read_bytes()


def test_no_utterances_are_a_file_of_none(tmp_path):
    write(tmp_path / "p.csv", [], np.zeros((0, 7)))
    found = read(tmp_path / "p.csv")
    assert found.probabilities.shape == (0, 7)
    assert found.predictions.shape == found.labels.shape == found.speakers.shape == (0,)


def test_pooling_keeps_every_row_of_an_utterance_tested_twice(tmp_path):
    for fold in range(2):
        write(tmp_path / f"{fold}.csv", some(), distributions(5, fold))
    parts = [read(tmp_path / f"{fold}.csv") for fold in range(2)]
    pooled = concatenate(parts)
    assert pooled.utterances.tolist() == sorted(NAMES) * 2
    np.testing.assert_array_equal(pooled.probabilities[5:], parts[1].probabilities)
    np.testing.assert_array_equal(pooled.labels[:5], parts[0].labels)


def test_head_files_and_gates_are_read_again(tmp_path):
    utterances, probabilities = some(), distributions(5)
    gate = np.arange(5, dtype=np.float32)[:, None, None] * np.ones((5, 3, 2), np.float32)
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n')
    heads = {"block4": distributions(5, 1), "block5": distributions(5, 2)}
    predictions.write(
        tmp_path, utterances, Predicted(probabilities, heads, {"block4": gate}), LABELS
    )
    assert {path.name for path in tmp_path.iterdir()} == {
        *("predictions.csv", "predictions_block4.csv", "predictions_block5.csv"),
        *("gates.npz", "metrics.jsonl", "checksums.json"),
    }
    pooled = predictions.read_heads([tmp_path, tmp_path])
    order = sorted(range(5), key=lambda i: NAMES[i])
    for name, expected in heads.items():
        np.testing.assert_array_equal(pooled[name].probabilities, np.tile(expected[order], (2, 1)))
    for number, name in enumerate(NAMES):
        gates = predictions.read_gates(tmp_path, name)
        assert list(gates) == ["block4"]
        np.testing.assert_array_equal(gates["block4"], np.full((3, 2), number))
    assert predictions.read_metrics(tmp_path) == [{"epoch": 1}, {"epoch": 2}]
    assert predictions.read_gates(tmp_path / "none", "b,1") == {}
    assert not files.find_damage(tmp_path)
    for name in ("predictions.csv", "gates.npz", "metrics.jsonl"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes() + b" ")
    for function in (predictions.read_metrics, lambda path: predictions.read_gates(path, "b,1")):
        with pytest.raises(ValueError, match=str(tmp_path)):
            function(tmp_path)
    with pytest.raises(ValueError, match=r"predictions\.csv"):
        predictions.read_pooled([tmp_path])


def test_rows_are_kept_whole(path):
    found = read(path)
    kept = found.keep(found.labels == 2)
    assert kept.utterances.tolist() == ["niño/02"]
    assert kept.speakers.tolist() == ["voz, 2"]
    assert kept.probabilities.shape == (1, 7)


def test_a_byte_order_mark_is_read_over(path):
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(read(path).labels) == 5


GOOD = "u1,s,t,normal,JOY,ANGER,0.4,0.1,0.1,0.1,0.1,0.1,0.1"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 1),
        (HEADER.replace("style,label", "label,style"), 1),
        (HEADER.replace("FEAR", "JOY"), 1),
        (",".join(HEADER.split(",")[:7]), 1),
        (f"{HEADER}\n{GOOD},0", 2),
        (f"{HEADER}\n{GOOD}\n\n", 3),
        (f"{HEADER}\n{GOOD}\n{GOOD}", 3),
        (f"{HEADER}\n{GOOD.replace('JOY', 'joy')}", 2),
        (f"{HEADER}\n{GOOD.replace('ANGER', 'BOREDOM')}", 2),
        (f"{HEADER}\n{GOOD.replace('ANGER', 'FEAR')}", 2),
        (f"{HEADER}\n{GOOD.replace('0.4', 'many')}", 2),
        (f"{HEADER}\n{GOOD.replace('0.4', 'nan')}", 2),
        (f"{HEADER}\n{GOOD.replace('0.4', 'inf')}", 2),
        (f"{HEADER}\n{GOOD.replace('0.4', '0.6')}", 2),
        (f"{HEADER}\n{GOOD[:-3]}-0.1", 2),
        ("\udcff\udcfe", 1),
    ],
)
def test_a_bad_file_is_an_error_that_names_file_and_line(tmp_path, text, line):
    path = tmp_path / "p.csv"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=rf"p\.csv, line {line}: "):
        read(path)


@pytest.mark.parametrize(
    ("utterances", "probabilities"),
    [
        (some(), distributions(4)),
        (some(), distributions(5)[:, :6]),
        (some(), distributions(5) * np.nan),
        (some(), distributions(5) * 2),
        (some(["a", "a"]), distributions(2)),
    ],
)
def test_what_is_not_a_distribution_is_not_written(tmp_path, utterances, probabilities):
    with pytest.raises(ValueError, match=r"predictions\.csv"):
        write(tmp_path / "p.csv", utterances, probabilities)
    assert not list(tmp_path.iterdir())
