"""The files that hold what a system said, and the reports made from them."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ds_jax import evaluate, predictions, report
from ds_jax.corpus import LABELS, Corpus, Utterance
from ds_jax.files import write_bytes, write_json
from ds_jax.inference import Judgement

PREDICTIONS = "predictions.csv"
GATES = "gates.npz"
SHOWN = 3  # pictures in a report of confident hits, and as many of confident errors


def write(directory: Path, utterances: Sequence[Utterance], judgement: Judgement) -> None:
    """Writes a judgement: predictions.csv, and for each attention head its own and its gates.

    predictions.csv is written last: where it is, the rest is too.

    Args:
        directory: A fold's folder, or an evaluation's.
        utterances: What was judged.
        judgement: A row for each of them.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for head, probabilities in judgement.head_probabilities.items():
        predictions.write(directory / f"predictions_{head}.csv", utterances, probabilities)
    if judgement.gates:
        names = np.asarray([utterance.name for utterance in utterances])
        gates = {head: gate.astype(np.float16) for head, gate in judgement.gates.items()}
        packed = io.BytesIO()
        np.savez_compressed(packed, utterances=names, **gates)
        write_bytes(directory / GATES, packed.getvalue())
    predictions.write(directory / PREDICTIONS, utterances, judgement.probabilities)


def write_report(
    directory: Path,
    sources: Sequence[Path],
    corpus: Corpus,
    content: Mapping,
    curves: Sequence[Sequence[Mapping]] = (),
) -> dict:
    """Writes report.json and report.html from the predictions in some folders.

    Args:
        directory: Where the reports go.
        sources: Folders that `write` filled, one a fold.
        corpus: What was tested on.
        content: What the report says besides scores: the arguments `system`, `protocol`,
            `selected_on`, `shared` and `folds` of `evaluate.evaluate`, and anything else by name.
        curves: For each fold the rows of its metrics.jsonl.

    Returns:
        The content of report.json.
    """
    arguments = {name: content[name] for name in ("system", "protocol", "selected_on", "shared")}
    arguments |= {"corpus": corpus.name}
    pooled = predictions.concatenate([predictions.read(source / PREDICTIONS) for source in sources])
    result = evaluate.evaluate(pooled, folds=content["folds"], **arguments)
    result |= {"heads": _heads(sources), "skipped": corpus.skipped}
    result |= {name: value for name, value in content.items() if name not in result}
    write_json(directory / "report.json", result)
    report.write(directory / "report.html", result, curves, _pictures(sources, corpus))
    return result


def summary(result: Mapping) -> str:
    """The three scores of a report with their intervals, in a line."""
    scores = []
    for title, name in (("accuracy", "accuracy"), ("UAR", "uar"), ("macro F1", "macro_f1")):
        score = result[name]
        known = score["low"] is not None
        interval = f" ({score['low']:.3f} to {score['high']:.3f})" if known else ""
        scores.append(f"{title} {score['value']:.3f}{interval}")
    trained = f" trained on {result['trained_on']}, tested" if "trained_on" in result else ""
    epoch = result["chosen"] == "epoch"
    chosen = f", epoch chosen on {result['selected_on']}" if epoch else ""
    return (
        f"{result['system']}{trained} on {result['corpus']}, {result['n']} utterances, protocol "
        f"{result['protocol']}{chosen}: " + ", ".join(scores)
    )


def _heads(sources: Sequence[Path]) -> dict[str, dict[str, float]]:
    """Accuracy, UAR and macro F1 of each attention head alone."""
    names = sorted(path.stem for path in sources[0].glob("predictions_*.csv"))
    heads = {}
    for name in names:
        parts = [predictions.read(source / f"{name}.csv") for source in sources]
        pooled = predictions.concatenate(parts)
        record = evaluate.fold_record(0, pooled)
        heads[name.removeprefix("predictions_")] = {
            score: record[score] for score in ("accuracy", "uar", "macro_f1")
        }
    return heads


def _pictures(sources: Sequence[Path], corpus: Corpus) -> list[report.GatedPicture]:
    """The most confident errors and hits; with their gates where a system has some."""
    if corpus.inputs.dtype != np.uint8 or len(corpus.inputs) > len(corpus.utterances):
        # Features are no pictures; of windows an utterance's probabilities and gates are means.
        return []
    judged = {source: predictions.read(source / PREDICTIONS) for source in sources}
    ranked = sorted(
        (-said.probabilities[row].max(), said.utterances[row], source, row)
        for source, said in judged.items()
        for row in range(len(said.labels))
    )
    chosen = {True: [], False: []}
    for _, _, source, row in ranked:
        right = bool(judged[source].labels[row] == judged[source].predictions[row])
        if len(chosen[right]) < SHOWN:
            chosen[right].append(_gated(corpus, source, judged[source], row))
    return chosen[False] + chosen[True]


def _gated(
    corpus: Corpus, source: Path, said: predictions.Predictions, row: int
) -> report.GatedPicture:
    name, gates = str(said.utterances[row]), {}
    if (source / GATES).is_file():
        with np.load(source / GATES, allow_pickle=False) as stored:
            position = int(np.flatnonzero(stored["utterances"] == name)[0])
            heads = [head for head in stored.files if head != "utterances"]
            gates = {head: stored[head][position].astype(np.float32) for head in heads}
    return report.GatedPicture(
        utterance=name,
        label=LABELS[said.labels[row]],
        prediction=LABELS[said.predictions[row]],
        probability=float(said.probabilities[row].max()),
        picture=corpus.inputs[corpus.rows_of((name,))[0]],
        gates=gates,
    )
