"""Checkpoints of a fold, kept by Orbax: the best epoch and the latest."""

import concurrent.futures
import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import safetensors.numpy
from orbax.checkpoint import checkpoint_managers

from ds_jax.corpus import LABELS

FILE = "arrays.safetensors"


class _Trees(ocp.AsyncCheckpointHandler):
    """Trees of host arrays, a file each, written while training goes on.

    Orbax' own way with host arrays lets the first process alone write them; folds that are
    trained apart are written each by its own process.
    """

    def __init__(self):
        self._writer = concurrent.futures.ThreadPoolExecutor(1)

    async def async_save(self, directory: Path, args: "_Tree") -> list[concurrent.futures.Future]:
        path = directory / FILE
        return [self._writer.submit(safetensors.numpy.save_file, _named(args.tree), path)]

    def save(self, directory: Path, args: "_Tree") -> None:
        safetensors.numpy.save_file(_named(args.tree), directory / FILE)

    def restore(self, directory: Path, args: "_Tree") -> dict[str, np.ndarray]:
        return safetensors.numpy.load_file(directory / FILE)

    def close(self) -> None:
        self._writer.shutdown()


@ocp.args.register_with_handler(_Trees, for_save=True, for_restore=True)
@dataclasses.dataclass
class _Tree(ocp.args.CheckpointArgs):
    """What to save; nothing when it is read."""

    tree: Any = None


def _named(tree: Any) -> dict[str, np.ndarray]:
    """The leaves of a tree by their places in it."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf, order="C") for path, leaf in leaves}


class Checkpoints:
    """The checkpoints of one fold, numbered by epoch. Use it as a context manager.

    Each holds `variables` (params and batch statistics), `optimizer` (what resuming needs) and, as
    metadata, the run's config, the labels, and the training's progress up to it.

    Args:
        directory: Where they lie.
        trains: Whether they are to be saved. What a killed save has left is then removed; a reader
            leaves it, since it may be a save under way.
        alone: Whether of several processes only this one uses them.
    """

    def __init__(self, directory: Path, trains: bool = False, alone: bool = False):
        self.directory = Path(directory).absolute()
        processes = ocp.options.MultiprocessingOptions()
        alone = alone and jax.process_count() > 1
        if alone:
            own = jax.process_index()
            processes = ocp.options.MultiprocessingOptions(own, {own}, self.directory.parent.name)
            self.directory.mkdir(parents=True, exist_ok=True)  # Orbax would ask all processes
        keep = checkpoint_managers.AnyPreservationPolicy(
            [
                checkpoint_managers.LatestN(1),
                checkpoint_managers.BestN(get_metric_fn=_rank, reverse=True, n=1),
            ]
        )
        self._manager = ocp.CheckpointManager(
            self.directory,
            item_handlers={"variables": _Trees(), "optimizer": _Trees()},
            options=ocp.CheckpointManagerOptions(
                create=not alone,
                cleanup_tmp_directories=trains,
                preservation_policy=keep,
                save_decision_policy=checkpoint_managers.FixedIntervalPolicy(1),
                best_fn=_rank,  # or the metrics are not kept
                async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
                multiprocessing_options=processes,
            ),
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def close(self) -> None:
        """Waits for what is being saved, and lets go of the folder."""
        self._manager.close()

    @property
    def latest(self) -> int | None:
        """The last epoch that was saved; None where there is none."""
        self._manager.wait_until_finished()
        return self._manager.latest_step()

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
        epochs = self._manager.all_steps()
        return min(epochs, key=lambda epoch: _rank(self._manager.metrics(epoch)))

    def save(
        self, epoch: int, variables: Any, optimizer: Any, loss: float, config: dict, progress: dict
    ) -> None:
        """Starts to save an epoch, and to delete those that are neither best nor latest.

        The files are written while training goes on; all else here waits for them.

        Args:
            epoch: Its number.
            variables: The tree that evaluation needs, of host arrays that nobody changes.
            optimizer: The tree that resuming needs besides, likewise.
            loss: On the side that chooses the epoch; the lowest is the best.
            config: The run's config, as JSON.
            progress: What the training loop remembers, as JSON.
        """
        self._manager.save(
            epoch,
            args=ocp.args.Composite(variables=_Tree(variables), optimizer=_Tree(optimizer)),
            metrics={"loss": loss, "epoch": epoch},
            custom_metadata={"config": config, "labels": list(LABELS), "progress": progress},
        )

    def metadata(self, epoch: int) -> dict:
        """Returns `config`, `labels` and `progress` as they were saved.

        Raises:
            ValueError: The checkpoint was trained on other labels.
        """
        self._manager.wait_until_finished()
        metadata = self._manager.metadata(epoch).custom_metadata
        if metadata["labels"] != list(LABELS):
            raise ValueError(
                f"the checkpoint in {self.directory} tells {', '.join(metadata['labels'])} apart, "
                f"not {', '.join(LABELS)}: it is of another label set"
            )
        return metadata

    def load(self, epoch: int, **like: Any) -> dict[str, Any]:
        """Loads the named parts (`variables`, `optimizer`), as host arrays shaped like trees.

        Raises:
            ValueError: The checkpoint's parts are shaped otherwise.
        """
        self._manager.wait_until_finished()
        wanted = ocp.args.Composite(**{name: _Tree() for name in like})
        restored = self._manager.restore(epoch, args=wanted)
        loaded = {}
        for name, tree in like.items():
            arrays, leaves = restored[name], jax.tree_util.tree_leaves_with_path(tree)
            names = [jax.tree_util.keystr(path) for path, _ in leaves]
            shapes = {one: leaf.shape for one, (_, leaf) in zip(names, leaves, strict=True)}
            if {one: array.shape for one, array in arrays.items()} != shapes:
                raise self._other_network(epoch)
            loaded[name] = jax.tree.unflatten(jax.tree.structure(tree), [arrays[n] for n in names])
        return loaded

    def _other_network(self, epoch: int) -> ValueError:
        return ValueError(
            f"epoch {epoch} in {self.directory} is of another network than its config describes: "
            "use the version of this program that it was trained by, or train again"
        )


def _rank(metrics: dict) -> tuple[float, int]:
    return metrics["loss"], metrics["epoch"]
