"""What a fold remembers between epochs, and what TensorBoard reads back."""

import struct

import numpy as np
import pytest
import tiny
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import masked_crc32c

from ds_jax.data.corpus import with_variants
from ds_jax.training.fold import Events, FoldState, plateaus


def test_plateaus_lower_the_rates_and_gains_start_the_count_again():
    losses = [3.0, 2.0, 2.0, 2.5, 1.0, 1.1, 1.2, 1.3, 1.4]
    scales, waits = zip(*(plateaus(losses[:n], 2) for n in range(1, 10)), strict=True)
    assert waits == (0, 0, 1, 2, 0, 1, 2, 3, 4)
    np.testing.assert_allclose(scales, [1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.001], rtol=1e-12)
    assert plateaus([], 2) == (1.0, 0)


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


def test_variants_train_and_neither_choose_nor_test(tmp_path):
    recorded = tiny.corpus(6)
    corpus = with_variants(recorded, [recorded])
    fold = tiny.fold(range(3), range(3, 4), range(4, 6))
    state = FoldState(tiny.config(), corpus, 0, fold, tmp_path, False)
    found = {split: rows.tolist() for split, rows in state.rows.items()}
    assert found == {"train": [0, 1, 2, 6, 7, 8], "dev": [3], "test": [4, 5]}
    assert sorted(state.order().tolist()) == found["train"]
