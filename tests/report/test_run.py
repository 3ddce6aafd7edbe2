"""The report of a run: every number is on the page, and the examples are the surest ones."""

import base64
import dataclasses
import io
import re

import made_up
import numpy as np
import pytest
import soundfile
import tiny
from made_up import HOSTILE, Page
from test_images import decoded

from ds_jax.data.labels import LABELS
from ds_jax.evaluation import predictions, summary
from ds_jax.evaluation.predictions import Predicted
from ds_jax.report import panels, sound
from ds_jax.report import run as run_report

AUXILIARY = {"corpus": "a", "title": "", "licence": "", "recordings": 1}
MADE = {"began": "", "command": "", "versions": {}, "devices": [], "seconds": 0.0, "weights": ""}


def render(tmp_path, result=None, **arguments) -> Page:
    path = tmp_path / "report.html"
    run_report.write_page(path, result or made_up.summary(), **arguments)
    return made_up.check_page(path.read_text(encoding="utf-8"))


def plots_of(page: Page) -> list[dict]:
    return [attributes for attributes in page.all("svg") if attributes.get("class") == "plot"]


def pixels_of(image: dict) -> np.ndarray:
    content = base64.b64decode(image["href"].removeprefix("data:image/png;base64,"))
    return decoded(content).astype(int)


def test_every_number_is_on_the_page(tmp_path):
    result = made_up.summary(
        calibration_error=0.1234, calibration=made_up.awkward()["result"].calibration
    )
    example = made_up.example()
    page = render(tmp_path, result, histories=made_up.histories(), errors=[example])
    scores = [result.accuracy, result.uar, result.macro_f1]
    shares = [value for score in scores for value in score.values()]
    shares += [share for row in result.per_class.values() for share in row.values()]
    shares += [share for head in result.heads.values() for share in head.values()]
    shares += [fold[score] for fold in result.folds for score in ("accuracy", "uar")]
    shares += [*result.speakers.values(), result.calibration_error, 1 / 6]
    shares += [example.probability, example.label_probability]
    for share in (share for share in shares if isinstance(share, float)):
        assert f"{100 * share:.1f}" in page.text
    texts = [result.corpus_title, result.system, result.protocol, *result.speakers, "0.25 to 0.75"]
    for text in (*texts, result.interval.rstrip("."), example.utterance, example.sentence):
        assert text in page.text


def test_the_confusion_matrix_has_the_truth_in_rows(tmp_path):
    confusion = np.zeros((7, 7), int)
    confusion[0] = [6, 0, 2, 0, 0, 0, 0]
    render(tmp_path, made_up.summary(confusion=confusion.tolist()))
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    row = text.split('<th scope="row">ANGER</th>')[1].split("</tr>")[0]
    cells = re.findall(r"<td[^>]*>(\d+)<small>([\d.]+)</small></td>", row)
    assert cells == [("6", "75.0"), ("0", "0.0"), ("2", "25.0")] + [("0", "0.0")] * 4


def test_names_are_text_and_never_markup(tmp_path):
    arguments = made_up.awkward()
    example = made_up.example(name=HOSTILE + '" onload="x', audio=b"sound")
    arguments["errors"].append(example)
    page = render(tmp_path, **arguments)
    assert len(page.all("image")) == 2 * (2 + 3 + 2 + 2)  # each with its bar
    assert page.text.count(HOSTILE) >= 12
    for name in (arguments["result"].protocol_text, example.utterance):
        assert name in page.text


@pytest.mark.parametrize(
    ("identifier", "changes"),
    [
        ("optimistic", {"selected_on": "test"}),
        ("enrolment", {"adapt": "speaker"}),
        ("auxiliary", {"auxiliary": [AUXILIARY]}),
        ("synthetic", {"synthetic": True}),
        ("missing", {"missing_folds": [3, 4]}),
        ("stopped", {"made": MADE | {"stopped_fits": 2}}),
        ("paper", {"paper": made_up.paper()}),
        ("licence", {"corpus_licence": "free", "settings": {"seed": 0}}),
        ("settings", {"settings": {"seed": 0}}),
        ("calibration", {"calibration": made_up.awkward()["result"].calibration}),
        ("curves", {}),
        ("folds", {}),
        ("speakers", {}),
    ],
)
def test_a_part_is_shown_only_where_it_applies(tmp_path, identifier, changes):
    result = made_up.summary(**{"calibration_error": 0.1} | changes)
    assert render(tmp_path, result, histories=made_up.histories()).has(identifier)
    empty = made_up.summary(folds=[], speakers={})
    assert not render(tmp_path, empty).has(identifier)


