"""The files that hold what a system said, and the reports made from them."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile

from ds_jax.data.corpus import LABELS, Corpus, Utterance
from ds_jax.evaluation import predictions
from ds_jax.evaluation import summary as evaluate
from ds_jax.evaluation.predictions import Predicted
from ds_jax.features import audio
from ds_jax.report import run as report
from ds_jax.runtime import files
from ds_jax.runtime.files import write_bytes, write_json
from ds_jax.runtime.workdir import GATES, METRICS, PAGE, PREDICTIONS, REPORT

# In report.html: wrong and right answers, the pictures of a recording that was cut in windows, and
# the rate in Hz of what is heard of one.
ERRORS, HITS, WINDOWS = 6, 2, 3
CLIP_RATE = 16_000


def write(directory: Path, utterances: Sequence[Utterance], judgement: Predicted) -> None:
    """Writes a judgement: predictions.csv, and for each attention head its own and its gates.

    predictions.csv is written last: where it is, the rest is too, and before it the checksums of
    all of them.

    Args:
        directory: A fold's folder, or an evaluation's.
        utterances: What was judged.
        judgement: A row for each of them.
    """
    directory.mkdir(parents=True, exist_ok=True)
    contents = {}
    for head, probabilities in judgement.head_probabilities.items():
        name = f"predictions_{head}.csv"
        contents[name] = predictions.encode(directory / name, utterances, probabilities)
    if judgement.gates:
        names = np.asarray([utterance.name for utterance in utterances])
        gates = {head: gate.astype(np.float16) for head, gate in judgement.gates.items()}
        packed = io.BytesIO()
        np.savez_compressed(packed, utterances=names, **gates)
        contents[GATES] = packed.getvalue()
    for name, content in contents.items():
        write_bytes(directory / name, content)
    path = directory / PREDICTIONS
    contents[PREDICTIONS] = predictions.encode(path, utterances, judgement.probabilities)
    digests = {name: files.sha256(content) for name, content in contents.items()}
    if (directory / METRICS).is_file():  # a fold's, written in training
        digests[METRICS] = files.sha256(directory / METRICS)
    files.write_checksums(directory, digests)
    write_bytes(path, contents[PREDICTIONS])


def read_metrics(directory: Path) -> list[dict]:
    """Reads the rows of a fold's metrics.jsonl.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is damaged.
    """
    path = directory / METRICS
    content = files.check_content(path, path.read_bytes())
    return [json.loads(line) for line in content.decode().splitlines()]


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

    Raises:
        ValueError: A file in one of the folders is missing, or not as it was written.
    """
    for damage in filter(None, map(files.find_damage, sources)):
        raise ValueError(f"{damage}. {files.ADVICE}")
    arguments = {name: content[name] for name in ("system", "protocol", "selected_on", "shared")}
    arguments |= {"corpus": corpus.name}
    pooled = predictions.concatenate([predictions.read(source / PREDICTIONS) for source in sources])
    result = evaluate.evaluate(pooled, folds=content["folds"], **arguments)
    result |= {"heads": _heads(sources), "skipped": corpus.skipped}
    result |= {name: value for name, value in content.items() if name not in result}
    write_json(directory / REPORT, result, sealed=True)
    errors, hits = (_examples(sources, corpus, right) for right in (False, True))
    page = result | {"audio_terms": corpus.audio_terms}
    report.write(directory / PAGE, page, curves, errors, hits)
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
    missing = ", ".join(map(str, result.get("missing_folds", ())))
    return (
        f"{result['system']}{trained} on {result['corpus']}, {result['n']} utterances, protocol "
        f"{result['protocol']}{chosen}: "
        + ", ".join(scores)
        + (f"; MISSING FOLDS: {missing}" if missing else "")
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


def _examples(sources: Sequence[Path], corpus: Corpus, right: bool) -> list[report.Example]:
    """The most confident right or wrong answers; of wrong ones the recording, if it may be heard.

    Of an utterance that was tested several times, only the most confident answer is taken.
    """
    judged = {source: predictions.read(source / PREDICTIONS) for source in sources}
    ranked = sorted(
        (-said.probabilities[row].max(), said.utterances[row], source, row)
        for source, said in judged.items()
        for row in np.flatnonzero((said.labels == said.predictions) == right)
    )
    chosen = {}
    for _, name, source, row in ranked:
        chosen.setdefault(name, (source, row))
    shown = list(chosen.values())[: HITS if right else ERRORS]
    return [_example(corpus, source, judged[source], row, right) for source, row in shown]


def _example(
    corpus: Corpus, source: Path, said: predictions.Predictions, row: int, right: bool
) -> report.Example:
    name = str(said.utterances[row])
    utterance = next(utterance for utterance in corpus.utterances if utterance.name == name)
    # Features are no pictures, and of windows the gates that are kept are means.
    inputs = corpus.inputs[corpus.rows_of((name,))]
    pictures = list(inputs[:WINDOWS]) if inputs.dtype == np.uint8 else []
    gates = _gates(source, name) if len(inputs) == len(pictures) == 1 else {}
    label, prediction = said.labels[row], said.predictions[row]
    return report.Example(
        utterance=name,
        speaker=utterance.speaker,
        sentence=utterance.sentence,
        seconds=utterance.seconds,
        label=LABELS[label],
        prediction=LABELS[prediction],
        probability=float(said.probabilities[row, prediction]),
        label_probability=float(said.probabilities[row, label]),
        pictures=pictures,
        gates=gates,
        audio=b"" if right or name not in corpus.recordings else _clip(corpus.recordings[name]),
    )


def _gates(source: Path, name: str) -> dict[str, np.ndarray]:
    """An utterance's gates by layer; nothing of a system without."""
    path = source / GATES
    if not path.is_file():
        return {}
    content = files.check_content(path, path.read_bytes())
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            position = int(np.flatnonzero(stored["utterances"] == name)[0])
            heads = [head for head in stored.files if head != "utterances"]
            return {head: stored[head][position].astype(np.float32) for head in heads}
    except Exception as error:  # NumPy meets damage with errors of many kinds
        raise ValueError(
            f"{path} is damaged ({error}): delete {source / PREDICTIONS} and run the fold again"
        ) from error


def _clip(path: Path) -> bytes:
    """The beginning of a recording as a small FLAC file."""
    samples, rate = audio.read(path, CLIP_RATE)
    file = io.BytesIO()
    soundfile.write(
        file, samples[: report.CLIP_SECONDS * rate], rate, format="FLAC", subtype="PCM_16"
    )
    return file.getvalue()
