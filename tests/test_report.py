"""The page for people: everything said, nothing fetched, names kept from being markup."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from ds_jax import evaluate, predictions, report
from ds_jax.corpus import LABELS

VOID = {"meta", "link", "img", "br", "line"}
HOSTILE = "<script>alert(1)</script>"


class Page(HTMLParser):
    """Collects the elements and the text of a page, and checks that elements are closed."""

    def __init__(self, text: str):
        super().__init__()
        self.elements, self.text, self.open = [], "", []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if self.open and self.open[-1] != "style":
            self.text += re.sub(r"\s+", " ", text)

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]

    def has(self, identifier: str) -> bool:
        return any(attributes.get("id") == identifier for _, attributes in self.elements)


def made_up_report(**changes) -> dict:
    confusion = (np.eye(7, dtype=int) * 10 + np.eye(7, k=1, dtype=int) * 3).tolist()
    confusion[6] = [0] * 7
    record = {
        "corpus": "emovo",
        "system": "DS-AM",
        "protocol": "leave one speaker out",
        "selected_on": "dev",
        "n": 78,
        "labels": list(LABELS),
        "classes_present": list(LABELS[:6]),
        "confusion": confusion,
        "per_class": {
            label: {"precision": 0.7251, "recall": 0.7692, "f1": 0.7465, "support": 13}
            for label in LABELS[:6]
        }
        | {"SURPRISE": {"precision": None, "recall": None, "f1": None, "support": 0}},
        "accuracy": {"value": 0.7692, "low": 0.6913, "high": 0.8421},
        "uar": {"value": 0.7581, "low": 0.6801, "high": 0.8312},
        "macro_f1": {"value": 0.7465, "low": 0.6702, "high": 0.8203},
        "interval": "95 % bootstrap intervals, speakers resampled 1,000 times.",
        "shared": {"speakers": 0, "sentences": 28},
        "folds": [
            {"fold": 0, "n": 40, "epoch": 12, "accuracy": 0.7511, "uar": 0.7422},
            {"fold": 1, "n": 38, "epoch": 9, "accuracy": 0.7733, "uar": 0.7644},
        ],
        "speakers": {"f1": 0.8123, "m1": 0.6234},
        "heads": {
            "block4_pool": {"accuracy": 0.7012, "uar": 0.6934},
            "block5_pool": {"accuracy": 0.7345, "uar": 0.7256},
        },
    }
    return record | changes


def made_up_curves(side: str = "dev") -> list[list[dict]]:
    return [
        [
            {
                "epoch": epoch,
                "train_loss": 2.0 / (epoch + 1 + fold),
                f"{side}_loss": 2.0 / (epoch + 1),
                f"{side}_uar": epoch / 20,
                f"{side}_accuracy": 0.5,
                "learning_rate": 1e-4,
            }
            for epoch in range(1, 13)
        ]
        for fold in range(2)
    ]


def made_up_picture(name: str = "dis-f1-b1", gate: np.ndarray | None = None) -> report.GatedPicture:
    picture = np.tile(np.arange(227, dtype=np.uint8), (227, 1))
    gate = np.linspace(0.25, 0.75, 28 * 14).reshape(28, 14) if gate is None else gate
    return report.GatedPicture(name, "DISGUST", "FEAR", 0.6158, picture, {"block4_pool": gate})


def render(tmp_path, record=None, curves=(), pictures=()) -> Page:
    path = tmp_path / "report.html"
    report.write(path, record or made_up_report(), curves, pictures)
    return Page(path.read_text(encoding="utf-8"))


def pixels(uri: str) -> np.ndarray:
    kind, data = uri.split(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"), int)


def test_every_number_is_on_the_page(tmp_path):
    page = render(tmp_path, None, made_up_curves(), [made_up_picture()])
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
    assert "DS-AM on emovo" in page.text
    assert "78 utterances of 2 speakers were tested in 2 folds." in page.text
    assert "leave one speaker out" in page.text
    assert "speakers resampled 1,000 times" in page.text
    assert "6 classes present" in page.text
    assert "0.25 to 0.75" in page.text


def test_the_confusion_matrix_has_the_truth_in_rows(tmp_path):
    path = tmp_path / "report.html"
    confusion = np.zeros((7, 7), int)
    confusion[0] = [6, 0, 2, 0, 0, 0, 0]
    report.write(path, made_up_report(confusion=confusion.tolist()), [], [])
    row = path.read_text(encoding="utf-8").split('<th scope="row">ANGER</th>')[1].split("</tr>")[0]
    cells = re.findall(r"<td[^>]*>(\d+)<small>([\d.]+)</small></td>", row)
    assert [(int(count), float(rate)) for count, rate in cells] == [
        *((6, 75.0), (0, 0.0), (2, 25.0)),
        *[(0, 0.0)] * 4,
    ]


def test_nothing_is_asked_of_the_network(tmp_path):
    page = render(tmp_path, None, made_up_curves(), [made_up_picture()])
    addresses = [
        value
        for _, attributes in page.elements
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "xlink:href", "data", "action", "poster")
    ]
    assert addresses
    assert all(address.startswith("data:") for address in addresses)
    assert not page.all("script")
    style = (tmp_path / "report.html").read_text(encoding="utf-8").split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_names_are_text_and_never_markup(tmp_path):
    record = made_up_report(
        corpus=HOSTILE,
        speakers={HOSTILE: 0.5},
        protocol='"><img src=x>',
        folds=[{"fold": HOSTILE, "n": 1}],
        heads={HOSTILE: {"accuracy": 0.1, "uar": 0.2}},
    )
    pictures = [made_up_picture(name=HOSTILE + '" onload="x')]
    page = render(tmp_path, record, made_up_curves()[:1], pictures)
    assert not page.all("script")
    assert len(page.all("img")) == 2
    assert all("onload" not in attributes for _, attributes in page.elements)
    assert page.text.count(HOSTILE) >= 6
    assert '"><img src=x>' in page.text


@pytest.mark.parametrize("side", ["dev", "test"])
def test_a_choice_on_the_test_fold_is_said_aloud(tmp_path, side):
    page = render(tmp_path, made_up_report(selected_on=side), made_up_curves(side))
    assert page.has("optimistic") == (side == "test")
    assert ("Optimistic numbers" in page.text) == (side == "test")
    assert ("never on the test fold" in page.text) == (side == "dev")


def test_synthetic_speech_is_said_aloud(tmp_path):
    assert not render(tmp_path).has("synthetic")
    assert render(tmp_path, made_up_report(synthetic=True)).has("synthetic")


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
    page = render(tmp_path, made_up_report(shared=shared))
    assert said in page.text
    assert [attributes.get("class") for attributes in page.all("span")].count("bad") == bad


def test_what_else_was_done_is_said(tmp_path):
    record = made_up_report(
        utterances=60,
        left_out=5,
        skipped=3,
        protocol_text="one fold a speaker",
        calibration_error=0.1234,
    )
    page = render(tmp_path, record)
    assert "78 predictions for 60 utterances of 2 speakers" in page.text
    assert "5 NEUTRAL utterances spoken loud, soft, slow or fast were left out" in page.text
    assert "3 recordings were unusable" in page.text
    assert "leave one speaker out (one fold a speaker)." in page.text
    assert "12.3 % (expected calibration error)" in page.text
    plain = render(tmp_path, made_up_report(utterances=78)).text
    assert "78 utterances of" in plain
    for word in ("unusable", "left out", "calibration"):
        assert word not in plain


def test_an_evaluation_without_training_has_a_report(tmp_path):
    record = made_up_report(folds=[], speakers={}, evaluated_by="5 models trained on emovo")
    del record["heads"]
    page = render(tmp_path, record)
    assert "by 5 models trained on emovo" in page.text
    assert not page.all("svg")
    assert not page.all("img")
    for heading in ("Folds", "Learning curves", "Speakers", "gates"):
        assert heading not in page.text


def test_scores_without_an_interval_are_printed(tmp_path):
    nothing = {"value": 0.5, "low": None, "high": None}
    page = render(tmp_path, made_up_report(uar=nothing, macro_f1=nothing | {"value": float("nan")}))
    assert page.text.count("no interval") == 2
    assert "nan" not in page.text.lower()


def test_curves_are_drawn_inside_their_plane(tmp_path):
    page = render(tmp_path, None, made_up_curves())
    assert len(page.all("svg")) == 2
    assert len(page.all("path")) == 2 * 2 + 2  # Loss: two folds, two sides. UAR: two folds.
    for attributes in page.all("path"):
        points = [tuple(map(float, pair.split())) for pair in attributes["d"][1:].split(" L")]
        assert len(points) == 13
        assert points[0][0] == report.LEFT
        assert points[-1][0] == report.RIGHT
        assert all(report.TOP <= y <= report.BOTTOM for _, y in points)
    rise = [float(pair.split()[1]) for pair in page.all("path")[-1]["d"][1:].split(" L")]
    assert rise == sorted(rise, reverse=True)  # A growing UAR goes up: y falls.
    # UAR 0.6 of a plane from 0 to 1.
    assert rise[-1] == pytest.approx(report.BOTTOM - 0.6 * (report.BOTTOM - report.TOP), abs=0.1)


def test_a_diverged_or_single_epoch_does_not_stop_the_report(tmp_path):
    rows = [
        {"epoch": 1, "train_loss": 1.0, "dev_uar": 0.2},
        {"epoch": 2, "train_loss": float("nan"), "dev_uar": None},
    ]
    page = render(tmp_path, None, [rows, rows[:1]])
    assert len(page.all("path")) == 4
    assert all("nan" not in attributes["d"] for attributes in page.all("path"))
    assert not render(tmp_path, None, [[], []]).all("svg")


def test_pictures_are_viridis_and_gates_fade_them_to_white(tmp_path):
    gate = np.zeros((14, 14))
    gate[:, 7:] = 1.0
    page = render(tmp_path, None, [], [made_up_picture(gate=gate)])
    images = page.all("img")
    assert all(attributes["alt"] for attributes in images)
    plain, veiled = (pixels(attributes["src"]) for attributes in images)
    assert plain.shape == veiled.shape == (227, 227, 3)
    np.testing.assert_allclose(plain[0, 0], [68, 1, 84], atol=1)  # viridis begins in violet.
    np.testing.assert_array_equal(veiled[:, -40:], plain[:, -40:])
    assert veiled[:, :40].min() > 220


def test_a_flat_gate_hides_nothing(tmp_path):
    page = render(tmp_path, None, [], [made_up_picture(gate=np.full((7, 7), 0.3))])
    plain, veiled = (pixels(attributes["src"]) for attributes in page.all("img"))
    np.testing.assert_array_equal(plain, veiled)


def test_the_same_run_gives_the_same_bytes_and_leaves_nothing_beside(tmp_path):
    render(tmp_path, None, made_up_curves(), [made_up_picture()])
    content = (tmp_path / "report.html").read_bytes()
    render(tmp_path, None, made_up_curves(), [made_up_picture()])
    assert (tmp_path / "report.html").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_report_that_fails_leaves_the_old_one(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    record = made_up_report()
    del record["uar"]
    with pytest.raises(Exception, match="uar"):
        report.write(path, record, [], [])
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
    record = evaluate.evaluate(
        told,
        corpus="emodb",
        system="DS-FC",
        protocol="speakers",
        selected_on="dev",
        shared={"speakers": 0, "sentences": 2},
        folds=[evaluate.fold_record(0, told)],
    )
    page = render(tmp_path, record)
    assert f"{100 * record['uar']['value']:.1f} %" in page.text
    assert "48 utterances of 4 speakers were tested in 1 fold." in page.text
    assert page.text.count("not in this corpus") == 1
