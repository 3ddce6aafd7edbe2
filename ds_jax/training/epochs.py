"""The epochs of a fold that is being trained, as Orbax keeps them."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Container, Iterator, Mapping
from logging import LogRecord
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from orbax.checkpoint import checkpoint_managers, type_handlers

from ds_jax.models.create import Variables
from ds_jax.runtime import files, processes
from ds_jax.training.checkpoints import (
    ADVICE,
    BEST,
    CARD,
    MODEL,
    Damaged,
    flatten,
    read_card,
    read_model,
    save_model,
)

DAMAGED = ".damaged"  # ends the name of what was put aside
KEPT = 2  # latest epochs that are kept besides the best one; the second replaces a damaged latest
# The items of an epoch's folder, and the file that Orbax writes JSON to.
_STATE, _PROGRESS, _JSON = "state", "progress", "metadata"
_MISSING = FileNotFoundError, NotADirectoryError
_OS_ERROR_CODE = re.compile(r"\[os_error_code='(\d+)'\]")  # in the text of TensorStore's errors


def report_errors_once() -> None:
    """Keeps this process from printing errors of Orbax that are raised as well; call it once."""
    logging.get_absl_logger().addFilter(_is_news)
    sys.unraisablehook = functools.partial(_report_unraisable, sys.unraisablehook)


def _is_news(record: LogRecord) -> bool:
    """Returns whether a line is to be logged: Orbax logs errors at length before it raises them."""
    raised = record.exc_info and "orbax" in record.pathname
    return not raised or logging.get_verbosity() >= logging.INFO


def _report_unraisable(hook: Callable, unraisable: "sys.UnraisableHookArgs") -> None:
    """Drops TensorStore's answers to a loop that is closed; `hook` takes all other exceptions.

    Orbax closes its event loop at the first error, which it raises, and more of them may come.
    """
    if "Event loop is closed" not in str(unraisable.exc_value):
        hook(unraisable)


class Epochs:
    """The epochs that a fold's `checkpoints` folder keeps, by number: the latest and the best.

    A finished fold that may be given more epochs keeps the last alone: the best is its model.

    An epoch that SIGTERM broke off is saved like any other, under the number that it would have
    had at its end. What a killed process left half-written is removed at the start. A damaged
    finished model is then renamed, and so are epochs that are damaged, or that cannot be gone on
    from since the best epoch before them is.

    Args:
        directory: The fold's `checkpoints` folder.
        shared: Whether all processes train the fold together, or this one alone.

    Attributes:
        finished: Whether the folder holds a finished model.
        latest: The last epoch that was saved; None where there is none.
        notice: What was found damaged and put aside; empty if nothing was.

    Raises:
        OSError: The folder cannot be read or written.
    """

    def __init__(self, directory: Path, shared: bool = True):
        self.directory, self.notice = Path(directory).absolute(), ""
        self._alone = not shared and jax.process_count() > 1
        self._writes = self._alone or processes.is_first_process()
        if self._writes:
            files.make_folder(self.directory)
            self.notice = _put_damaged_aside(self.directory)
        self._wait_for_others("opened")
        self._policy = _LatestAndBest()
        self._manager = self._create_manager()
        self.finished = (self.directory / CARD).is_file()
        self.latest = self._manager.latest_step()

    def _create_manager(self) -> ocp.CheckpointManager:
        options, registry = ocp.options.MultiprocessingOptions(), {}
        if self._alone:
            rank = jax.process_index()
            options = ocp.options.MultiprocessingOptions(
                rank, {rank}, barrier_sync_key_prefix=self.directory.parent.name
            )
            handler = type_handlers.ArrayHandler(
                primary_host=rank, replica_id=None, use_replica_parallel=False
            )
            types = type_handlers.create_type_handler_registry((jax.Array, handler))
            registry = {"type_handler_registry": types}
        arrays = ocp.PyTreeCheckpointHandler(
            use_compression=False, multiprocessing_options=options, **registry
        )
        progress = ocp.JsonCheckpointHandler(multiprocessing_options=options)
        return ocp.CheckpointManager(
            self.directory,
            item_handlers={_STATE: arrays, _PROGRESS: progress},
            options=ocp.CheckpointManagerOptions(
                create=False,
                cleanup_tmp_directories=True,
                preservation_policy=self._policy,
                save_decision_policy=checkpoint_managers.FixedIntervalPolicy(1),
                async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
                multiprocessing_options=options,
            ),
        )

    def close(self) -> None:
        """Waits for what is being saved, and lets go of the folder.

        Raises:
            OSError: It could not be saved.
        """
        with self._explained():
            self._manager.close()

    def save(self, epoch: int, state: Any, progress: Mapping[str, Any], best: int) -> None:
        """Starts to save an epoch, and to delete those that are neither the latest nor the best.

        The files are written while training goes on; all else here waits for them.

        Args:
            epoch: The number of the epoch, which takes the place of one that was broken off.
            state: What training goes on from: a tree of host arrays that nobody changes.
            progress: What the training loop remembers, as JSON.
            best: The number of the best complete epoch, 0 where there is none.

        Raises:
            OSError: This epoch cannot be saved, or the one before could not.
        """
        with self._explained():
            self._manager.wait_until_finished()
        if not self.directory.is_dir():
            raise OSError(f"{self.directory} has vanished: start again")
        arrays = flatten(state)
        progress = files.seal({**progress, "best": best, "sha256": _digest(arrays)})
        if self._alone:
            arrays = _global(arrays)
        items = {_STATE: ocp.args.PyTreeSave(arrays), _PROGRESS: ocp.args.JsonSave(progress)}
        self._policy.best = best
        with self._explained():
            if epoch == self.latest:
                self._manager.delete(epoch)
            self._manager.save(epoch, args=ocp.args.Composite(**items))
        self.latest = epoch

    def has(self, epoch: int) -> bool:
        """Tells whether an epoch is saved, after what is being saved."""
        with self._explained():
            self._manager.wait_until_finished()
        return (self.directory / str(epoch)).is_dir()

    def restore(self, epoch: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Reads an epoch.

        Returns:
            The arrays of its state, by the names of `flatten`, and its progress.

        Raises:
            ValueError: The epoch is damaged.
        """
        with self._explained():
            self._manager.wait_until_finished()
        return _read(self.directory / str(epoch))

    def finish(self, variables: Variables, card: Mapping[str, Any]) -> None:
        """Writes the finished model, and deletes the epochs that nobody needs any more.

        Args:
            variables: The variables of the best epoch.
            card: As `save_model` takes it; the epochs in its `kept` stay.

        Raises:
            OSError: The folder cannot be written.
        """
        self.close()
        self._wait_for_others("read")
        if self._writes:
            save_model(self.directory, variables, card)
            _delete_epochs(self.directory, but=card.get("kept", ()))
            (self.directory / BEST).unlink(missing_ok=True)
        self._wait_for_others("finished")

    def reopen(self) -> None:
        """Makes the finished model the best so far, so that training can go on from what was kept.

        Without a kept epoch nothing can.
        """
        if self._writes and self.latest is None:
            (self.directory / CARD).unlink(missing_ok=True)
        elif self._writes:
            (self.directory / CARD).replace(self.directory / BEST)
        self._wait_for_others("reopened")
        self.finished = False

    def _wait_for_others(self, what: str) -> None:
        if not self._alone:
            processes.wait_for_others(f"{self.directory} {what}")

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns what Orbax raises when it cannot write into an OSError of one sentence."""
        with files.explain_write_errors(self.directory):
            try:
                yield
            except ValueError as error:
                raise _os_error(error) or error from error


@dataclasses.dataclass
class _LatestAndBest(checkpoint_managers.PreservationPolicy):
    """Keeps the latest epochs, and the one whose number is `best`."""

    best: int = 0

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        del context
        epochs = [checkpoint.step for checkpoint in checkpoints]
        return [epoch in (*epochs[-KEPT:], self.best) for epoch in epochs]


def _global(arrays: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """Makes of host arrays what Orbax lets a single process write, be it the first one or not.

    NumPy's arrays are written by the first process alone, and arrays on the devices of one process
    are refused. So each array claims to be the same on the first device of every process.
    """
    firsts = {device.process_index: device for device in reversed(jax.devices())}
    sharding = NamedSharding(Mesh(np.asarray(list(firsts.values())), ("process",)), PartitionSpec())
    return {
        name: jax.make_array_from_callback(array.shape, sharding, lambda _, array=array: array)
        for name, array in arrays.items()
    }


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Returns the SHA-256 of all arrays, in the order of their names."""
    sha256 = hashlib.sha256()
    for name in sorted(arrays):
        sha256.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        sha256.update(np.ascontiguousarray(arrays[name]).view(np.uint8))
    return sha256.hexdigest()


