"""Writes report.html: what report.json says, for people, in one file that asks for no other."""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
import numpy as np

from ds_jax.report import overlay, plots
from ds_jax.runtime.files import write_text

SCORES = {"accuracy": "Accuracy", "uar": "UAR", "macro_f1": "Macro F1"}
CLASS_SCORES = {"precision": "Precision", "recall": "Recall", "f1": "F1"}
CLIP_SECONDS = 15  # heard of a recording at most
# What stands for a field that a report may lack.
OPTIONAL = {
    "heads": {},
    "synthetic": False,
    "skipped": 0,
    "missing_folds": (),
    "evaluated_by": "",
    "chosen": "epoch",
    "utterances": None,
    "protocol_text": "",
    "left_out": 0,
    "equal_left_out": 0,
    "trained_on": "",
    "calibration_error": None,
    "calibration": [],
    "speaker_n": {},
    "paper": None,
    "settings": {},
    "audio_terms": "",
    "title": "",
}


@dataclass(frozen=True)
class Example:
    """An utterance that a system judged, to be looked at and perhaps heard.

    Attributes:
        utterance: its name.
        speaker: who says it.
        sentence: what is said; empty where unknown.
        seconds: how long it is.
        label: what it is.
        prediction: what the system took it for.
        probability: of the prediction, 0 to 1.
        label_probability: of the label, 0 to 1.
        pictures: uint8 [canvas, canvas] each, indices into a colour map of 256 entries; one or, of
            a recording that was cut in windows, the first few; none where a system reads features.
        gates: by the name of the layer, float [height, width], 0 (closed) to 1 (open); only where
            there is one picture.
        audio: of the recording, a FLAC file; empty where it is not to be heard.
    """

    utterance: str
    speaker: str
    sentence: str
    seconds: float
    label: str
    prediction: str
    probability: float
    label_probability: float
    pictures: Sequence[np.ndarray] = ()
    gates: Mapping[str, np.ndarray] = field(default_factory=dict)
    audio: bytes = b""


def write(
    path: str | Path,
    report: Mapping,
    histories: Sequence[Sequence[Mapping]],
    errors: Sequence[Example],
    hits: Sequence[Example],
) -> None:
    """Writes the report of a run as one self-contained HTML file.

    The same input always gives the same bytes. `histories`, `errors` and `hits` may be empty; what
    is not there is left out of the page.

    Args:
        path: the file to write, whole or not at all.
        report: the content of report.json.
        histories: for each fold the rows of its metrics.jsonl, one an epoch.
        errors: the most confident wrong answers, to be shown.
        hits: the most confident right ones.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=_percent, extent=extent, cell=_cell, printed=printed)
    content = OPTIONAL | dict(report)
    colour_map = content["settings"].get("picture.colour_map", "viridis")
    page = environment.get_template("report.html.jinja").render(
        report=content,
        titles={content["corpus"]: content["title"]} if content["title"] else {},
        names=SCORES,
        class_names=CLASS_SCORES,
        confusion=_confusion(report),
        fold_columns=list(dict.fromkeys(name for fold in report["folds"] for name in fold)),
        speakers=sorted(report["speakers"].items(), key=lambda item: (item[1], item[0])),
        curves=plots.curves(histories, report["folds"]),
        reliability=plots.reliability(content["calibration"]) if content["calibration"] else None,
        plane=plots,
        clip_seconds=CLIP_SECONDS,
        errors=[_illustrate(example, colour_map) for example in errors],
        hits=[_illustrate(example, colour_map) for example in hits],
    )
    write_text(path, page)


def printed(share: float) -> str:
    """What the paper printed, with its digits: 0.706 as 70.6, 0.9005 as 90.05."""
    return f"{100 * share:.2f}".removesuffix("0")


def picture_uri(pixels: np.ndarray) -> str:
    """A picture, uint8 [height, width, 3], as a data URI."""
    return _uri("image/png", overlay.png(pixels))


def extent(share: float | None) -> str:
    """A share in the units of a bar 100 wide; a share of nothing has no length."""
    return f"{100 * share:.2f}" if _is_known(share) else "0"


def _percent(share: float | None, unit: str = "\N{NO-BREAK SPACE}%") -> str:
    """0.714 as 71.4 %; a dash for a share of nothing (None or NaN)."""
    return f"{100 * share:.1f}{unit}" if _is_known(share) else "\N{EN DASH}"


def _is_known(share: float | None) -> bool:
    return share is not None and math.isfinite(share)


def _cell(value: object, column: str) -> str:
    """A field of a fold or a config as text; scores are shares, other numbers what they are."""
    if isinstance(value, Mapping):
        value = value.get("value")
    if value in (None, "", []):
        return "\N{EN DASH}"
    if column in SCORES:
        return _percent(value)
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _confusion(report: Mapping) -> list[tuple[str, int, list[tuple[str, int, float | None]]]]:
    """Rows (label, support, cells); a cell is (predicted label, count, share of its row)."""
    rows = []
    for label, counts in zip(report["labels"], report["confusion"], strict=True):
        support = sum(counts)
        shares = [count / support if support else None for count in counts]
        rows.append((label, support, list(zip(report["labels"], counts, shares, strict=True))))
    return rows


def _illustrate(example: Example, colour_map: str) -> dict:
    """What a page shows of an utterance; files as data URIs."""
    pictures = [overlay.colour(picture, colour_map) for picture in example.pictures]
    return {
        "of": example,
        "pictures": [picture_uri(pixels) for pixels in pictures],
        "gates": [
            {
                "name": name,
                "low": gate.min(),
                "high": gate.max(),
                "uri": picture_uri(overlay.fade_by_gate(pictures[0], gate)),
            }
            for name, gate in example.gates.items()
        ],
        "audio": _uri("audio/flac", example.audio) if example.audio else "",
    }


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