CHOSEN = (("epoch", [], "No epoch was chosen"), ("C", [1.0, 3.0], " C was chosen by inner"))
CHOSEN += (("C", [3.0], "gives a single C,"), ("", [], "nothing but"))


@pytest.mark.parametrize(("chosen", "costs", "told"), CHOSEN)
def test_what_is_chosen_where_no_split_chooses_the_epoch_is_told(tmp_path, chosen, costs, told):
    settings = {"members.a.model.costs": costs}
    result = made_up.summary(selected_on="none", chosen=chosen, settings=settings)
    page, headline = render(tmp_path, result).text, run_report.headline(result)
    assert told in page
    assert "development" not in page
    assert ("epoch was chosen" in page) == ("no epoch chosen" in headline) == (chosen == "epoch")


def test_unknown_speakers_are_told(tmp_path):
    unknown = made_up.summary(speakers={}, speaker_n={}, shared={"speakers": None})
    error = made_up.example(speaker="", sentence="", seconds=1.0, pictures=[], gates={})
    page = render(tmp_path, unknown, errors=[error])
    assert page.has("unknown-speakers")
    assert "speakers: not known" in page.text
    assert "Unknown speaker, 1.0" in page.text
    assert "UNKNOWN" in run_report.headline(unknown)
    assert not render(tmp_path, made_up.summary()).has("unknown-speakers")
    assert "UNKNOWN" not in run_report.headline(made_up.summary())


@pytest.mark.parametrize(
    ("shared", "text", "bad"),
    [
        ({"speakers": 0, "sentences": 28}, "no speakers, 28 sentences", 1),
        ({"speakers": 1, "sentences": 28}, "1 speaker, 28 sentences", 2),
        ({"speakers": 0, "sentences": 0}, "no speakers, no sentences", 0),
        ({"speakers": 0}, "no speakers, sentences: not known", 0),
    ],
)
def test_what_train_and_test_share_is_red(tmp_path, shared, text, bad):
    page = render(tmp_path, made_up.summary(shared=shared))
    assert text in page.text
    assert [attributes.get("class") for attributes in page.all("span")].count("bad") == bad


def test_what_was_excluded_is_counted(tmp_path):
    counts = {"utterances": 60, "left_out": 5, "skipped": 3, "equal_left_out": 4}
    page = render(tmp_path, made_up.summary(**counts, evaluated_by="5 models"))
    assert all(f"{count} " in page.text for count in (78, *counts.values()))
    assert "5 models" in page.text
    assert "left out" not in render(tmp_path, made_up.summary(utterances=78)).text


def test_the_accuracy_of_one_and_the_same_answer_is_told(tmp_path):
    result = made_up.summary()
    assert "38.5" not in render(tmp_path, result).text
    result.per_class["ANGER"]["support"] = 30
    assert "38.5" in render(tmp_path, result).text  # 30 of 78


def test_scores_without_an_interval_are_printed(tmp_path):
    missing = {"value": 0.5, "low": None, "high": None}
    page = render(tmp_path, made_up.summary(uar=missing, macro_f1=missing | {"value": np.nan}))
    assert page.text.count("no interval") == 2
    assert "nan" not in page.text.lower()


def test_curves_and_calibration_are_plots_with_text_alternatives(tmp_path):
    result = made_up.awkward()["result"]
    page = render(tmp_path, result, histories=made_up.histories("test"))
    texts = {attributes["id"] for attributes in page.all("title") + page.all("desc") if attributes}
    for plot in plots_of(page):
        assert plot["role"] == "img"
        assert {plot["aria-labelledby"], plot["aria-describedby"]} <= texts
    assert len(plots_of(page)) == 5
    assert "Fold 0: from 5.0 % to 60.0 %" in page.text
    assert "10 to 20 %" in page.text  # the same numbers in a table
    for hidden in page.all("svg"):
        assert hidden.get("role") == "img" or hidden["aria-hidden"] == "true"


