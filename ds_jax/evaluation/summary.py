"""The schema of report.json, which training and evaluation both fill, and its file."""

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from ds_jax.evaluation import metrics, significance
from ds_jax.evaluation.intervals import intervals
from ds_jax.evaluation.predictions import Predictions
from ds_jax.runtime.files import read_json, write_json


class Score(TypedDict):
    """A score in 0..1 and its 95 % interval, which a single utterance does not have."""

    value: float
    low: float | None
    high: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSummary:
    """The results of a run, or of its models on another corpus; the content of report.json.

    The fields with a default are those that reports of earlier versions may lack.

    Attributes:
        corpus: The name of the corpus that was tested, such as "emodb".
        corpus_title: Its published name, such as "EmoDB"; empty if it has none.
        corpus_licence: The terms of its recordings; empty if unknown.
        system: The title of the system, such as "DS-AM" or "SVC on MSF".
        protocol: The name of the rule that made the folds, one of `folds.PROTOCOLS`.
        protocol_text: The rule in words.
        selected_on: The split that chose the epoch, "dev" or "test"; "none" where none was chosen,
            as by systems without epochs.
        adapt: "speaker" where each recording was standardised by all recordings of its speaker in
            the corpus, without their labels; else "none".
        n: The number of predictions.
        utterances: The number of different utterances among them; None if unknown.
        labels: All labels, in the order of `confusion`.
        classes_present: The labels that occur among the utterances tested.
        accuracy: The share of utterances whose label was predicted.
        uar: The unweighted average recall, over the classes present.
        macro_f1: The mean F1, over the classes present.
        interval: How the 95 % intervals were computed, as a sentence.
        calibration_error: The expected calibration error in 0..1; None if unknown.
        calibration: The rows of the reliability diagram, see `metrics.calibration`.
        confusion: How often each label (row) was predicted as each label (column).
        per_class: By label "precision", "recall", "f1" and "support".
        speakers: The accuracy of each speaker; empty where speakers are unknown.
        speaker_n: The number of predictions for each speaker.
        shared: How many "speakers", "sentences" and "recordings" of a test split are in its train
            or dev too, summed over folds; None where they were not counted, or are unknown.
        folds: A record for each fold, see `fold_record`; with the sizes of "train" and "dev", the
            "dev_rule", and the "epoch", "C" or "weight" that was chosen, where there are such.
        heads: The three scores of each attention head, or member of an ensemble, alone.
        heads_tested: For each of them the "interval" of each score, (low, high), and the difference
            "minus_all" to what all answer together, see `significance.compare`, with a "p_holm" for
            each score that is adjusted for the number of heads.
        skipped: The number of recordings of the corpus that could not be used.
        chosen: What a system chooses besides its parameters: "epoch", "C" or nothing ("").
        equal_left_out: The number of recordings that were excluded, since the same recording under
            another name was tested or, on another corpus, had trained the models.
        missing_folds: The numbers of the folds that are not finished.
        synthetic: Whether the recordings were generated.
        generated: How many generated pictures trained the models, over all folds; none was tested.
        auxiliary: Each other corpus that trained the models too, with its "corpus" (the name),
            "title", "licence" and number of "recordings"; none of them was tested.
        paper: The numbers that the paper prints for this system and corpus, see
            `paper_numbers.paper_comparison`; None where it prints none.
        settings: All fields of the run's config, by their full names.
        trained_on: The name of the corpus that the models were trained on; empty in the report of
            a training run.
        trained_on_title: Its published name; empty if unknown.
        left_out: The number of NEUTRAL utterances that were excluded for their style.
        other_labels: The number of utterances of each label that stands for no class of the run.
        untrained: For each class that some models cannot answer, since no training utterance has
            it, the number of these models.
        uar_answerable: The unweighted average recall over the classes present that some model can
            answer; None if they are all.
        evaluated_by: Which models predicted each utterance, as a phrase after "tested by".
        made: How the report came about: when it "began", the "command", the "versions" of the
            libraries, the "devices" (each with "kind" and "number"), the "seconds" of training or
            predicting, the hash of the "weights", and, where there are any, the number of
            "stopped_fits" of support vectors, which had not converged after as many steps as they
            are allowed, and the "model_terms" of embeddings, sentences. Two summaries are equal
            whatever it is.
    """

    corpus: str
    corpus_title: str = ""
    corpus_licence: str = ""
    system: str
    protocol: str
    protocol_text: str = ""
    selected_on: str
    adapt: str = "none"
    n: int
    utterances: int | None = None
    labels: list[str]
    classes_present: list[str]
    accuracy: Score
    uar: Score
    macro_f1: Score
    interval: str
    calibration_error: float | None = None
    calibration: list[dict[str, float | int | None]] = dataclasses.field(default_factory=list)
    confusion: list[list[int]]
    per_class: dict[str, dict[str, float | int]]
    speakers: dict[str, float]
    speaker_n: dict[str, int] = dataclasses.field(default_factory=dict)
    shared: dict[str, int | None]
    folds: list[dict[str, Any]]
    heads: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    heads_tested: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    skipped: int = 0
    chosen: str = "epoch"
    equal_left_out: int = 0
    missing_folds: list[int] = dataclasses.field(default_factory=list)
    synthetic: bool = False
    generated: int = 0
    auxiliary: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    paper: dict[str, Any] | None = None
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    trained_on: str = ""
    trained_on_title: str = ""
    left_out: int = 0
    other_labels: dict[str, int] = dataclasses.field(default_factory=dict)
    untrained: dict[str, int] = dataclasses.field(default_factory=dict)
    uar_answerable: Score | None = None
    evaluated_by: str = ""
    made: dict[str, Any] = dataclasses.field(default_factory=dict, compare=False)

    @property
    def ranked_speakers(self) -> list[tuple[str, float]]:
        """The speakers and their accuracies, the lowest first."""
        return sorted(self.speakers.items(), key=lambda item: (item[1], item[0]))


