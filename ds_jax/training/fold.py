"""A fold under way: what the loop remembers between epochs, and what it writes."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import ml_collections
import numpy as np

from ds_jax import config as configuration
from ds_jax.config import is_scheduled
from ds_jax.data import leakage
from ds_jax.data.corpus import Corpus
from ds_jax.data.folds import Fold
from ds_jax.evaluation import metrics
from ds_jax.evaluation.predictions import Predicted
from ds_jax.models.create import Variables
from ds_jax.runtime import processes, progress
from ds_jax.runtime.files import write_text
from ds_jax.runtime.progress import many
from ds_jax.runtime.workdir import CHECKPOINTS, METRICS, PREDICTIONS, TENSORBOARD, fold_directory
from ds_jax.training.checkpoints import BEST, load_variables, made, read_card, unflatten
from ds_jax.training.epochs import Epochs
from ds_jax.training.events import Events
from ds_jax.training.input_pipeline import split_batches
from ds_jax.training.step import TrainState

MEASURED = 10  # the loss after an epoch is measured on one training utterance of this many
PLATEAU_FACTOR = 0.1  # what a plateau multiplies the learning rates by (Gorriz et al., 2019)


def plateaus(losses: Sequence[float], patience: int) -> tuple[float, int]:
    """Follows the losses of the split that selects the epoch.

    Args:
        losses: One for each epoch so far.
        patience: Epochs without gain after which the learning rates are lowered.

    Returns:
        What the learning rates are multiplied by, and the number of epochs since the best one.
    """
    scale, best, waited = 1.0, float("inf"), 0
    for loss in losses:
        best, waited = (loss, 0) if loss < best else (best, waited + 1)
        if waited and waited % patience == 0:
            scale *= PLATEAU_FACTOR
    return scale, waited


def is_over(config: ml_collections.ConfigDict, history: Sequence[Mapping]) -> bool:
    """Returns whether a fold has reached its last epoch, or gained nothing for long enough.

    Args:
        config: The run's config.
        history: The rows of metrics.jsonl.
    """
    return len(history) >= config.train.epochs or _is_tired(config, history)


def _is_tired(config: ml_collections.ConfigDict, history: Sequence[Mapping]) -> bool:
    """Returns whether more epochs would change nothing, since patience has ended the training."""
    if is_scheduled(config.train):
        return False
    return _plateaus(config, history)[1] >= config.train.stop_patience


def _plateaus(config: ml_collections.ConfigDict, history: Sequence[Mapping]) -> tuple[float, int]:
    if config.select_on == "none":
        return 1.0, 0
    losses = [row[f"{config.select_on}_loss"] for row in history]
    scale, waited = plateaus(losses, config.train.get("plateau_patience", 1))
    return (1.0 if is_scheduled(config.train) else scale), waited  # a schedule has its own rates


class FoldState:
    """A fold under way, apart from the network's state on the devices.

    Args:
        config: The run's config.
        corpus: The corpus that is divided into the folds.
        number: The number of the fold.
        fold: The names of its utterances, by split.
        workdir: The folder of the run.
        shared: Whether all processes train the fold together, or this one alone.

    Attributes:
        number: The number of the fold.
        rows: The rows of the corpus' inputs that belong to each split, int32.
        measured_rows: Those of a tenth of the training utterances, int32, whose loss is to be
            compared with that of the split that selects the epoch; none where nothing selects.
        trained: The classes that training utterances have.
        checkpoints: The epochs that the fold's folder keeps.
        writes: Whether this process writes the fold's files and prints its lines.
        history: The rows of metrics.jsonl, one for each complete epoch.
        losses: float32, the loss of each step that the next epoch has taken already.
        seconds: The time that these steps took.

    Raises:
        LeakError: A split's rows are not those of its utterances alone.
        OSError: The folder cannot be read or written.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        corpus: Corpus,
        number: int,
        fold: Fold,
        workdir: Path,
        shared: bool,
    ):
        self.number, self._config, self._corpus, self._splits = number, config, corpus, fold.splits
        self.rows = {
            split: corpus.training_rows(names) if split == "train" else corpus.rows_of(names)
            for split, names in fold.splits.items()
        }
        names = np.random.default_rng([config.seeds.order, number]).permutation(fold.train)
        names = names[: -(-len(names) // MEASURED)] if config.select_on in self.rows else ()
        self.measured_rows = corpus.rows_of(names)
        present = {*corpus.labels[self.rows["train"]].tolist()}
        self.trained = [name for k, name in enumerate(corpus.classes) if k in present]
        self._check_rows("scaling", self.rows["train"], "train")
        if config.select_on in self.rows:
            self._check_rows("the choice of the epoch", self.selection_rows, config.select_on)
        self._digest = leakage.fold_digest(number, fold.splits, corpus.digests)
        self._directory = fold_directory(workdir, number)
        self.writes = not shared or processes.is_first_process()
        self.history: list[dict] = []
        self.losses, self.seconds = np.empty(0, np.float32), 0.0
        # Whether an epoch has passed, in which something may have been compiled.
        self._is_timed = False
        self._events: Events | None = None  # what TensorBoard reads
        self.checkpoints = Epochs(self._directory / CHECKPOINTS, shared)

    def _check_rows(self, what: str, rows: np.ndarray, split: str) -> None:
        what = f"fold {self.number}: {what}"
        leakage.check_rows(what, rows, self._corpus, self._splits, (split,))

    @property
    def selection_rows(self) -> np.ndarray:
        """The rows of the split that selects the epoch, int32; none where the last one counts."""
        return self.rows.get(self._config.select_on, np.empty(0, np.int32))

    @property
    def epoch(self) -> int:
        """The number of the latest complete epoch; 0 before the first."""
        return len(self.history)

    @property
    def best_epoch(self) -> int:
        """The epoch of the lowest loss, the first of equal ones; 0 before the first.

        It is the latest where nothing selects.
        """
        return self.epoch - _plateaus(self._config, self.history)[1]

    @property
    def learning_rate_scale(self) -> float:
        """What plateaus have multiplied the learning rates by."""
        return _plateaus(self._config, self.history)[0]

    @property
    def is_over(self) -> bool:
        """Whether training has ended, see the function of this name."""
        return is_over(self._config, self.history)

    def order(self) -> np.ndarray:
        """Returns the training rows in the order of the next epoch, int32.

        With a fixed number of epochs some rows come twice, so that the last batch is full: the
        statistics of a few rows would normalise it.
        """
        rng = np.random.default_rng([self._config.seeds.order, self.number, self.epoch + 1])
        order = rng.permutation(self.rows["train"])
        if is_scheduled(self._config.train):
            size = self._config.train.batch_size
            order = np.resize(order, -(-len(order) // size) * size)
        return order

    def batches(self) -> list[np.ndarray]:
        """Returns the batches of rows that the next epoch has still to take.

        Raises:
            LeakError: A row is not of the training split.
        """
        order = self.order()
        self._check_rows("training", order, "train")  # batch normalisation included
        return split_batches(order, self._config.train.batch_size)[len(self.losses) :]

    def restore(self, state: TrainState) -> TrainState:
        """Goes on where an earlier call was stopped; returns the state then, or else the given one.

        Raises:
            ValueError: What was saved is of another fold or of another experiment.
        """
        saved, epoch = {}, self.checkpoints.latest
        if notice := self.checkpoints.notice:
            self.say(notice)
        if self.checkpoints.finished:
            saved = read_card(self.checkpoints.directory, "history")
            self._check(saved)
            if not is_over(self._config, saved["history"]):  # it is given more epochs
                self._reopen(saved["history"])
                saved = {}
        if not self.checkpoints.finished and epoch is not None:
            state, saved = self._restore(epoch, state)
        if saved:
            self.history = saved["history"]
            self.losses = np.asarray(saved.get("losses", []), np.float32)
            self.seconds = saved.get("seconds", 0.0)
            steps = f" and {many(len(self.losses), 'step')}" if len(self.losses) else ""
            self.say(f"going on after epoch {self.epoch}{steps} from {self.checkpoints.directory}")
            self._write_history()  # it may have been stopped just before
        if self.writes:
            self._events = Events(self._directory / TENSORBOARD, self.epoch + 1)
        return state

    def _reopen(self, history: Sequence[Mapping]) -> None:
        """Makes a finished fold one under way."""
        if self.writes:  # first, since they mark the fold as finished
            (self._directory / PREDICTIONS).unlink(missing_ok=True)
        self.checkpoints.reopen()
        if self.checkpoints.latest is None:
            self.say(
                f"has kept nothing that training could go on from after epoch {len(history)}, and "
                "is trained anew"
            )

    def _restore(self, epoch: int, state: TrainState) -> tuple[TrainState, dict]:
        """Reads an epoch into a state like that which training begins with."""
        arrays, saved = self.checkpoints.restore(epoch)
        self._check(saved)
        source = self.checkpoints.directory / str(epoch)
        restored = unflatten(arrays, state.replace(frozen={}), source)
        return restored.replace(frozen=state.frozen), saved

    def _check(self, saved: Mapping) -> None:
        """Refuses what was saved for another fold or by another experiment."""
        directory = self.checkpoints.directory
        leakage.check_fold(directory, saved["fold"], self._digest)
        before = ml_collections.ConfigDict(saved["config"])
        if different := configuration.difference(before, self._config):
            raise ValueError(
                f"{directory} is of another experiment: {different} now. Delete the folder, or "
                "bring back the one of this experiment."
            )

    def save(self, state: TrainState) -> None:
        """Starts to save the latest epoch, or the steps that the next one has taken so far."""
        steps = {"losses": self.losses.astype(float).tolist(), "seconds": self.seconds}
        trained = state.replace(frozen={})  # the frozen layers are ImageNet's
        number = self.epoch + (len(self.losses) > 0)
        self.checkpoints.save(number, trained, self._card() | steps, self.best_epoch)
        if len(self.losses):
            self.say(f"is saved after epoch {self.epoch} and {many(len(self.losses), 'step')}")

    def finish(self, state: TrainState) -> Variables:
        """Leaves the model of the best epoch alone in the folder; returns its variables.

        Args:
            state: A state of this network, on the host.
        """
        if not self.checkpoints.finished:
            best = self._best_model(state)
            over = _is_tired(self._config, self.history) or is_scheduled(self._config.train)
            card = self._card() | {"epoch": self.best_epoch}
            card["kept"] = [] if over else [self.epoch]
            seconds = sum(row["seconds"] for row in self.history)
            card["made"] = made(self._config, seconds, self._corpus)
            self.checkpoints.finish(best, card)
        return load_variables(self.checkpoints.directory, like=state.variables)

    def _best_model(self, state: TrainState) -> Variables:
        """Reads the model of the best epoch, which the fold may have been finished with before."""
        if self.checkpoints.has(self.best_epoch):
            return self._restore(self.best_epoch, state)[0].model
        return load_variables(self.checkpoints.directory, like=state.variables, card=BEST)

    def _card(self) -> dict:
        # A copy, since an epoch is written while the history grows.
        history = list(self.history)
        card = {"config": self._config.to_dict(), "fold": self._digest, "trained": self.trained}
        return card | {"history": history}

    def end_epoch(
        self, state: TrainState, predicted: Predicted | None, measured: Predicted | None
    ) -> None:
        """Scores the split that selects the epoch, saves the epoch, and writes down how it went.

        Args:
            state: The state after the last step.
            predicted: What it predicts for the utterances of that split; None if nothing selects.
            measured: What it predicts for those of `measured_rows`.

        Raises:
            FloatingPointError: A loss is not finite; the error names the last good checkpoint.
        """
        config, step, seconds = self._config, int(state.step), self.seconds
        scores, text = {}, ""
        if predicted is not None:
            scores = _scores(predicted, self._corpus, self.selection_rows)
            text = f"{config.select_on} loss {scores['loss']:.4f}  UAR {scores['uar']:.3f}  "
        self._check_finite(scores.get("loss", 0.0), step)
        row = {"epoch": self.epoch + 1, "step": step, "train_loss": float(np.mean(self.losses))}
        if measured is not None:
            row["train_tenth_loss"] = _scores(measured, self._corpus, self.measured_rows)["loss"]
        row |= {f"{config.select_on}_{name}": value for name, value in scores.items()}
        row["learning_rate_scale"] = self.learning_rate_scale
        row |= {"inputs_per_second": len(self.rows["train"]) / seconds, "seconds": seconds}
        self.history.append(row)
        self.losses, self.seconds = np.empty(0, np.float32), 0.0
        self.save(state)
        self.log()
        left = progress.clock(seconds * (config.train.epochs - self.epoch))
        left, self._is_timed = f"  at most {left} left" if self._is_timed else "", True
        self.say(
            f"epoch {self.epoch}/{config.train.epochs}  loss {row['train_loss']:.4f}  "
            f"{text}{row['inputs_per_second']:.1f} inputs/s{left}"
        )

    def _check_finite(self, loss: float, last_step: int) -> None:
        """Refuses an epoch with a loss, of a step or after the last, that is not finite."""
        losses = np.append(self.losses, loss)  # the last step may have spoilt the network
        bad = np.flatnonzero(~np.isfinite(losses))
        if not len(bad):
            return
        step = min(last_step - len(losses) + 2 + bad[0], last_step)
        good = f"epoch {self.epoch} in {self.checkpoints.directory}" if self.epoch else "none yet"
        rates = [f"train.{name}" for name in self._config.train if name.endswith("learning_rate")]
        raise FloatingPointError(
            f"the loss at step {step} is {losses[bad[0]]}; last good checkpoint: {good}. In "
            f"another workdir, lower {' and '.join(rates)}."
        )

    def log(self) -> None:
        """Adds the latest epoch to metrics.jsonl, and to what TensorBoard reads."""
        self._write_history()
        if self._events is not None:
            values = dict(self.history[-1])
            self._events.write(values.pop("epoch"), values)

    def _write_history(self) -> None:
        if self.writes:
            lines = [json.dumps(row) + "\n" for row in self.history]
            write_text(self._directory / METRICS, "".join(lines))

    def say(self, text: str) -> None:
        """Prints a line, once for all processes that train the fold."""
        if self.writes:
            progress.say(f"fold {self.number} {text}")

    def close(self) -> None:
        """Ends what is still being written.

        Raises:
            OSError: It could not be written.
        """
        events, self._events = self._events, None  # it may be called again
        with contextlib.closing(self.checkpoints):
            if events is not None:
                events.close()


def _scores(predicted: Predicted, corpus: Corpus, rows: np.ndarray) -> dict[str, float]:
    """Returns loss, accuracy and UAR over the utterances that the windows `rows` belong to."""
    owners = np.unique(corpus.owners[rows])
    labels = np.asarray([corpus.classes.index(corpus.utterances[owner].label) for owner in owners])
    right = predicted.probabilities[np.arange(len(labels)), labels]
    matrix = metrics.confusion(labels, predicted.probabilities.argmax(axis=1), len(corpus.classes))
    return {
        "loss": float(-np.mean(np.log(np.maximum(right, np.finfo(np.float64).tiny)))),
        "accuracy": float(metrics.accuracy(matrix)),
        "uar": float(metrics.uar(matrix)),
    }
