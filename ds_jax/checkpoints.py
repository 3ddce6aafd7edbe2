"""Orbax checkpoints of a fold: the best epoch and the latest."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from ds_jax import devices
from ds_jax.corpus import LABELS


class Checkpoints:
    """The checkpoints of one fold, numbered by epoch. Use it as a context manager.

    Each holds `variables` (params and batch statistics), `optimizer` (what resuming needs) and, as
    metadata, the run's config, the labels, and the training's progress up to it.

    Args:
        directory: Where they lie.
        trains: Whether they are to be saved. What a killed save has left is then removed; a reader
            leaves it, since it may be a save under way.
    """

    def __init__(self, directory: Path, trains: bool = False):
        self.directory = Path(directory).absolute()
        policies = ocp.training.preservation_policies
        self._checkpointer = ocp.training.Checkpointer(
            self.directory,
            preservation_policy=policies.AnyPreservationPolicy(
                [
                    policies.LatestN(1),
                    policies.BestN(get_metric_fn=_rank, reverse=True, n=1),
                ]
            ),
            cleanup_tmp_directories=trains,
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception) -> None:
        self._checkpointer.close()

    @property
    def latest(self) -> int | None:
        """The last epoch that was saved; None where there is none."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    @property
    def best(self) -> int:
        """The epoch of the lowest loss on the side that chooses, the first of equal ones.

        Raises:
            FileNotFoundError: There is no checkpoint.
        """
        if self.latest is None:
            raise FileNotFoundError(
                f"no checkpoint in {self.directory}: train this fold first, or name another folder"
            )
        return min(self._checkpointer.checkpoints, key=lambda saved: _rank(saved.metrics)).step

    def save(
        self, epoch: int, variables: Any, optimizer: Any, loss: float, config: dict, progress: dict
    ) -> None:
        """Saves an epoch, and deletes those that are neither best nor latest.

        Args:
            epoch: Its number.
            variables: The tree that evaluation needs.
            optimizer: The tree that resuming needs besides.
            loss: On the side that chooses the epoch; the lowest is the best.
            config: The run's config, as JSON.
            progress: What the training loop remembers, as JSON.
        """
        self._checkpointer.save_checkpointables(
            epoch,
            # Host arrays: one process writes them, and any number of devices can read them.
            jax.device_get({"variables": variables, "optimizer": optimizer}),
            metrics={"loss": loss, "epoch": epoch},
            custom_metadata={"config": config, "labels": list(LABELS), "progress": progress},
        )

    def metadata(self, epoch: int) -> dict:
        """Returns `config`, `labels` and `progress` as they were saved.

        Raises:
            ValueError: The checkpoint was trained on other labels.
        """
        metadata = self._checkpointer.checkpointables_metadata(epoch).custom_metadata
        if metadata["labels"] != list(LABELS):
            raise ValueError(
                f"the checkpoint in {self.directory} tells {', '.join(metadata['labels'])} apart, "
                f"not {', '.join(LABELS)}: it is of another label set"
            )
        return metadata

    def load(self, epoch: int, **like: Any) -> dict[str, Any]:
        """Loads the named parts (`variables`, `optimizer`), shaped like trees, onto every device.

        Raises:
            ValueError: The checkpoint's parts are shaped otherwise.
        """
        like = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), like)
        try:
            loaded = self._checkpointer.load_checkpointables(epoch, like)
        except KeyError as error:  # Orbax's word for a tree with other branches
            raise self._other_network(epoch) from error
        if jax.tree.map(np.shape, loaded) != jax.tree.map(np.shape, like):
            raise self._other_network(epoch)
        return devices.replicate(loaded)

    def _other_network(self, epoch: int) -> ValueError:
        return ValueError(
            f"epoch {epoch} in {self.directory} is of another network than its config describes: "
            "use the version of this program that it was trained by, or train again"
        )


def _rank(metrics: dict) -> tuple[float, int]:
    return metrics["loss"], metrics["epoch"]