def measure(
    predictions: Predictions,
    heads: Mapping[str, Predictions] | None = None,
    unanswerable: Collection[str] = (),
) -> dict:
    """Computes all fields of a `RunSummary` that follow from predictions alone.

    Args:
        predictions: The pooled predictions of all folds.
        heads: The same for each attention head alone.
        unanswerable: The classes that no model was trained on.

    Returns:
        The values by the names of their fields.

    Raises:
        ValueError: There is no prediction to evaluate.
    """
    matrix, classes = predictions.confusion, predictions.classes
    if not matrix.any():
        raise ValueError("there is no prediction to evaluate: the test split is empty")
    ranges, method = intervals(predictions)
    calibration = metrics.calibration(predictions.labels, predictions.probabilities)
    right = predictions.labels == predictions.predictions
    known = predictions.speakers[predictions.speakers != ""]
    names, counts = np.unique(known, return_counts=True)
    return {
        "n": len(predictions.labels),
        "utterances": len(np.unique(predictions.utterances)),
        "labels": list(classes),
        "classes_present": [classes[index] for index in np.unique(predictions.labels)],
        **{
            name: Score(value=value, low=ranges[name][0], high=ranges[name][1])
            for name, value in _scores(matrix).items()
        },
        "interval": method,
        "calibration_error": metrics.calibration_error(calibration),
        "calibration": calibration,
        "confusion": matrix.tolist(),
        "per_class": metrics.per_class(matrix, classes),
        "speakers": {
            str(name): float(right[predictions.speakers == name].mean()) for name in names
        },
        "speaker_n": dict(zip(map(str, names), counts.tolist(), strict=True)),
        "heads": {name: _scores(head.confusion) for name, head in (heads or {}).items()},
        "heads_tested": _test_heads(predictions, heads or {}),
        "uar_answerable": _uar_without(predictions, unanswerable),
    }


def _test_heads(together: Predictions, heads: Mapping[str, Predictions]) -> dict[str, dict]:
    """Returns the `heads_tested` of a `RunSummary`."""
    together = [together]
    differences = significance.adjust(
        [significance.compare([head], together, [len(head.labels)]) for head in heads.values()]
    )
    return {
        name: {
            "interval": {score: list(limits) for score, limits in intervals(head)[0].items()},
            "minus_all": difference,
        }
        for (name, head), difference in zip(heads.items(), differences, strict=True)
    }


def _uar_without(predictions: Predictions, excluded: Collection[str]) -> Score | None:
    """Returns the UAR over the other classes present; None if there is none, or no excluded one."""
    names = np.asarray(predictions.classes)[predictions.labels]
    kept = predictions.keep(~np.isin(names, list(excluded)))
    if len(kept.labels) in (0, len(names)):
        return None
    low, high = intervals(kept)[0]["uar"]
    return Score(value=float(metrics.uar(kept.confusion)), low=low, high=high)


def fold_record(number: int, confusion: np.ndarray) -> dict[str, Any]:
    """Returns the record of a fold: its number "fold", the size "n" of its test, three scores."""
    return {"fold": number, "n": int(confusion.sum())} | _scores(confusion)


def write(path: Path, summary: RunSummary) -> None:
    """Writes report.json."""
    write_json(path, dataclasses.asdict(summary), sealed=True)


def read(path: Path) -> RunSummary:
    """Reads report.json; fields that an earlier version did not write get their defaults.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, or it is not the report of a run.
    """
    content, fields = read_json(path), dataclasses.fields(RunSummary)
    if content.get("chosen", "epoch") != "epoch":  # earlier versions said "dev"
        content["selected_on"] = "none"
    for field in fields:
        optional = (field.default, field.default_factory) != (dataclasses.MISSING,) * 2
        if not optional and field.name not in content:
            raise ValueError(f"{path} lacks {field.name!r}: name the folder of a run")
    return RunSummary(**{f.name: content[f.name] for f in fields if f.name in content})


def _scores(matrix: np.ndarray) -> dict[str, float]:
    return {name: float(score(matrix)) for name, score in metrics.SCORES.items()}
