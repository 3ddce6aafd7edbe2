"""The page for people: everything said, nothing fetched, names kept from being markup."""

import base64
import io
import re

import made_up
import numpy as np
import pytest
from made_up import HOSTILE, Page
from PIL import Image

from ds_jax.data.corpus import LABELS
from ds_jax.evaluation import predictions, summary
from ds_jax.report import run as report


def render(tmp_path, record=None, histories=(), errors=(), hits=()) -> Page:
    path = tmp_path / "report.html"
    report.write(path, record or made_up.content(), histories, list(errors), list(hits))
    return Page(path.read_text(encoding="utf-8"))


def plots_of(page: Page) -> list[dict]:
    return [attributes for attributes in page.all("svg") if attributes.get("class") == "plot"]


def pixels(uri: str) -> np.ndarray:
    kind, data = uri.split(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"), int)


def test_every_number_is_on_the_page(tmp_path):
    page = render(tmp_path, None, made_up.histories(), [made_up.example()])
    for score in (
        "76.9 %",
        "69.1 to 84.2 %",
        "75.8 %",
        "68.0 to 83.1 %",
        "74.7 %",
        "67.0 to 82.0 %",
    ):
        assert score in page.text
    for number in ("72.5 %", "75.1 %", "77.3 %", "62.3 %", "81.2 %", "70.1 %", "61.6 %", "16.7 %"):
        assert number in page.text
    assert "DS-AM on EMOVO" in page.text
    assert "78 utterances of 2 speakers were tested in 2 folds." in page.text
    assert "leave one speaker out" in page.text
    assert "speakers resampled 1,000 times" in page.text
    assert "6 classes present" in page.text
    assert "0.25 to 0.75" in page.text


def test_the_confusion_matrix_has_the_truth_in_rows(tmp_path):
    path = tmp_path / "report.html"
    confusion = np.zeros((7, 7), int)
    confusion[0] = [6, 0, 2, 0, 0, 0, 0]
    report.write(path, made_up.content(confusion=confusion.tolist()), [], [], [])
    row = path.read_text(encoding="utf-8").split('<th scope="row">ANGER</th>')[1].split("</tr>")[0]
    cells = re.findall(r"<td[^>]*>(\d+)<small>([\d.]+)</small></td>", row)
    assert [(int(count), float(rate)) for count, rate in cells] == [
        *((6, 75.0), (0, 0.0), (2, 25.0)),
        *[(0, 0.0)] * 4,
    ]


def test_nothing_is_asked_of_the_network(tmp_path):
    page = render(tmp_path, None, made_up.histories(), [made_up.example(audio=b"sound")])
    addresses = [
        value
        for _, attributes in page.elements
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "xlink:href", "data", "action", "poster")
    ]
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert not page.all("script")
    style = (tmp_path / "report.html").read_text(encoding="utf-8").split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_names_are_text_and_never_markup(tmp_path):
    record, histories, errors, hits = made_up.awkward()
    record["protocol"] = f'">{HOSTILE}'
    errors.append(made_up.example(name=HOSTILE + '" onload="x', audio=b"sound"))
    page = render(tmp_path, record, histories, errors, hits)
    assert not page.all("script")
    assert len(page.all("img")) == 2 + 3 + 2 + 2
    assert all({"onload", "onerror"}.isdisjoint(attributes) for _, attributes in page.elements)
    assert page.text.count(HOSTILE) >= 12
    assert f'">{HOSTILE}' in page.text


@pytest.mark.parametrize("side", ["dev", "test"])
def test_a_choice_on_the_test_fold_is_said_aloud(tmp_path, side):
    page = render(tmp_path, made_up.content(selected_on=side), made_up.histories(side))
    assert page.has("optimistic") == (side == "test")
    assert ("Optimistic numbers" in page.text) == (side == "test")
    assert ("never on the test fold" in page.text) == (side == "dev")


def test_synthetic_speech_is_said_aloud(tmp_path):
    assert not render(tmp_path).has("synthetic")
    assert render(tmp_path, made_up.content(synthetic=True)).has("synthetic")


@pytest.mark.parametrize(
    ("shared", "said", "bad"),
    [
        ({"speakers": 0, "sentences": 28}, "no speakers, 28 sentences", 1),
        ({"speakers": 1, "sentences": 28}, "1 speaker, 28 sentences", 2),
        ({"speakers": 0, "sentences": 0}, "no speakers, no sentences", 0),
        ({"speakers": 0}, "no speakers, sentences: not known", 0),
        (None, "speakers: not known, sentences: not known", 0),
    ],
)
def test_what_train_and_test_share_is_red(tmp_path, shared, said, bad):
    page = render(tmp_path, made_up.content(shared=shared))
    assert said in page.text
    assert [attributes.get("class") for attributes in page.all("span")].count("bad") == bad