def test_bars_are_as_long_as_their_numbers(tmp_path):
    page = render(tmp_path, made_up.summary(speaker_n={"f1": 21, "m1": 20}))
    widths = [float(rect["width"]) for rect in page.all("rect") if rect["class"] == "fill"]
    assert widths[:3] == [15.08, 15.11, 15.01]  # of the three scores, from low to high
    assert widths[3:6] == [72.51, 76.92, 74.65]
    assert widths[-2:] == [62.34, 81.23]  # the harder speaker first
    assert "62.3 % of 20" in page.text


def test_pictures_have_the_colours_that_the_network_sees_and_all_gates_one_scale(tmp_path):
    gate = np.full((14, 14), 0.35)
    gate[:, 7:] = 0.65
    fields = {"picture.layout": "deepspectrum", "picture.colour_map": "gray"}
    result = made_up.summary(settings=fields)
    page = render(tmp_path, result, errors=[made_up.example(gate=gate)])
    picture, _, shown, bar = map(pixels_of, page.all("image"))
    np.testing.assert_array_equal(picture[0], np.arange(227)[:, None].repeat(3, axis=1))
    assert bar.shape == (256, 1, 3)
    for value, column in ((0.35, 0), (0.65, -1)):  # the colour that the bar has at this height
        np.testing.assert_array_equal(shown[0, column], bar[255 - round(255 * value), 0])
    assert [svg["aria-label"] for svg in plots_of(page)] == [
        "spectrogram of dis-f1-b1",
        "block4_pool of dis-f1-b1",
    ]
    for text in ("frequency in Hz", "time in s", "4000", "here 0.35 to 0.65"):
        assert text in page.text


def test_windows_are_shown_in_their_order(tmp_path):
    windows = [np.full((16, 16), value, np.uint8) for value in range(3)]
    page = render(tmp_path, errors=[made_up.example(pictures=windows, gates={})])
    labels = [svg["aria-label"] for svg in plots_of(page)]
    assert labels == [f"window {number} of dis-f1-b1" for number in (1, 2, 3)]


def test_generated_pictures_are_counted_in_red_and_shown_by_class_on_axes(tmp_path):
    settings = {"picture.layout": "timeline", "picture.mel_bands": 64, "picture.colour_map": "gray"}
    pictures = [np.full((64, 80), value, np.uint8) for value in (50, 100, 150)]
    drawn = run_report.drawings(pictures[:1], pictures[1:], panels.settings_of(settings))
    result = made_up.summary(settings=settings, generated=123)
    page = render(tmp_path, result, drawn=dict.fromkeys(LABELS[:2], drawn))
    assert page.has("trained-on-generated")
    assert "123 pictures" in page.text
    kinds = ("recorded", "generated", "generated")
    labels = [f"{kind} of {label}" for label in LABELS[:2] for kind in kinds]
    shown = [svg for svg in plots_of(page) if " of " in svg.get("aria-label", "")]
    assert [svg["aria-label"] for svg in shown] == labels
    images = [pixels_of(image) for image in page.all("image")[:6:2]]
    assert [image[0, 0, 0] for image in images] == [50, 100, 150]
    assert {image.shape for image in images} == {(64, 80, 3)}  # as wide as the timelines are
    for text in ("frequency in Hz", "time in s"):
        assert page.text.count(text) == 6
    assert not render(tmp_path).has("trained-on-generated")
    assert not render(tmp_path).has("drawn")


def test_heads_alone_are_shown_with_intervals_and_a_test(tmp_path):
    gain = {"difference": 0.021, "low": -0.013, "high": 0.055, "p_holm": 0.4321}
    tested = {
        "interval": {"accuracy": [0.6012, 0.8034], "uar": [0.5912, 0.7934]},
        "minus_all": {"uar": gain, "method": "by a test"},
    }
    heads = dict.fromkeys(("block4_pool", "block5_pool"), tested)
    text = render(tmp_path, made_up.summary(heads_tested=heads)).text
    for shown in ("60.1 to 80.3", "59.1 to 79.3", "+2.1", "to +5.5", "0.432", "by a test"):
        assert shown in text


