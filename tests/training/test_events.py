"""What is written for TensorBoard is what it reads back."""

import struct

import numpy as np
import pytest
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import masked_crc32c

from ds_jax.training.events import Events


def read(folder):
    """The events of the only file, each record checked as TensorBoard does."""
    (path,) = folder.iterdir()
    content, found = path.read_bytes(), []
    while content:
        size, crc = struct.unpack("<QI", content[:12])
        assert crc == masked_crc32c(content[:8])
        record, content = content[12 : 12 + size], content[12 + size :]
        assert struct.unpack("<I", content[:4])[0] == masked_crc32c(record)
        content = content[4:]
        found.append(event_pb2.Event.FromString(record))
    return found


@pytest.mark.parametrize("first", [1, 3])
def test_numbers_come_back_and_what_went_before_is_purged(tmp_path, first):
    events = Events(tmp_path / "new", first)
    events.write(first, {"loss": 0.5, "uar": 0.25})
    before = len(read(tmp_path / "new"))  # nothing waits to be written
    events.write(first + 1, {"loss": 0.125})
    events.close()
    version, *rest = read(tmp_path / "new")
    assert version.file_version == "brain.Event:2"
    if first > 1:
        start, *rest = rest
        assert (start.step, start.session_log.status) == (3, event_pb2.SessionLog.START)
    values = [(e.step, e.summary.value[0].tag, e.summary.value[0].simple_value) for e in rest]
    assert values == [
        (first, "loss", 0.5),
        (first, "uar", 0.25),
        (first + 1, "loss", 0.125),
    ]
    assert before == len(rest) - 1 + (2 if first > 1 else 1)
    times = [event.wall_time for event in rest]
    assert all(np.diff(times) >= 0)
    assert times[0] > 1e9