def test_what_else_was_done_is_said(tmp_path):
    record = made_up.content(
        utterances=60,
        left_out=5,
        skipped=3,
        protocol_text="one fold a speaker",
        calibration_error=0.1234,
        calibration=made_up.awkward()[0]["calibration"],
    )
    page = render(tmp_path, record)
    assert "78 predictions for 60 utterances of 2 speakers" in page.text
    assert "5 NEUTRAL utterances spoken loud, soft, slow or fast were left out" in page.text
    assert "3 recordings were unusable" in page.text
    assert "leave one speaker out (one fold a speaker)." in page.text
    assert "12.3 % (expected calibration error)" in page.text
    plain = render(tmp_path, made_up.content(utterances=78)).text
    assert "78 utterances of" in plain
    for word in ("unusable", "left out", "calibration"):
        assert word not in plain


def test_an_evaluation_without_training_has_a_report(tmp_path):
    record = made_up.content(folds=[], speakers={}, evaluated_by="5 models trained on emovo")
    del record["heads"]
    page = render(tmp_path, record)
    assert "by 5 models trained on emovo" in page.text
    assert not plots_of(page)
    assert not page.all("img")
    for heading in ("Folds", "Learning curves", "Speakers", "Calibration", "Errors", "gate"):
        assert heading not in page.text


def test_scores_without_an_interval_are_printed(tmp_path):
    nothing = {"value": 0.5, "low": None, "high": None}
    page = render(
        tmp_path, made_up.content(uar=nothing, macro_f1=nothing | {"value": float("nan")})
    )
    assert page.text.count("no interval") == 2
    assert "nan" not in page.text.lower()


def test_curves_and_calibration_are_plots_with_text_alternatives(tmp_path):
    bins = made_up.awkward()[0]["calibration"]
    page = render(tmp_path, made_up.content(calibration=bins), made_up.histories())
    texts = {attributes["id"] for attributes in page.all("title") + page.all("desc") if attributes}
    for plot in plots_of(page):
        assert plot["role"] == "img"
        assert {plot["aria-labelledby"], plot["aria-describedby"]} <= texts
    assert len(plots_of(page)) == 3
    assert "Fold 0, dev: from 0.0 % to 60.0 %" in page.text.replace("5.0 %", "0.0 %")
    assert "10 to 20 %" in page.text  # the same numbers in a table
    for hidden in page.all("svg"):
        assert hidden.get("role") == "img" or hidden["aria-hidden"] == "true"


def test_bars_are_as_long_as_their_numbers(tmp_path):
    page = render(tmp_path, made_up.content(speaker_n={"f1": 21, "m1": 20}))
    widths = [float(rect["width"]) for rect in page.all("rect") if rect["class"] == "fill"]
    assert widths[:3] == [15.08, 15.11, 15.01]  # of the three scores, from low to high
    assert widths[3:6] == [72.51, 76.92, 74.65]
    assert widths[-2:] == [62.34, 81.23]  # the harder speaker first
    assert "62.3 % of 20" in page.text


def test_a_run_without_epochs_has_no_curves(tmp_path):
    page = render(tmp_path, None, [[], []])
    assert not plots_of(page)
    assert "Learning curves" not in page.text


def test_pictures_are_viridis_and_gates_fade_them_to_white(tmp_path):
    gate = np.zeros((14, 14))
    gate[:, 7:] = 1.0
    page = render(tmp_path, None, [], [made_up.example(gate=gate)])
    images = page.all("img")
    assert all(attributes["alt"] for attributes in images)
    plain, veiled = (pixels(attributes["src"]) for attributes in images)
    assert plain.shape == veiled.shape == (227, 227, 3)
    np.testing.assert_allclose(plain[0, 0], [68, 1, 84], atol=1)  # viridis begins in violet.
    np.testing.assert_array_equal(veiled[:, -40:], plain[:, -40:])
    assert veiled[:, :40].min() > 220


def test_the_colours_are_those_that_the_network_sees(tmp_path):
    record = made_up.content(settings={"picture.colour_map": "gray"})
    page = render(tmp_path, record, [], [made_up.example(gates={})])
    [plain] = (pixels(attributes["src"]) for attributes in page.all("img"))
    np.testing.assert_array_equal(plain[0], np.arange(227)[:, None].repeat(3, axis=1))


def test_errors_say_what_was_taken_for_what_and_by_whom(tmp_path):
    shown = made_up.example(), made_up.example("right", prediction="DISGUST", gates={})
    page = render(tmp_path, None, [], shown[:1], shown[1:])
    assert "DISGUST taken for FEAR, 61.6 % sure; DISGUST got 20.4 %" in page.text
    assert "Speaker f1, sentence b1, 2.5 s" in page.text
    assert "DISGUST recognised, 61.6 % sure" in page.text
    assert "The most confident errors" in page.text
    assert "The most confident right answers" in page.text
    assert "window" not in page.text


