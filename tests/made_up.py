"""A report of a run that never was, and a page as a program reads it."""

import io
import re
from html.parser import HTMLParser

import numpy as np
import soundfile

from ds_jax.data.labels import LABELS
from ds_jax.evaluation.predictions import Predictions
from ds_jax.evaluation.summary import RunSummary
from ds_jax.report import run as run_report

VOID = {"meta", "link", "img", "br", "line"}
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>"


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


def check_page(text: str, links: str = "(#|data:)") -> Page:
    """Reads a page that asks the network for nothing; its addresses match `links`."""
    page = Page(text)
    for tag, attributes in page.elements:
        assert tag not in ("script", "iframe", "object")
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "srcset", "xlink:href", "data", "action", "poster"):
            assert re.match(links, attributes.get(name, "#")), (tag, attributes)
    style = text.split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    return page


def predictions(speakers, labels, answers, sentences=None, utterances=None) -> Predictions:
    """Predictions that are as sure as can be of n answers, int [n]; names may be of any type."""
    count = len(labels)
    numbers = [f"u{index:04}" for index in range(count)]
    return Predictions(
        utterances=np.asarray(numbers if utterances is None else utterances, str),
        speakers=np.asarray(speakers, str),
        sentences=np.asarray([""] * count if sentences is None else sentences, str),
        styles=np.full(count, "normal"),
        labels=np.asarray(labels),
        probabilities=np.eye(7)[answers],
        classes=LABELS,
    )


def summary(**changes) -> RunSummary:
    """The report of two folds of DS-AM, in which SURPRISE does not occur."""
    confusion = (np.eye(7, dtype=int) * 10 + np.eye(7, k=1, dtype=int) * 3).tolist()
    confusion[6] = [0] * 7
    fields = {
        "corpus": "emovo",
        "corpus_title": "EMOVO",
        "system": "DS-AM",
        "protocol": "leave_one_speaker_out",
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
    return RunSummary(**fields | changes)


def histories(split: str = "dev") -> list[list[dict]]:
    """The metrics.jsonl of two folds."""
    return [
        [
            {
                "epoch": epoch,
                "train_loss": 2.0 / (epoch + 1 + fold),
                "train_tenth_loss": 1.5 / (epoch + 1 + fold),
                f"{split}_loss": 2.0 / (epoch + 1),
                f"{split}_uar": epoch / 20,
                f"{split}_accuracy": 0.5,
                "learning_rate": 1e-4,
            }
            for epoch in range(1, 13)
        ]
        for fold in range(2)
    ]


def example(name="dis-f1-b1", gate: np.ndarray | None = None, **changes) -> run_report.Example:
    """An error of DS-AM with a gate."""
    gate = np.linspace(0.25, 0.75, 28 * 14).reshape(28, 14) if gate is None else gate
    fields = {
        "utterance": name,
        "speaker": "f1",
        "sentence": "b1",
        "seconds": 2.5,
        "label": "DISGUST",
        "prediction": "FEAR",
        "probability": 0.6158,
        "label_probability": 0.2042,
        "pictures": [np.tile(np.arange(227, dtype=np.uint8), (227, 1))],
        "gates": {"block4_pool": gate},
    }
    return run_report.Example(**fields | changes)


def paper(**changes) -> dict:
    """The paper's numbers for a run, see `paper_numbers.paper_comparison`."""
    classes = {label: {"precision": 0.9005, "recall": 0.9005, "f1": 0.9005} for label in LABELS}
    return {
        "title": "DS-AM",
        "tables": [4, 5],
        "accuracy": 0.984,
        "macro_f1": 0.7,
        "per_class": classes,
        "departures": [],
    } | changes


def awkward() -> dict:
    """The arguments of `write_page` for a run in which all is long, absent or hostile."""
    rng = np.random.default_rng(0)
    names = [f"speaker{index:02}" for index in range(50)]
    names[0], names[1] = HOSTILE, "a_name_without_any_place_to_break_it_" * 3
    bins = [
        {"low": k / 10, "high": (k + 1) / 10, "n": 0, "confidence": None, "accuracy": None}
        for k in range(10)
    ]
    bins[9] |= {"n": 12345, "confidence": 0.999, "accuracy": 0.0}
    bins[1] |= {"n": 1, "confidence": 0.15, "accuracy": 1.0}
    confusion = (np.asarray(summary().confusion) * 1234).tolist()
    confusion[0] = [12345] + [0] * 6
    result = summary(
        corpus=HOSTILE,
        corpus_title="",
        corpus_licence=HOSTILE,
        trained_on=names[1],
        protocol_text=HOSTILE,
        selected_on="test",
        synthetic=True,
        n=12346,
        utterances=4115,
        skipped=1,
        left_out=7,
        accuracy={"value": 0.5, "low": None, "high": None},
        uar={"value": 1.0, "low": 1.0, "high": 1.0},
        speakers=dict(zip(names, rng.uniform(0, 1, 50).tolist(), strict=True)),
        speaker_n=dict.fromkeys(names, 12345),
        shared={"speakers": 1, "sentences": None},
        calibration=bins,
        calibration_error=0.999,
        settings={f"{HOSTILE}.field": HOSTILE * 3, "weights": "", "model.gates": ["a", "b"]},
        heads={HOSTILE: {"accuracy": 0.1, "uar": None}},
        paper=paper(accuracy=0.9005, macro_f1=0.1, departures=["the paper differs", HOSTILE]),
        folds=[
            {"fold": k, "n": 12345, "epoch": 2, "accuracy": 0.1, "dev_rule": HOSTILE}
            for k in range(2)
        ],
        confusion=confusion,
    )
    diverged = [{"epoch": 1, "train_loss": 1e6}, {"epoch": 2, "test_loss": float("nan")}]
    history = [{"epoch": k, "train_loss": 1e6 / k, "test_uar": 0.0} for k in range(1, 201)]
    picture = rng.integers(0, 256, (3, 64, 64), np.uint8)
    errors = [
        example(HOSTILE * 3, speaker=names[1], audio=sound()),
        example(names[1], pictures=list(picture), gates={}),
        example("features", pictures=[], gates={}, sentence=""),
    ]
    return {
        "result": result,
        "histories": [history, diverged],
        "errors": errors,
        "hits": [example(prediction="DISGUST")],
        "audio_terms": HOSTILE,
    }


def sound() -> bytes:
    """A FLAC file of half a second."""
    file = io.BytesIO()
    soundfile.write(file, np.sin(np.arange(8000) / 5), 16_000, format="FLAC", subtype="PCM_16")
    return file.getvalue()
