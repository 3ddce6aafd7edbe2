"""Checkpoints of a fold, kept by Orbax: the two best epochs and the latest."""

import concurrent.futures
import dataclasses
import json
import shutil
from logging import LogRecord
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint import checkpoint_managers

from ds_jax.data.corpus import LABELS
from ds_jax.runtime import processes as devices
from ds_jax.runtime.files import explain_write_errors, seal, unseal
from ds_jax.runtime.workdir import PREDICTIONS
from ds_jax.training import arrays

PARTS = ("variables", "optimizer")
# As Orbax names them in a checkpoint's folder.
_METADATA, _METRICS = "_CHECKPOINT_METADATA", "metrics/metrics"
DAMAGED = ".damaged"  # ends the name of an epoch that was put aside
_MISSING = FileNotFoundError, NotADirectoryError


def _is_told(record: LogRecord) -> bool:
    """Whether a line is to be logged: Orbax logs errors at length that it raises as well."""
    raised = record.exc_info and "orbax" in record.pathname
    return not raised or logging.get_verbosity() >= logging.INFO


logging.get_absl_logger().addFilter(_is_told)


class _Trees(ocp.AsyncCheckpointHandler):
    """Trees of host arrays, a file each, written while training goes on.

    Orbax' own way with host arrays lets the first process alone write them; folds that are
    trained apart are written each by its own process.

    Args:
        writes: Whether this process is the one that does.
    """

    def __init__(self, writes: bool):
        self._writes, self._writer = writes, concurrent.futures.ThreadPoolExecutor(1)

    async def async_save(self, directory: Path, args: "_Tree") -> list[concurrent.futures.Future]:
        if not self._writes:
            return []
        return [self._writer.submit(arrays.save, Path(directory), args.tree)]

    def save(self, directory: Path, args: "_Tree") -> None:
        if self._writes:
            arrays.save(Path(directory), args.tree)

    def restore(self, directory: Path, args: "_Tree") -> dict[str, np.ndarray]:
        return arrays.load(Path(directory))

    def close(self) -> None:
        self._writer.shutdown()


@ocp.args.register_with_handler(_Trees, for_save=True, for_restore=True)
@dataclasses.dataclass
class _Tree(ocp.args.CheckpointArgs):
    """What to save; nothing when it is read."""

    tree: Any = None


