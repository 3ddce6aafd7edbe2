"""What TensorBoard reads: the scores of a fold, epoch by epoch."""

import time
from collections.abc import Mapping
from pathlib import Path

from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2

from ds_jax.files import told_about


class Events:
    """A file of events, written at once: tensorboardX' own thread hangs on a full disk.

    Args:
        directory: Where the file goes.
        step: The first that is to come; TensorBoard forgets it and later ones of older files.
    """

    def __init__(self, directory: Path, step: int):
        self._directory = directory
        with told_about(directory):
            directory.mkdir(parents=True, exist_ok=True)
            self._writer = EventsWriter(str(directory / "events"))
            if step > 1:
                start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
                self._writer.write_event(event_pb2.Event(step=step, session_log=start))
            self._writer.flush()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Adds numbers by their names.

        Raises:
            OSError: The disk is full, or gone.
        """
        with told_about(self._directory):
            for name, value in values.items():
                scalar = summary.scalar(name, value)
                event = event_pb2.Event(wall_time=time.time(), step=step, summary=scalar)
                self._writer.write_event(event)
            self._writer.flush()

    def close(self) -> None:
        """Lets go of the file."""
        with told_about(self._directory):
            self._writer.close()
