"""How the models of a run do on a corpus: another one, or their own test sides once more."""

from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from ds_jax import config as configuration
from ds_jax.data import folds, leakage
from ds_jax.data.corpus import Corpus, Utterance
from ds_jax.evaluation import predictions, summary
from ds_jax.report import paper_numbers, results
from ds_jax.runtime import locks, processes
from ds_jax.runtime.files import read_json, remove_unfinished
from ds_jax.runtime.workdir import CHECKPOINTS, CONFIG, FOLDS, PAGE, PREDICTIONS
from ds_jax.systems import base as systems
from ds_jax.training import inference, parallel

# How ELRA-S0329's actors spoke its neutral texts besides normally.
NEUTRAL_STYLES_LEFT_OUT = ("loud", "soft", "slow", "fast")


def run(workdir: Path, corpus: Corpus) -> dict | None:
    """Evaluates a run's best checkpoints on a corpus and writes `evaluations/<corpus>/`.

    An utterance is judged by the models that never saw it, by the mean of their probabilities: on
    the corpus that they were trained on by the model of the fold that tests it, on another corpus
    by all of them (train with the protocol `whole_corpus` for a single one). On another corpus
    NEUTRAL spoken loud, soft, slow or fast is left out (paper, section 3.3, fourth experiment), and
    so are recordings that the models know from the corpus that they were trained on.

    Args:
        workdir: Of the run.
        corpus: To be tested on, represented by the settings of the run.

    Returns:
        The content of report.json; None in processes that do not write.

    Raises:
        FileNotFoundError: There is no run, or none of its folds is finished.
        ValueError: The run has no test side in this corpus, or the corpus has changed.
    """
    config = configuration.read(workdir)
    trained = [path.parent for path in sorted(workdir.glob(f"fold_*/{PREDICTIONS}"))]
    if not trained:
        raise FileNotFoundError(f"{workdir} has no finished fold: train at least one first")
    own = corpus.name == config.corpus
    made = read_json(workdir / FOLDS)
    protocol, shared, left_out = made["protocol"], {"speakers": None, "sentences": None}, 0
    if own:
        _, divided = folds.read_folds(
            workdir / FOLDS, corpus.utterances, config.select_on, own=True
        )
        shared = folds.shared(divided, corpus.utterances)
        equal = len(
            leakage.excluded_duplicates([fold.splits for fold in divided], corpus.utterances)
        )
        tested = {fold: divided[_number(fold)].test for fold in trained}
    else:
        kept = [u for u in corpus.utterances if not _is_left_out(u)]
        left_out = len(corpus.utterances) - len(kept)
        known = {*made.get("digests", {}).values()}
        unheard = [u for u in kept if u.digest not in known]
        equal, shared["recordings"] = len(kept) - len(unheard), 0 if known else None
        if equal:
            processes.say(
                f"{equal} recordings of {corpus.name} are left out, since the models know them "
                f"from {config.corpus}"
            )
        tested = dict.fromkeys(trained, tuple(u.name for u in unheard))
    rows = {fold / CHECKPOINTS: corpus.rows_of(names) for fold, names in tested.items()}
    rows = {checkpoints: own_rows for checkpoints, own_rows in rows.items() if len(own_rows)}
    if not rows:
        raise ValueError(
            f"the run in {workdir} tested nothing of {corpus.name}, which it was trained on: "
            "give another corpus by --eval_on"
        )
    if different := configuration.difference(systems.load_config(list(rows)), config):
        raise ValueError(
            f"{workdir / CONFIG} is not what the models were trained by: {different} "
            "here. Bring back the file of the training."
        )
    systems.check_folds({folder: _digest(made, _number(folder.parent)) for folder in rows})
    count = np.zeros(len(corpus.utterances), int)
    total, records = None, []
    for checkpoints, judgement in systems.predict(rows, corpus.inputs, corpus.directory):
        judgement = inference.average_windows(judgement, corpus, rows[checkpoints])
        owners = np.unique(corpus.owners[rows[checkpoints]])
        count[owners] += 1
        total = _add(total, judgement, owners, len(count))
        said = predictions.from_utterances(
            [corpus.utterances[k] for k in owners], judgement.probabilities
        )
        records.append(summary.fold_record(_number(checkpoints.parent), said))
    parallel.forget_programs()
    if not processes.is_first_process():
        return None
    judged = np.flatnonzero(count)
    mean = jax.tree.map(lambda x: (x[judged].T / count[judged]).T.astype(x.dtype), total)
    directory = workdir / "evaluations" / corpus.name
    content = {
        "system": systems.title(config),
        "chosen": systems.SYSTEMS[config.system].chooses,
        "protocol": protocol,
        "selected_on": config.select_on,
        "shared": shared,
        "folds": records,
        "synthetic": config.synthetic,
        "paper": paper_numbers.paper_comparison(config, corpus.name, protocol, len(records)),
        "settings": configuration.describe(config),
        "trained_on": config.corpus,
        "left_out": left_out,
        "equal_left_out": equal,
        "evaluated_by": _judges(len(records), own),
    }
    with locks.hold(directory / "evaluation.lock", f"{directory}", wait=True):
        remove_unfinished(directory)
        results.write(directory, [corpus.utterances[owner] for owner in judged], mean)
        result = results.write_report(directory, [directory], corpus, content)
    processes.say(results.summary(result))
    processes.say(f"report: {directory / PAGE}")
    return result


def _judges(models: int, own: bool) -> str:
    """Who judged an utterance."""
    if own:
        return "the mean probability of the models of the folds that test it"
    if models == 1:
        return "one model"
    return f"the mean probability of {models} models, one a fold; the folds below are each alone"


def _number(fold: Path) -> int:
    return int(fold.name.removeprefix("fold_"))


def _digest(made: Mapping, number: int) -> str:
    """The digest of a fold, going by the content of folds.json."""
    sides = {side: made["folds"][number].get(side, ()) for side in folds.SPLITS}
    return leakage.fold_digest(number, sides, made.get("digests", {}))


def _is_left_out(utterance: Utterance) -> bool:
    return utterance.label == "NEUTRAL" and utterance.style in NEUTRAL_STYLES_LEFT_OUT


def _add(
    total: predictions.Predicted | None,
    judgement: predictions.Predicted,
    owners: np.ndarray,
    count: int,
) -> predictions.Predicted:
    """Adds a judgement of some utterances to the sum over all `count` of them."""
    if total is None:
        total = jax.tree.map(lambda x: np.zeros((count, *x.shape[1:]), x.dtype), judgement)

    def add(whole, part):
        whole[owners] += part
        return whole

    return jax.tree.map(add, total, judgement)