class Checkpoints:
    """The checkpoints of one fold, numbered by epoch. Use it as a context manager.

    Each holds `variables` (params and batch statistics), `optimizer` (what resuming needs) and, as
    metadata, the run's config, the labels, the fold's digest, and the training's progress up to it.
    All of it is checked against checksums before it is used.

    Args:
        directory: Where they lie.
        trains: Whether they are to be saved. What a killed save has left is then removed, and
            damaged epochs, and those that cannot be gone on from without them, are renamed; a
            reader leaves both, since the first may be a save under way.
        alone: Whether of several processes only this one uses them.

    Attributes:
        notice: What was found damaged and put aside; empty if nothing was missed.

    Raises:
        ValueError: They are damaged, and this is a reader.
        OSError: They cannot be read.
    """

    def __init__(self, directory: Path, trains: bool = False, alone: bool = False):
        self.directory = Path(directory).absolute()
        processes = ocp.options.MultiprocessingOptions()
        alone = alone and jax.process_count() > 1
        if alone:
            own = jax.process_index()
            processes = ocp.options.MultiprocessingOptions(own, {own}, self.directory.parent.name)
            self.directory.mkdir(parents=True, exist_ok=True)  # Orbax would ask all processes
        self.notice = ""
        writes = alone or devices.is_first_process()
        if trains and writes:
            self.notice = _put_damaged_aside(self.directory)
        if trains and not alone:
            devices.wait_for_others(str(self.directory))
        if not trains and (damage := _damage_of_needed(self.directory)):
            raise self._damaged(damage)
        keep = checkpoint_managers.AnyPreservationPolicy(
            [
                checkpoint_managers.LatestN(1),
                # The second best is what is left to go on from if the best is damaged.
                checkpoint_managers.BestN(get_metric_fn=_rank, reverse=True, n=2),
            ]
        )
        self._manager = ocp.CheckpointManager(
            self.directory,
            item_handlers={part: _Trees(writes) for part in PARTS},
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
        self._best = None  # its loss and number
        if self._manager.latest_step() is not None:
            self._best = tuple(_read(self.directory / str(self._manager.latest_step()))["best"])

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def close(self) -> None:
        """Waits for what is being saved, and lets go of the folder.

        Raises:
            OSError: It could not be saved.
        """
        with explain_write_errors(self.directory):
            self._manager.close()

    def _wait(self) -> None:
        """Waits for what is being saved, or raises why it cannot be."""
        with explain_write_errors(self.directory):
            self._manager.wait_until_finished()

    @property
    def latest(self) -> int | None:
        """The last epoch that was saved; None where there is none."""
        self._wait()
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
        return self._best[1]

    def save(
        self,
        epoch: int,
        variables: Any,
        optimizer: Any,
        loss: float,
        config: dict,
        progress: dict,
        fold: str = "",
    ) -> None:
        """Starts to save an epoch, and to delete those that are neither of the best nor latest.

        The files are written while training goes on; all else here waits for them.

        Args:
            epoch: Its number.
            variables: The tree that evaluation needs, of host arrays that nobody changes.
            optimizer: The tree that resuming needs besides, likewise.
            loss: On the side that chooses the epoch; the lowest is the best.
            config: The run's config, as JSON.
            progress: What the training loop remembers, as JSON.
            fold: Of `leaks.fold_digest`.

        Raises:
            OSError: This one cannot be saved, or the one before could not.
        """
        self._wait()
        if not self.directory.is_dir():
            raise OSError(f"{self.directory} has vanished: start again")
        self._best = min(self._best or (loss, epoch), (loss, epoch))
        metrics = {"loss": loss, "epoch": epoch}
        kept = {"config": config, "labels": list(LABELS), "progress": progress}
        kept["fold"] = fold
        with explain_write_errors(self.directory):
            self._manager.save(
                epoch,
                args=ocp.args.Composite(variables=_Tree(variables), optimizer=_Tree(optimizer)),
                metrics=metrics,
                custom_metadata=seal({**kept, "metrics": metrics, "best": self._best}),
            )

    def metadata(self, epoch: int) -> dict:
        """Returns `config`, `labels`, `progress` and `fold` as they were saved.

        Raises:
            ValueError: The checkpoint was trained on other labels, or by an earlier version.
        """
        self._wait()
        read = _read(self.directory / str(epoch))
        if "fold" not in read:
            raise ValueError(
                f"the checkpoint in {self.directory} is of an earlier version of this program, and "
                "does not say which fold it is of: train it again"
            )
        metadata = {name: read[name] for name in ("config", "labels", "progress", "fold")}
        if metadata["labels"] != list(LABELS):
            raise ValueError(
                f"the checkpoint in {self.directory} tells {', '.join(metadata['labels'])} apart, "
                f"not {', '.join(LABELS)}: it is of another label set"
            )
        return metadata

    def load(self, epoch: int, **like: Any) -> dict[str, Any]:
        """Loads the named parts (`variables`, `optimizer`), as host arrays shaped like trees.

        Raises:
            ValueError: The checkpoint's parts are shaped otherwise, or damaged.
        """
        self._wait()
        for part in like:
            if damage := arrays.damage(self.directory / str(epoch) / part):
                raise self._damaged(damage)
        wanted = ocp.args.Composite(**{name: _Tree() for name in like})
        restored = self._manager.restore(epoch, args=wanted)
        loaded = {name: arrays.shape(restored[name], tree) for name, tree in like.items()}
        if any(tree is None for tree in loaded.values()):
            raise ValueError(
                f"epoch {epoch} in {self.directory} is of another network than its config "
                "describes: use the version of this program that it was trained by, or train again"
            )
        return loaded

    def _damaged(self, damage: str) -> ValueError:
        fold = self.directory.parent
        return ValueError(
            f"{damage}: delete {fold / PREDICTIONS} and start the training again, which goes "
            "on from what is whole"
        )


def _rank(metrics: dict) -> tuple[float, int]:
    return metrics["loss"], metrics["epoch"]


def _epochs(directory: Path) -> list[Path]:
    """The folders of epochs, in their order."""
    found = directory.glob("*") if directory.is_dir() else ()
    return sorted(
        (path for path in found if path.name.isdecimal()), key=lambda path: int(path.name)
    )


def _read(epoch: Path) -> dict:
    """What `save` keeps of an epoch beside its trees, checked."""
    return unseal(epoch / _METADATA, _json(epoch / _METADATA)["custom_metadata"])


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _damage(epoch: Path, parts: tuple[str, ...] = ()) -> str:
    """Says what is damaged of an epoch; empty if nothing is.

    Args:
        epoch: Its folder.
        parts: Of its trees, which take longest to look through.

    Raises:
        OSError: It cannot be read, which says nothing of what is there.
    """
    try:
        if _read(epoch)["metrics"] != _json(epoch / _METRICS):
            return f"{epoch / _METRICS} is damaged"
        ocp.metadata.get_step_metadata(epoch)  # which beside ours has names of Orbax' own
    except (*_MISSING, ValueError, TypeError, LookupError) as error:
        return f"{epoch} is damaged ({error!r})"
    return next(filter(None, (arrays.damage(epoch / part) for part in parts)), "")


def _damage_of_needed(directory: Path) -> str:
    """Says what is damaged of the latest epoch or of the best, apart from their trees."""
    epochs = _epochs(directory)
    if not epochs:
        return ""
    return _damage(epochs[-1]) or _damage(directory / str(_read(epochs[-1])["best"][1]))


def _put_damaged_aside(directory: Path) -> str:
    """Keeps what can be gone on from, and says what that costs.

    Remains of an epoch that was being deleted are deleted.

    An epoch whose best one so far is lost would end with another network than it began with.
    """
    epochs = _epochs(directory)
    damages = {int(epoch.name): _damage(epoch, PARTS) for epoch in epochs}
    whole = {number for number, damage in damages.items() if not damage}
    usable = [n for n in whole if _read(directory / str(n))["best"][1] in whole]
    last = max(usable, default=0)
    for number in damages:
        epoch = directory / str(number)
        if number > last:
            aside = epoch.with_name(f"{number}{DAMAGED}")
            if aside.exists():
                shutil.rmtree(aside)
            epoch.rename(aside)
        elif number not in whole:
            shutil.rmtree(epoch)
    if not damages or last == max(damages):
        return ""  # at most remains of one that was being deleted
    first = next(filter(None, damages.values()))
    how = f"going back to epoch {last}" if last else "the fold starts anew"
    return f"{first}: {how}; what comes later is kept as *{DAMAGED}"
