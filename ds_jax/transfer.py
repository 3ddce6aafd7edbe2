"""How the models of a run do on a corpus: another one, or their own test sides once more."""

import json
from pathlib import Path

import jax
import numpy as np

from ds_jax import config as configuration
from ds_jax import devices, evaluate, folds, inference, predictions, results
from ds_jax.corpus import Corpus
from ds_jax.cross_validation import SYSTEMS


def run(workdir: Path, corpus: Corpus) -> dict | None:
    """Evaluates a run's best checkpoints on a corpus and writes `evaluations/<corpus>/`.

    An utterance is judged by the models that never saw it, by the mean of their probabilities: on
    the corpus that they were trained on by the model of the fold that tests it, on another corpus
    by all of them (train with the protocol `whole_corpus` for a single one). On another corpus
    NEUTRAL of other styles than normal is left out (paper, section 3.3, fourth experiment).

    Args:
        workdir: Of the run.
        corpus: To be tested on, its pictures drawn by the settings of the run.

    Returns:
        The content of report.json; None in processes that do not write.

    Raises:
        FileNotFoundError: There is no run, or none of its folds has a checkpoint.
        ValueError: The run has no test side in this corpus, or the corpus has changed.
    """
    config = configuration.read(workdir)
    trained = sorted(workdir.glob("fold_*/checkpoints"))
    if not trained:
        raise FileNotFoundError(f"{workdir} has no checkpoints: train at least one fold first")
    own = corpus.name == config.corpus
    protocol = json.loads((workdir / "folds.json").read_text(encoding="utf-8"))["protocol"]
    divided, shared = None, {"speakers": 0, "sentences": 0}
    if own:
        _, divided = folds.read_folds(workdir / "folds.json", corpus.utterances, config.select_on)
        shared = folds.shared(divided, corpus.utterances)
    everything = tuple(utterance.name for utterance in corpus.utterances)
    judged = np.zeros(len(everything), int)
    total, inputs, predict_step, records = None, None, None, []
    for directory in trained:
        number = int(directory.parent.name.removeprefix("fold_"))
        rows = corpus.pictures_of(divided[number].test if own else everything)
        if not len(rows):
            continue
        loaded, network, variables = inference.load(directory)
        if inputs is None:  # frozen blocks are those of ImageNet, and so alike in all folds
            inputs = inference.resident_inputs(network, variables["params"], corpus.pictures)
            predict_step = inference.create_predict_step(network)
        judgement = inference.judge(predict_step, variables, inputs, rows, loaded.train.batch_size)
        judgement = inference.by_utterance(judgement, corpus, rows)
        owners = np.unique(corpus.owners[rows])
        judged[owners] += 1
        total = _add(total, judgement, owners, len(everything))
        records.append(_record(number, corpus, owners, judgement, own))
    if total is None:
        raise ValueError(
            f"the run in {workdir} tested nothing of {corpus.name}, which it was trained on: "
            "give another corpus by --eval_on"
        )
    if not devices.is_first_process():
        return None
    kept = np.flatnonzero(judged)
    mean = jax.tree.map(lambda x: (x[kept].T / judged[kept]).T.astype(x.dtype), total)
    directory = workdir / "evaluations" / corpus.name
    results.write(directory, [corpus.utterances[owner] for owner in kept], mean)
    content = {
        "system": SYSTEMS[config.system],
        "protocol": protocol,
        "selected_on": config.select_on,
        "shared": shared,
        "folds": records,
        "synthetic": config.synthetic,
        "evaluated_by": f"{len(records)} model{'s' * (len(records) > 1)} trained on "
        f"{config.corpus}, each utterance by those that never saw it",
    }
    style = "any" if own else "normal"
    result = results.write_report(directory, [directory], corpus, content, neutral_style=style)
    devices.say(results.summary(result))
    devices.say(f"report: {directory / 'report.html'}")
    return result


def _add(
    total: inference.Judgement | None,
    judgement: inference.Judgement,
    owners: np.ndarray,
    count: int,
) -> inference.Judgement:
    """Adds a judgement of some utterances to the sum over all `count` of them."""
    if total is None:
        total = jax.tree.map(lambda x: np.zeros((count, *x.shape[1:]), x.dtype), judgement)

    def add(whole, part):
        whole[owners] += part
        return whole

    return jax.tree.map(add, total, judgement)


def _record(
    number: int, corpus: Corpus, owners: np.ndarray, judgement: inference.Judgement, own: bool
) -> dict:
    """What one model alone scores."""
    utterances = [corpus.utterances[owner] for owner in owners]
    said = predictions.of(utterances, judgement.probabilities)
    return evaluate.fold_record(number, said if own else evaluate.normal_neutral_only(said))
