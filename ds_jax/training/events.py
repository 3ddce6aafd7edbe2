"""What TensorBoard reads: the numbers of each epoch of a fold."""

import socket
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboardX import summary
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import RecordWriter

from ds_jax.runtime.files import explain_write_errors, make_folder


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
            make_folder(directory)
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