def _read(epoch: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads the arrays and the progress of an epoch, and checks them.

    Raises:
        Damaged: They are not as they were written.
        OSError: They cannot be read, which says nothing of what is there.
    """
    path, state = epoch / _PROGRESS / _JSON, epoch / _STATE
    if (epoch / "variables").is_dir():
        raise Damaged(f"{epoch} is of an earlier version of this program")
    try:
        ocp.metadata.get_step_metadata(epoch)  # which Orbax reads by itself
        progress = files.unseal(path, json.loads(path.read_text(encoding="utf-8")))
        handler = ocp.PyTreeCheckpointHandler()
        leaves = {name: ocp.RestoreArgs(np.ndarray) for name in handler.metadata(state).tree}
        arrays = handler.restore(state, args=ocp.args.PyTreeRestore(restore_args=leaves))
        if progress.pop("sha256") != _digest(arrays):
            raise ValueError("its arrays are not as they were written")
    except Exception as error:  # whatever Orbax makes of damaged bytes
        if unreadable := _os_error(error):
            raise unreadable from error
        raise Damaged(f"{epoch} is damaged ({error!r})") from error
    return arrays, progress


def _os_error(error: Exception) -> OSError | None:
    """Returns the system's error behind another; None if there is none, or a file is missing."""
    if not isinstance(error, OSError):
        number = _OS_ERROR_CODE.search(str(error))
        if number is None:
            return None
        error = OSError(int(number[1]), os.strerror(int(number[1])))
    return None if isinstance(error, _MISSING) else error


def _epochs(directory: Path) -> list[int]:
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdecimal())