def test_windows_are_shown_without_gates(tmp_path):
    windows = [np.full((16, 16), value, np.uint8) for value in range(3)]
    page = render(tmp_path, None, [], [made_up.example(pictures=windows, gates={})])
    assert [image["alt"][-8:] for image in page.all("img")] == ["window 1", "window 2", "window 3"]
    assert "the first few are shown, without gates" in page.text


def test_sound_is_part_of_the_file_and_comes_with_its_terms(tmp_path):
    sound = made_up.sound()
    record = made_up.content(audio_terms="name the speakers")
    page = render(tmp_path, record, [], [made_up.example(audio=sound), made_up.example("quiet")])
    [player] = page.all("audio")
    assert base64.b64decode(player["src"].removeprefix("data:audio/flac;base64,")) == sound
    assert player["aria-label"] == "Recording of dis-f1-b1"
    assert "Before this file is passed on: name the speakers." in page.text
    assert not render(tmp_path, record, [], [made_up.example()]).has("terms")


PAPER = {
    "title": "DS-AM",
    "tables": [4, 5],
    "accuracy": 0.984,
    "macro_f1": 0.7,
    "per_class": {label: dict.fromkeys(report.CLASS_SCORES, 0.9005) for label in LABELS},
    "departures": [],
}


def test_the_papers_numbers_stand_beside_only_where_there_are_some(tmp_path):
    assert not render(tmp_path).has("paper")
    page = render(tmp_path, made_up.content(paper=PAPER))
    assert "in tables 4, 5" in page.text
    assert re.search(r"Accuracy ?98.4 % ?76.9 % ?69.1 to 84.2 % ?above it", page.text)
    assert re.search(r"Macro F1 ?70.0 % ?74.7 % ?67.0 to 82.0 % ?inside it", page.text)
    assert page.text.count("paper 90.05") == 3 * 6  # no class without utterances
    assert "Not the same experiment" not in page.text
    departing = PAPER | {"macro_f1": None, "per_class": None, "departures": ["one", "two"]}
    page = render(tmp_path, made_up.content(paper=departing))
    assert "Not the same experiment: one; two." in page.text
    assert page.text.count("inside it") == page.text.count("paper 9") == 0


def test_the_settings_are_told(tmp_path):
    settings = {"corpus": "emovo", "weights": "", "model.gates": ["a", "b"], "seed": 0}
    text = render(tmp_path, made_up.content(settings=settings)).text
    for told in ("corpus emovo", "weights \N{EN DASH}", "model.gates a, b", "seed 0"):
        assert told.replace(" ", "") in text.replace(" ", "")


def test_links_within_the_page_lead_somewhere(tmp_path):
    pages = render(tmp_path, *made_up.awkward()), render(tmp_path)
    for page, links in zip(pages, (11, 5), strict=True):
        targets = [attributes["href"] for attributes in page.all("a")]
        assert len(targets) == links
        assert all(page.has(target.removeprefix("#")) for target in targets)


def test_the_same_run_gives_the_same_bytes_and_leaves_nothing_beside(tmp_path):
    render(tmp_path, None, made_up.histories(), [made_up.example()])
    content = (tmp_path / "report.html").read_bytes()
    render(tmp_path, None, made_up.histories(), [made_up.example()])
    assert (tmp_path / "report.html").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_report_that_fails_leaves_the_old_one(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    record = made_up.content()
    del record["uar"]
    with pytest.raises(Exception, match="uar"):
        report.write(path, record, [], [], [])
    assert path.read_text() == "old"


def test_what_evaluation_gives_is_what_the_report_takes(tmp_path):
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), 8)  # No SURPRISE.
    speakers = np.array(["f1", "f2", "m1", "m2"] * 12)
    names = np.array([f"utterance_{row}" for row in range(48)])
    told = predictions.Predictions(
        utterances=names,
        speakers=speakers,
        sentences=np.full(48, "s1"),
        styles=np.full(48, "normal"),
        labels=labels,
        probabilities=random.dirichlet(np.ones(7), 48),
    )
    record = summary.evaluate(
        told,
        corpus="emodb",
        system="DS-FC",
        protocol="speakers",
        selected_on="dev",
        shared={"speakers": 0, "sentences": 2},
        folds=[summary.fold_record(0, told)],
    )
    page = render(tmp_path, record)
    assert f"{100 * record['uar']['value']:.1f} %" in page.text
    assert "48 utterances of 4 speakers were tested in 1 fold." in page.text
    assert page.text.count("not in this corpus") == 1
    assert f"{100 * record['calibration_error']:.1f} % (expected calibration error)" in page.text
    assert "of 12" in page.text  # utterances of a speaker