def test_sound_is_part_of_the_file_and_comes_with_its_terms(tmp_path):
    sound = made_up.sound()
    errors = [made_up.example(audio=sound), made_up.example("quiet")]
    page = render(tmp_path, errors=errors, audio_terms="name the speakers")
    (player,) = page.all("audio")
    assert base64.b64decode(player["src"].removeprefix("data:audio/flac;base64,")) == sound
    assert "dis-f1-b1" in player["aria-label"]
    assert "name the speakers" in page.text
    assert not render(tmp_path, errors=errors[1:], audio_terms="name the speakers").has("terms")


def test_the_papers_numbers_are_compared_with_the_intervals(tmp_path):
    page = render(tmp_path, made_up.summary(paper=made_up.paper()))
    assert "4, 5" in page.text
    assert re.search(r"Accuracy ?98.4 % ?76.9 % ?69.1 to 84.2 % ?above it", page.text)
    assert re.search(r"Macro F1 ?70.0 % ?74.7 % ?67.0 to 82.0 % ?inside it", page.text)
    assert page.text.count("paper 90.05") == 3 * 6  # no class without utterances
    changes = {"macro_f1": None, "per_class": None, "departures": ["one", "two"]}
    page = render(tmp_path, made_up.summary(paper=made_up.paper(**changes)))
    assert "one; two" in page.text
    assert page.text.count("inside it") == page.text.count("paper 9") == 0


def test_links_within_the_page_lead_somewhere(tmp_path):
    pages = render(tmp_path, **made_up.awkward()), render(tmp_path)
    for page, links in zip(pages, (11, 5), strict=True):
        targets = [attributes["href"] for attributes in page.all("a")]
        assert len(targets) == links
        assert all(page.has(target.removeprefix("#")) for target in targets)


def test_the_same_run_gives_the_same_bytes_and_nothing_else(tmp_path):
    contents = set()
    for _ in range(2):
        render(tmp_path, histories=made_up.histories(), errors=[made_up.example()])
        contents.add((tmp_path / "report.html").read_bytes())
    assert len(contents) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def predicted(corpus, wrong=(), sure=None, gates=True):
    """Correct but for the utterances numbered in `wrong`; the probabilities differ a little.

    The gate of an utterance has its number everywhere.
    """
    count = len(corpus.utterances)
    labels = np.arange(count) % 7
    sure = np.linspace(0.5, 0.6, count) if sure is None else sure
    probabilities = np.repeat((1 - sure[:, None]) / 6, 7, axis=1)
    answers = np.where(np.isin(np.arange(count), wrong), (labels + 1) % 7, labels)
    probabilities[np.arange(count), answers] = sure
    gate = np.arange(count, dtype=np.float32)[:, None, None] * np.ones((count, 3, 2), np.float32)
    return Predicted(probabilities, {}, {"block4_pool": gate} if gates else {})


@pytest.fixture
def report(tmp_path, monkeypatch):
    """A function that reports a corpus from some folds, and returns errors and hits."""
    calls, write_page = [], run_report.write_page

    def keep(*arguments):
        calls.append(arguments)
        write_page(*arguments)

    monkeypatch.setattr(run_report, "write_page", keep)

    def write(corpus, *folds):
        sources = [tmp_path / f"fold_{number}" for number in range(len(folds))]
        for source, fold in zip(sources, folds, strict=True):
            predictions.write(source, corpus.utterances, fold, LABELS)
        fields = summary.measure(predictions.read_pooled(sources))
        result = dataclasses.replace(made_up.summary(), **fields)
        run_report.write(tmp_path, result, sources, corpus)
        assert summary.read(tmp_path / "report.json") == result
        return calls[-1][3:5]

    return write


