"""A fold under way: what the loop remembers between epochs, and what it writes."""

import contextlib
import dataclasses
import json
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import ml_collections
import numpy as np
from tensorboardX import summary
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import RecordWriter

from ds_jax import config as configuration
from ds_jax.data import leakage
from ds_jax.data.folds import Fold
from ds_jax.models.create import Variables
from ds_jax.runtime import progress
from ds_jax.runtime.files import explain_write_errors, write_text
from ds_jax.runtime.workdir import METRICS, TENSORBOARD
from ds_jax.training.checkpoints import load_variables, read_card, unflatten
from ds_jax.training.epochs import Epochs
from ds_jax.training.step import TrainState, is_scheduled

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


@dataclasses.dataclass(eq=False, kw_only=True)
class FoldState:
    """A fold under way, apart from the network's state on the devices.

    Attributes:
        number: The number of the fold.
        fold: The names of its utterances, by split.
        digest: Its `leakage.fold_digest`.
        config: The run's config.
        train_rows: The rows of the corpus' inputs that belong to the training split, int32.
        selection_rows: The rows of the split that selects the epoch, int32; none where the last
            epoch counts.
        test_rows: The rows of the test split, int32.
        directory: The fold's folder.
        writes: Whether this process writes the fold's files and prints its lines.
        checkpoints: The epochs that the fold's folder keeps.
        events: What TensorBoard reads; None where this process writes nothing.
        history: The rows of metrics.jsonl, one for each complete epoch.
        losses: float32, the loss of each step that the next epoch has taken already.
        seconds: The time that these steps took.
    """

    number: int
    fold: Fold
    digest: str
    config: ml_collections.ConfigDict
    train_rows: np.ndarray
    selection_rows: np.ndarray
    test_rows: np.ndarray
    directory: Path
    writes: bool
    checkpoints: Epochs
    events: "Events | None" = None
    history: list[dict] = dataclasses.field(default_factory=list)
    losses: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0, np.float32))
    seconds: float = 0.0

    @property
    def epoch(self) -> int:
        """The number of the latest complete epoch; 0 before the first."""
        return len(self.history)

    @property
    def best_epoch(self) -> int:
        """The epoch of the lowest loss, the first of equal ones; 0 before the first.

        It is the latest where the number of epochs is fixed.
        """
        return self.epoch - self._plateaus[1]

    @property
    def learning_rate_scale(self) -> float:
        """What plateaus have multiplied the learning rates by."""
        return self._plateaus[0]

    @property
    def is_over(self) -> bool:
        """Whether the last epoch is reached, or nothing has been gained for long enough."""
        train = self.config.train
        stopped = not is_scheduled(train) and self._plateaus[1] >= train.stop_patience
        return stopped or self.epoch >= train.epochs

    @property
    def _plateaus(self) -> tuple[float, int]:
        if is_scheduled(self.config.train):
            return 1.0, 0
        losses = [row[f"{self.config.select_on}_loss"] for row in self.history]
        return plateaus(losses, self.config.train.plateau_patience)

    def order(self) -> np.ndarray:
        """Returns the training rows in the order of the next epoch, int32.

        With a fixed number of epochs some rows come twice, so that the last batch is full: the
        statistics of a few rows would normalise it.
        """
        rng = np.random.default_rng([self.config.seeds.order, self.number, self.epoch + 1])
        order = rng.permutation(self.train_rows)
        if is_scheduled(self.config.train):
            size = self.config.train.batch_size
            order = np.resize(order, -(-len(order) // size) * size)
        return order

    def restore(self, state: TrainState) -> TrainState:
        """Goes on where an earlier call was stopped.

        Args:
            state: The state that training begins with.

        Returns:
            The state to go on from.

        Raises:
            ValueError: What was saved is of another fold or of another experiment.
        """
        saved, epoch = {}, self.checkpoints.latest
        if notice := self.checkpoints.notice:
            self.say(notice)
        if self.checkpoints.finished:
            saved = read_card(self.checkpoints.directory)
            self._check(saved)
        elif epoch is not None:
            state, saved = self._restore(epoch, state)
        if saved:
            self.history = saved["history"]
            self.losses = np.asarray(saved.get("losses", []), np.float32)
            self.seconds = saved.get("seconds", 0.0)
            steps = f" and {len(self.losses)} steps" if len(self.losses) else ""
            self.say(f"going on after epoch {self.epoch}{steps} from {self.checkpoints.directory}")
            self.write_history()  # it may have been stopped just before
        if self.writes:
            self.events = Events(self.directory / TENSORBOARD, self.epoch + 1)
        return state

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
        leakage.check_fold(directory, saved["fold"], self.digest)
        before = ml_collections.ConfigDict(saved["config"])
        if different := configuration.difference(before, self.config):
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
            self.say(f"is saved after epoch {self.epoch} and {len(self.losses)} steps")

    def finish(self, state: TrainState) -> Variables:
        """Leaves the model of the best epoch alone in the folder.

        Args:
            state: A state of this network.

        Returns:
            The variables of that model, on the host.
        """
        if not self.checkpoints.finished:
            best, _ = self._restore(self.best_epoch, state)
            self.checkpoints.finish(best.model, self._card() | {"epoch": self.best_epoch})
        return load_variables(self.checkpoints.directory, like=state.variables)

    def _card(self) -> dict:
        config = self.config.to_dict()
        return {"config": config, "fold": self.digest, "history": self.history}

    def end_epoch(self, state: TrainState, row: Mapping[str, float]) -> None:
        """Writes down how the next epoch went, which is complete now.

        Args:
            state: The state at its end.
            row: Its row of metrics.jsonl.
        """
        self.history.append(dict(row))
        self.losses, self.seconds = np.empty(0, np.float32), 0.0
        self.save(state)
        self.log()

    def say(self, text: str) -> None:
        """Prints a line, once for all processes that train the fold."""
        if self.writes:
            progress.say(f"fold {self.number} {text}")

    def log(self) -> None:
        """Adds the latest epoch to metrics.jsonl, and to what TensorBoard reads."""
        self.write_history()
        if self.events is not None:
            values = dict(self.history[-1])
            self.events.write(values.pop("epoch"), values)

    def write_history(self) -> None:
        """Writes metrics.jsonl anew."""
        if self.writes:
            lines = [json.dumps(row) + "\n" for row in self.history]
            write_text(self.directory / METRICS, "".join(lines))

    def check_finite(self, loss: float, last_step: int) -> None:
        """Checks the losses of an epoch.

        Args:
            loss: The loss on the split that selects the epoch, after the last step.
            last_step: The number of that step.

        Raises:
            FloatingPointError: A loss is not finite; the error names the last good checkpoint.
        """
        losses = np.append(self.losses, loss)  # the last step may have spoilt the network
        bad = np.flatnonzero(~np.isfinite(losses))
        if not len(bad):
            return
        step = min(last_step - len(losses) + 2 + bad[0], last_step)
        good = f"epoch {self.epoch} in {self.checkpoints.directory}" if self.epoch else "none yet"
        rates = [name for name in self.config.train if name.endswith("learning_rate")]
        raise FloatingPointError(
            f"the loss at step {step} is {losses[bad[0]]}; last good checkpoint: {good}. In "
            f"another workdir, lower {' and '.join(f'train.{name}' for name in rates)}."
        )

    def close(self) -> None:
        """Ends what is still being written.

        Raises:
            OSError: It could not be written.
        """
        events, self.events = self.events, None  # it may be called again
        with contextlib.closing(self.checkpoints):
            if events is not None:
                events.close()


class Events:
    """A file of TensorBoard's events, written at once: tensorboardX' thread hangs on a full disk.

    Args:
        directory: The folder that the file goes to.
        step: The first step to come; TensorBoard forgets it and later ones of older files.
    """

    def __init__(self, directory: Path, step: int):
        self._directory = directory
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}"
        with explain_write_errors(directory):
            directory.mkdir(parents=True, exist_ok=True)
            self._writer = RecordWriter(str(directory / name))
        self._add(file_version="brain.Event:2")
        if step > 1:
            self._add(
                step=step, session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Adds numbers by their names.

        Raises:
            OSError: The disk is full, or gone.
        """
        with explain_write_errors(self._directory):
            for name, value in values.items():
                self._add(step=step, summary=summary.scalar(name, value))
            self._writer.flush()

    def _add(self, **fields) -> None:
        """Adds an event, which is in memory until the file is flushed or closed."""
        event = event_pb2.Event(wall_time=time.time(), **fields)
        self._writer.write(event.SerializeToString())

    def close(self) -> None:
        """Closes the file."""
        with explain_write_errors(self._directory):
            self._writer.close()