def _delete_epochs(directory: Path, but: Container[int] = ()) -> None:
    for epoch in _epochs(directory):
        if epoch not in but:
            shutil.rmtree(directory / str(epoch))


def _put_damaged_aside(directory: Path) -> str:
    """Leaves what can be gone on from, removes remains, and says what damage costs."""
    damages: list[str] = []
    if (directory / CARD).is_file():
        try:
            read_model(directory)
            kept = read_card(directory).get("kept", ())
            _delete_epochs(directory, but=kept)  # `finish` may have been killed
        except Damaged as error:
            damages.append(str(error).removesuffix(ADVICE))
            _put_aside(directory / MODEL)
            _put_aside(directory / CARD)
    epochs = _epochs(directory)
    while epochs:
        last = directory / str(epochs[-1])
        try:
            best = _read(last)[1]["best"] or epochs[-1]
            _check_best(directory, best)
            _delete_epochs(directory, but=(*epochs[-KEPT:], best))  # some may be half-deleted
            break
        except Damaged as error:
            damages.append(str(error))
            _put_aside(last)
            epochs.pop()
    how = f"going back to epoch {epochs[-1]}" if epochs else "the fold starts anew"
    return f"{damages[0]}: {how}; what comes later is kept as *{DAMAGED}" if damages else ""


def _check_best(directory: Path, best: int) -> None:
    """Checks the best epoch, which may be the finished model alone.

    Raises:
        Damaged: It is missing, or not as it was written.
    """
    card = next((name for name in (CARD, BEST) if (directory / name).is_file()), "")
    if (directory / str(best)).is_dir() or not card:
        _read(directory / str(best))
        return
    read_model(directory, card=card)
    if (found := read_card(directory, "epoch", card=card)["epoch"]) != best:
        raise Damaged(f"{directory} has the model of epoch {found}, and not of the best, {best}")


def _put_aside(path: Path) -> None:
    aside = path.with_name(path.name + DAMAGED)
    shutil.rmtree(aside, ignore_errors=True)
    if path.exists():
        path.replace(aside)