def test_the_surest_errors_and_hits_are_shown_with_their_pictures_and_gates(report):
    corpus = tiny.corpus(30)
    errors, hits = report(corpus, predicted(corpus, wrong=range(5, 20)))
    assert [error.utterance for error in errors] == [f"u{i:02}" for i in range(19, 13, -1)]
    assert [hit.utterance for hit in hits] == ["u29", "u28"]
    for example in (*errors, *hits):
        number = int(example.utterance[1:])
        u = corpus.utterances[number]
        np.testing.assert_array_equal(example.pictures, [corpus.inputs[number]])
        np.testing.assert_array_equal(example.gates["block4_pool"], np.full((3, 2), number))
        assert (example.label, example.speaker, example.seconds) == (u.label, u.speaker, 1.0)
        assert (example.label == example.prediction) == (example in hits)
        assert example.probability > example.label_probability or example in hits
        assert example.audio == b""
    assert errors[0].probability == pytest.approx(0.5 + 0.1 * 19 / 29)
    assert errors[0].label_probability == pytest.approx((1 - errors[0].probability) / 6)


def test_an_utterance_that_several_splits_tested_is_shown_once_with_its_surest_answer(report):
    corpus = tiny.corpus(4)
    folds = [
        predicted(corpus, wrong=[1, 2], sure=np.array(sure))
        for sure in ([0.6, 0.7, 0.6, 0.5], [0.6, 0.5, 0.9, 0.5])
    ]
    errors, _ = report(corpus, *folds)
    assert [(error.utterance, error.probability) for error in errors] == [
        ("u02", pytest.approx(0.9)),
        ("u01", pytest.approx(0.7)),
    ]


def test_the_first_windows_of_a_recording_are_shown_without_gates(report):
    corpus = tiny.corpus(3, windows=5)
    errors, _ = report(corpus, predicted(corpus, wrong=[1]))
    np.testing.assert_array_equal(errors[0].pictures, corpus.inputs[5 : 5 + run_report.WINDOWS])
    assert errors[0].gates == {}


def test_a_system_on_features_has_errors_without_pictures(report):
    corpus = dataclasses.replace(tiny.corpus(3), inputs=np.zeros((3, 5), np.float32))
    errors, hits = report(corpus, predicted(corpus, wrong=[1], gates=False))
    assert [(error.utterance, error.pictures, error.gates) for error in errors] == [("u01", [], {})]
    assert len(hits) == 2


def test_only_errors_are_heard_and_only_their_beginnings(report, tmp_path):
    seconds = sound.CLIP_SECONDS + 5
    waveform = np.sin(np.arange(seconds * 44_100) / 20) * np.linspace(0, 1, seconds * 44_100)
    soundfile.write(tmp_path / "long.wav", np.stack([waveform] * 2, axis=1), 44_100)
    silent = tiny.corpus(3)
    recordings = {utterance.name: tmp_path / "long.wav" for utterance in silent.utterances}
    corpus = dataclasses.replace(silent, recordings=recordings, audio_terms="terms of the corpus")
    errors, hits = report(corpus, predicted(corpus, wrong=[1]))
    assert [hit.audio for hit in hits] == [b"", b""]
    samples, rate = soundfile.read(io.BytesIO(errors[0].audio))
    assert (rate, samples.shape) == (16_000, (sound.CLIP_SECONDS * 16_000,))
    expected = np.sin(np.arange(len(samples)) / 16_000 * 44_100 / 20)
    expected *= np.arange(len(samples)) / 16_000 / seconds
    np.testing.assert_allclose(samples[100:-100], expected[100:-100], atol=1e-3)
    assert "terms of the corpus" in (tmp_path / "report.html").read_text(encoding="utf-8")
    before = (tmp_path / "report.json").read_bytes()
    report(silent, predicted(silent, wrong=[1]))
    assert (tmp_path / "report.json").read_bytes() == before  # sound changes no number


def test_one_utterance_is_one(tmp_path):
    counts = {"n": 1, "utterances": 1, "left_out": 1, "equal_left_out": 1, "skipped": 1}
    result = made_up.summary(**counts, trained_on="other")
    text = " ".join([*render(tmp_path, result).text.split(), run_report.headline(result)])
    assert not re.search(r"\b1 (\w+ )?(utterances|predictions|recordings)\b", text)
