import numpy as np
import pytest

from ds_jax.data.corpus import LABELS, Utterance
from ds_jax.evaluation.predictions import COLUMNS, concatenate, read, write

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


def distributions(count, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(7), count)


def test_what_was_written_is_read_bit_for_bit(tmp_path):
    utterances, probabilities = some(), distributions(5)
    write(tmp_path / "p.csv", utterances, probabilities)
    found = read(tmp_path / "p.csv")
    order = sorted(range(5), key=lambda i: NAMES[i])
    assert found.utterances.tolist() == [NAMES[i] for i in order]
    assert found.speakers.tolist() == [utterances[i].speaker for i in order]
    assert found.sentences.tolist() == [""] * 5
    assert found.styles.tolist() == ["normal"] * 5
    assert [LABELS[i] for i in found.labels] == [utterances[i].label for i in order]
    assert found.probabilities.dtype == np.float64
    np.testing.assert_array_equal(found.probabilities, probabilities[order])
    np.testing.assert_array_equal(found.predictions, probabilities[order].argmax(1))


def test_the_header_is_the_agreed_one(tmp_path):
    write(tmp_path / "p.csv", some(), distributions(5))
    assert (tmp_path / "p.csv").read_text(encoding="utf-8").splitlines()[0] == HEADER
    assert ",".join(COLUMNS) == HEADER


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


def test_rows_are_kept_whole(tmp_path):
    write(tmp_path / "p.csv", some(), distributions(5))
    found = read(tmp_path / "p.csv")
    kept = found.keep(found.labels == 2)
    assert kept.utterances.tolist() == ["niño/02"]
    assert kept.speakers.tolist() == ["voz, 2"]
    assert kept.probabilities.shape == (1, 7)


def test_a_byte_order_mark_is_read_over(tmp_path):
    write(tmp_path / "p.csv", some(), distributions(5))
    before = (tmp_path / "p.csv").read_bytes()
    (tmp_path / "p.csv").write_bytes(b"\xef\xbb\xbf" + before)
    assert len(read(tmp_path / "p.csv").labels) == 5


GOOD = "u1,s,t,normal,JOY,ANGER,0.4,0.1,0.1,0.1,0.1,0.1,0.1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: the header must be utterance,speaker"),
        (HEADER.replace("FEAR,JOY", "JOY,FEAR"), "line 1: the header"),
        (HEADER + ",x", "line 1: the header"),
        (f"{HEADER}\n{GOOD},0", "line 2: there are 14 columns instead of 13"),
        (f"{HEADER}\n{GOOD}\n\n", "line 3: there are 0 columns"),
        (f"{HEADER}\n{GOOD}\n{GOOD}", "line 3: utterance 'u1' occurs twice"),
        (f"{HEADER}\n{GOOD.replace('JOY', 'joy')}", "line 2: 'joy' is not one of ANGER"),
        (f"{HEADER}\n{GOOD.replace('ANGER', 'BOREDOM')}", "line 2: 'BOREDOM' is not one"),
        (f"{HEADER}\n{GOOD.replace('ANGER', 'FEAR')}", "line 2: the prediction is FEAR, but ANG"),
        (f"{HEADER}\n{GOOD.replace('0.4', 'many')}", "line 2: could not convert .*'many'"),
        (f"{HEADER}\n{GOOD.replace('0.4', 'nan')}", "line 2: .*not probabilities"),
        (f"{HEADER}\n{GOOD.replace('0.4', 'inf')}", "line 2: .*not probabilities"),
        (f"{HEADER}\n{GOOD.replace('0.4', '0.6')}", "line 2: .*not probabilities that sum to 1"),
        (f"{HEADER}\n{GOOD[:-3]}-0.1", "line 2: .*not probabilities"),
    ],
)
def test_a_bad_file_is_an_error_that_names_file_and_line(tmp_path, text, message):
    path = tmp_path / "p.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read(path)
    assert str(path) in str(error.value)


def test_a_file_that_is_not_text_is_an_error_that_names_it(tmp_path):
    (tmp_path / "p.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"p\.csv, line 1"):
        read(tmp_path / "p.csv")


@pytest.mark.parametrize(
    ("utterances", "probabilities", "message"),
    [
        (some(), distributions(4), r"\(4, 7\) and must be \(5, 7\)"),
        (some(), distributions(5)[:, :6], r"\(5, 6\) and must be"),
        (some(), distributions(5) * np.nan, "not probabilities"),
        (some(), distributions(5) * 2, "not probabilities"),
        (some(["a", "a"]), distributions(2), "'a' occurs twice"),
    ],
)
def test_what_is_not_a_distribution_is_not_written(tmp_path, utterances, probabilities, message):
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "p.csv", utterances, probabilities)
    assert not list(tmp_path.iterdir())
