"""Trains networks on folds, one after the other or one a device."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax
import ml_collections
import numpy as np

from ds_jax import config as configuration
from ds_jax.data import leakage
from ds_jax.data.corpus import LABELS, Corpus
from ds_jax.data.folds import Fold
from ds_jax.evaluation import metrics, predictions
from ds_jax.runtime import processes, progress, shutdown
from ds_jax.runtime.workdir import CHECKPOINTS, TENSORBOARD, fold_directory
from ds_jax.training import inference, parallel, unfinished
from ds_jax.training.checkpoints import Checkpoints
from ds_jax.training.events import Events
from ds_jax.training.experiment import Experiment
from ds_jax.training.fold import FoldTraining, Progress
from ds_jax.training.input_pipeline import split_batches
from ds_jax.training.parallel import BATCH, FOLDS, Layout
from ds_jax.training.step import TrainState, create_state


def train_folds(
    experiment: Experiment, folds: Mapping[int, Fold], workdir: Path
) -> Iterator[tuple[int, predictions.Predicted | None]]:
    """Trains on folds, or goes on where an earlier call was stopped.

    Args:
        experiment: What the folds share.
        folds: By their numbers, which seed what is random in them.
        workdir: Each fold's checkpoints and metrics go to its folder there.

    Yields:
        A fold's number and what its best epoch says of its test utterances, ordered by name; None
        without any. Of several processes the one that is to write it yields it.

    Raises:
        FloatingPointError: A loss is not finite; the last good checkpoint is named.
    """
    longest = _longest(experiment, folds)
    own, rest = parallel.share(list(folds), experiment.config.parallel)
    # A device that a fold has freed early takes one of the rest; processes would have to agree.
    spare = rest if jax.process_count() == 1 else []
    yield from _train(experiment, FOLDS, longest, folds, own, spare, workdir)
    yield from _train(experiment, BATCH, longest, folds, rest, [], workdir)


def _longest(experiment: Experiment, folds: Mapping[int, Fold]) -> tuple[int, int]:
    """Batches of the longest epoch, and of the longest side that is judged."""
    corpus, size = experiment.corpus, experiment.config.train.batch_size
    chooser = experiment.config.select_on
    train = [len(corpus.rows_of(fold.train)) for fold in folds.values()]
    judged = [
        len(corpus.rows_of(names))
        for fold in folds.values()
        for names in (getattr(fold, chooser), fold.test)
    ]
    return -(-max(train, default=0) // size), -(-max(judged, default=0) // size)


def _train(
    experiment: Experiment,
    layout: Layout,
    longest: tuple[int, int],
    folds: Mapping[int, Fold],
    waiting: list[int],
    spare: list[int],
    workdir: Path,
) -> Iterator[tuple[int, predictions.Predicted | None]]:
    """Trains folds in the lanes of a layout; a fold that is over makes room for the next.

    Those that wait are all taken, and of the spare ones as many as find room beside others.
    """
    config = experiment.config
    width = layout.width(config.train.batch_size)
    epoch_length, judge_length = (experiment.inputs.length(n, width) for n in longest)
    running, states = {}, None
    with shutdown.defer_sigterm(), contextlib.ExitStack() as opened:
        while waiting or running:
            if layout.any_process(shutdown.sigterm_received()):
                raise shutdown.Interrupted
            for lane in sorted(set(range(layout.lanes)) - set(running)):
                if not waiting and not (spare and running):
                    break
                number = (waiting or spare).pop(0)
                directory = fold_directory(workdir, number)
                running[lane], state = _open(experiment, layout, number, folds[number], directory)
                opened.callback(running[lane].close)
                if states is None:
                    states = layout.place([state] * layout.lanes)
                else:
                    states = layout.replace(states, lane, state)
            learning = {k: t for k, t in running.items() if not t.is_over(config.train)}
            if learning:
                states, losses, seconds = _run_epoch(
                    experiment, layout, learning, states, epoch_length
                )
                rows = {lane: training.chooser_rows for lane, training in learning.items()}
                try:
                    judged = _judge(experiment, layout, states.variables, rows, judge_length)
                except shutdown.Interrupted:
                    _save_unfinished(layout, learning, states, losses, seconds)
                    raise
                for lane, training in learning.items():
                    state = layout.take(states, lane)
                    _end_epoch(experiment, training, state, losses[lane], judged[lane], seconds)
            over = {k: t for k, t in running.items() if t.is_over(config.train)}
            variables = states.variables
            for lane, training in over.items():
                if len(training.test_rows):
                    best = training.load_best(layout.take(variables, lane))
                    variables = layout.replace(variables, lane, best)
            rows = {lane: training.test_rows for lane, training in over.items()}
            judged = _judge(experiment, layout, variables, rows, judge_length)
            for lane, training in over.items():
                running.pop(lane).close()
                if training.writes:
                    yield training.number, judged.get(lane)


def _open(
    experiment: Experiment, layout: Layout, number: int, fold: Fold, directory: Path
) -> tuple[FoldTraining, TrainState]:
    """Starts with a fold, or goes on with it where an earlier call was stopped."""
    config, corpus = experiment.config, experiment.corpus
    network = experiment.programs_for(layout).network
    rng = jax.random.fold_in(jax.random.key(config.seeds.initialisation), number)
    rows, chooser_rows = (corpus.rows_of(fold.splits[side]) for side in ("train", config.select_on))
    for what, own, side in (
        ("scaling", rows, "train"),
        ("the choice of the epoch", chooser_rows, config.select_on),
    ):
        leakage.check_rows(f"fold {number}: {what}", own, corpus, fold.splits, (side,))
    scaling = network.scaling(corpus.inputs, rows)
    state = create_state(network, experiment.optimiser, experiment.pretrained, rng, scaling)
    writes = layout.folds or processes.is_first_process()
    checkpoints = Checkpoints(directory / CHECKPOINTS, trains=True, alone=layout.folds)
    progress, latest = Progress(), checkpoints.latest
    parts = {"variables": state.variables, "optimizer": state.optimizer}
    digest = leakage.fold_digest(number, fold.splits, corpus.digests)
    if latest is not None:
        saved = checkpoints.metadata(latest)
        leakage.check_fold(checkpoints.directory, saved["fold"], digest)
        there = ml_collections.ConfigDict(saved["config"])
        if different := configuration.difference(there, config):
            raise ValueError(
                f"{checkpoints.directory} is of another experiment: {different} now. Delete the "
                "folder, or bring back its own."
            )
        state = state.resume(**checkpoints.load(latest, **parts))
        progress = Progress(**saved["progress"])
    notice, losses, seconds = checkpoints.notice, np.empty(0, np.float32), 0.0
    try:
        begun = unfinished.load(directory, (latest or 0) + 1, digest, **parts)
    except ValueError as error:  # the checkpoint before it is whole
        begun, notice = None, notice or f"{error}: the epoch starts anew"
    if begun is not None:
        state = state.resume(begun.variables, begun.optimizer)
        losses, seconds = begun.losses, begun.seconds
    events = Events(directory / TENSORBOARD, (latest or 0) + 1) if writes else None
    training = FoldTraining(
        number,
        fold,
        digest,
        rows,
        chooser_rows,
        corpus.rows_of(fold.test),
        directory,
        writes,
        checkpoints,
        progress,
        events,
        losses,
        seconds,
    )
    if notice:
        training.say(notice)
    if latest is not None or len(losses):
        steps = f" and {len(losses)} steps" if len(losses) else ""
        training.say(f"going on after epoch {latest or 0}{steps} from {checkpoints.directory}")
        training.write_history()  # it may have been stopped just before
    return training, state


def _run_epoch(
    experiment: Experiment,
    layout: Layout,
    lanes: Mapping[int, FoldTraining],
    states: TrainState,
    length: int,
) -> tuple[TrainState, dict[int, np.ndarray], float]:
    """Takes a step for each batch; returns the states, all losses of each lane, and seconds.

    Raises:
        Interrupted: SIGTERM came; the steps taken are saved.
    """
    config, train_step = experiment.config, experiment.programs_for(layout).train_step
    size = config.train.batch_size
    batches = [[]] * layout.lanes
    numbers, scales = np.zeros(layout.lanes, np.int32), np.zeros(layout.lanes, np.float32)
    for lane, training in lanes.items():
        order = training.order(config.seeds.order)
        what = f"fold {training.number}: training"  # batch normalisation included
        leakage.check_rows(what, order, experiment.corpus, training.fold.splits, ("train",))
        batches[lane] = split_batches(order, size)[len(training.losses) :]
        numbers[lane], scales[lane] = training.number, training.progress.learning_rate_scale
    numbers, scales = layout.stack(numbers), layout.stack(scales)
    losses, late, began = [np.empty((layout.lanes, 0), np.float32)], None, time.monotonic()
    steps, shown, interrupted = max(map(len, batches)), processes.is_first_process(), False
    with progress.bar(_title(lanes), steps, "steps", shown=shown) as bar:
        for chunk in experiment.inputs.chunks(layout, batches, length, layout.width(size)):
            states, loss = train_step(states, numbers, scales, *chunk)
            # The host reads a dispatch while the devices work at the next.
            late, ready = loss, late
            if ready is not None:
                losses.append(jax.device_get(ready).reshape(layout.lanes, length))
                bar.update(min(length, steps - bar.n))
            if interrupted := layout.any_process(shutdown.sigterm_received()):
                break
        if late is not None:
            losses.append(jax.device_get(late).reshape(layout.lanes, length))
    losses, seconds = np.concatenate(losses, axis=1), time.monotonic() - began
    of_lane = {
        lane: np.concatenate([training.losses, losses[lane, : len(batches[lane])]])
        for lane, training in lanes.items()
    }
    seconds += max(training.seconds for training in lanes.values())
    if interrupted:
        _save_unfinished(layout, lanes, states, of_lane, seconds)
        raise shutdown.Interrupted
    return states, of_lane, seconds


def _save_unfinished(
    layout: Layout,
    lanes: Mapping[int, FoldTraining],
    states: TrainState,
    losses: Mapping[int, np.ndarray],
    seconds: float,
) -> None:
    """Saves the steps of an epoch that each lane has taken, be it all of them."""
    for lane, training in lanes.items():
        state = layout.take(states, lane)
        if training.writes:
            begun = unfinished.Unfinished(state.variables, state.optimizer, losses[lane], seconds)
            unfinished.save(training.directory, training.epoch + 1, training.digest, begun)
            training.say(f"is saved after epoch {training.epoch} and {len(losses[lane])} steps")


def _title(lanes: Mapping[int, FoldTraining]) -> str:
    """What the progress bar of an epoch is called, however many folds are trained together."""
    folds = list(lanes.values())
    if len(folds) == 1:
        return f"fold {folds[0].number} epoch {folds[0].epoch + 1}"
    numbers = [training.number for training in folds]
    return f"an epoch of {len(folds)} folds, {min(numbers)} to {max(numbers)}"


def _end_epoch(
    experiment: Experiment,
    training: FoldTraining,
    state: TrainState,
    losses: np.ndarray,
    judgement: predictions.Predicted,
    seconds: float,
) -> None:
    """Scores the side that chooses, saves the epoch, and writes down how it went."""
    config, chooser = experiment.config, experiment.config.select_on
    scores = _scores(judgement, experiment.corpus, training.chooser_rows)
    step = int(state.step)
    seen = np.append(losses, scores["loss"])  # the last step may have spoilt the network
    training.check_finite(seen, step)
    row = {"epoch": training.epoch + 1, "step": step, "train_loss": float(np.mean(losses))}
    row |= {f"{chooser}_{name}": value for name, value in scores.items()}
    row["learning_rate_scale"] = training.progress.learning_rate_scale
    rate = len(training.rows) / seconds
    row |= {"inputs_per_second": rate, "seconds": seconds}
    training.progress.record(row, scores["loss"], config.train.plateau_patience)
    training.checkpoints.save(
        training.epoch,
        state.variables,
        state.optimizer,
        scores["loss"],
        config.to_dict(),
        dataclasses.asdict(training.progress),
        training.digest,
    )
    training.log()
    training.end_epoch()
    left = _clock(seconds * (config.train.epochs - training.epoch))
    training.say(
        f"epoch {training.epoch}/{config.train.epochs}  loss {row['train_loss']:.4f}  "
        f"{chooser} loss {scores['loss']:.4f}  UAR {scores['uar']:.3f}  "
        f"{rate:.1f} inputs/s  at most {left} left"
    )


def _judge(
    experiment: Experiment,
    layout: Layout,
    variables: Mapping,
    rows: Mapping[int, np.ndarray],
    length: int,
) -> dict[int, predictions.Predicted]:
    """What the models in some lanes say of their rows, utterance by utterance."""
    wanted = [rows.get(lane, np.empty(0, np.int32)) for lane in range(layout.lanes)]
    judged = inference.predict(
        experiment.programs_for(layout).predict_step,
        variables,
        experiment.inputs,
        layout,
        wanted,
        experiment.config.train.batch_size,
        length,
    )
    return {
        lane: inference.average_windows(judgement, experiment.corpus, wanted[lane])
        for lane, judgement in enumerate(judged)
        if judgement is not None
    }


def _scores(judgement: predictions.Predicted, corpus: Corpus, rows: np.ndarray) -> dict[str, float]:
    """Loss, accuracy and UAR over the utterances that `rows` were cut from."""
    owners = np.unique(corpus.owners[rows])
    labels = np.asarray([LABELS.index(corpus.utterances[owner].label) for owner in owners])
    right = judgement.probabilities[np.arange(len(labels)), labels]
    matrix = metrics.confusion(labels, judgement.probabilities.argmax(axis=1))
    return {
        "loss": float(-np.mean(np.log(np.maximum(right, np.finfo(np.float64).tiny)))),
        "accuracy": float(metrics.accuracy(matrix)),
        "uar": float(metrics.uar(matrix)),
    }


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
