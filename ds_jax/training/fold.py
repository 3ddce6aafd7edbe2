"""One fold's training under way: what it remembers between epochs, and what it writes."""

import contextlib
import dataclasses
import json
import math
from pathlib import Path

import ml_collections
import numpy as np

from ds_jax.data.folds import Fold
from ds_jax.models.create import Variables
from ds_jax.runtime import progress
from ds_jax.runtime.files import write_text
from ds_jax.runtime.workdir import METRICS
from ds_jax.training import unfinished
from ds_jax.training.checkpoints import Checkpoints
from ds_jax.training.events import Events

PLATEAU_FACTOR = 0.1  # what a plateau multiplies the learning rates by (Gorriz et al., 2019)


@dataclasses.dataclass
class Progress:
    """What the loop remembers between epochs, apart from the state.

    Attributes:
        learning_rate_scale: What plateaus have multiplied the learning rates by.
        best_loss: The lowest so far, on the side that chooses the epoch.
        epochs_without_gain: Since then.
        history: The rows of metrics.jsonl.
    """

    learning_rate_scale: float = 1.0
    best_loss: float = math.inf
    epochs_without_gain: int = 0
    history: list[dict] = dataclasses.field(default_factory=list)

    def record(self, row: dict, loss: float, plateau_patience: int) -> None:
        """Adds an epoch, and lowers the learning rates when the loss has stopped falling."""
        self.history.append(row)
        if loss < self.best_loss:
            self.best_loss, self.epochs_without_gain = loss, 0
            return
        self.epochs_without_gain += 1
        if self.epochs_without_gain % plateau_patience == 0:
            self.learning_rate_scale *= PLATEAU_FACTOR


@dataclasses.dataclass(eq=False)
class FoldTraining:
    """A fold under way.

    Attributes:
        number: The fold's.
        fold: Its sides.
        digest: Of `leaks.fold_digest`.
        rows: int32, of the corpus' inputs: the training side.
        chooser_rows: Of the side that chooses the epoch.
        test_rows: Of the test side.
        directory: The fold's folder.
        writes: Whether this process writes its files and tells of it.
        checkpoints: In its folder.
        progress: Up to its latest epoch.
        events: What TensorBoard reads; None where another process writes.
        losses: float32, of the steps that the next epoch has taken already, before SIGTERM.
        seconds: That they took.
    """

    number: int
    fold: Fold
    digest: str
    rows: np.ndarray
    chooser_rows: np.ndarray
    test_rows: np.ndarray
    directory: Path
    writes: bool
    checkpoints: Checkpoints
    progress: Progress
    events: Events | None
    losses: np.ndarray
    seconds: float

    @property
    def epoch(self) -> int:
        """The latest epoch; 0 before the first."""
        return len(self.progress.history)

    def is_over(self, train: ml_collections.ConfigDict) -> bool:
        """Whether the last epoch is reached, or nothing has been gained for long enough."""
        waited = self.progress.epochs_without_gain >= train.stop_patience
        return waited or self.epoch >= train.epochs

    def order(self, seed: int) -> np.ndarray:
        """int32: the rows of the next epoch in their order."""
        rng = np.random.default_rng([seed, self.number, self.epoch + 1])
        return rng.permutation(self.rows)

    def say(self, text: str) -> None:
        """Prints a line, once for all processes that train the fold."""
        if self.writes:
            progress.say(f"fold {self.number} {text}")

    def log(self) -> None:
        """Adds the latest epoch to metrics.jsonl, and to what TensorBoard reads."""
        self.write_history()
        if self.events is not None:
            values = dict(self.progress.history[-1])
            self.events.write(values.pop("epoch"), values)

    def write_history(self) -> None:
        """Writes metrics.jsonl anew."""
        if self.writes:
            lines = [json.dumps(row) + "\n" for row in self.progress.history]
            write_text(self.directory / METRICS, "".join(lines))

    def check_finite(self, losses: np.ndarray, last_step: int) -> None:
        """Checks an epoch's losses, one a step, and the one of the chooser after the last step.

        Raises:
            FloatingPointError: One is not finite; the last good checkpoint is named.
        """
        bad = np.flatnonzero(~np.isfinite(losses))
        if len(bad):
            step = min(last_step - len(losses) + 2 + bad[0], last_step)
            latest = self.checkpoints.latest
            good = (
                f"epoch {latest} in {self.checkpoints.directory}"
                if latest
                else "none was saved yet"
            )
            raise FloatingPointError(
                f"the loss at step {step} is {losses[bad[0]]}; last good checkpoint: {good}. In "
                "another workdir, lower train.pretrained_learning_rate and train.new_learning_rate."
            )

    def end_epoch(self) -> None:
        """Forgets the steps of the epoch, which is saved."""
        self.losses, self.seconds = np.empty(0, np.float32), 0.0
        if self.writes:
            unfinished.remove(self.directory)

    def load_best(self, like: Variables) -> Variables:
        """The variables of the best epoch, shaped like others, on the host."""
        return self.checkpoints.load(self.checkpoints.best, variables=like)["variables"]

    def close(self) -> None:
        """Ends what is still being written.

        Raises:
            OSError: It could not be written.
        """
        events, self.events = self.events, None  # it may be called again
        with contextlib.closing(self.checkpoints):
            if events is not None:
                events.close()
