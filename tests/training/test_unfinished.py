"""An epoch that was broken off is gone on with, and no other one."""

import numpy as np
import pytest

from ds_jax.training import arrays, unfinished
from ds_jax.training.unfinished import Unfinished

VARIABLES, OPTIMIZER = {"params": {"k": np.arange(3.0)}}, {"step": np.int32(5), "m": (np.ones(2),)}
FOLD = "12ab" * 16
BEGUN = Unfinished(VARIABLES, OPTIMIZER, np.asarray([2.5, 1.5], np.float32), 3.25)


def test_it_comes_back_for_its_epoch_alone(tmp_path):
    assert unfinished.load(tmp_path, 1, FOLD, VARIABLES, OPTIMIZER) is None
    unfinished.save(tmp_path, 4, FOLD, BEGUN)
    begun = unfinished.load(tmp_path, 4, FOLD, VARIABLES, OPTIMIZER)
    np.testing.assert_array_equal(begun.variables["params"]["k"], np.arange(3.0))
    assert begun.optimizer["step"] == 5
    assert begun.losses.tolist() == [2.5, 1.5]
    assert begun.losses.dtype == np.float32
    assert begun.seconds == 3.25
    assert unfinished.load(tmp_path, 3, FOLD, VARIABLES, OPTIMIZER) is None
    assert unfinished.load(tmp_path, 5, FOLD, VARIABLES, OPTIMIZER) is None
    assert unfinished.load(tmp_path, 4, FOLD, {"other": np.zeros(1)}, OPTIMIZER) is None
    with pytest.raises(ValueError, match=f"{tmp_path / unfinished.DIRECTORY} is of another fold"):
        unfinished.load(tmp_path, 4, FOLD[::-1], VARIABLES, OPTIMIZER)


def test_a_later_one_takes_its_place_and_it_is_forgotten(tmp_path):
    unfinished.save(tmp_path, 4, FOLD, BEGUN)
    unfinished.save(tmp_path, 5, FOLD, BEGUN._replace(losses=np.zeros(0, np.float32)))
    assert unfinished.load(tmp_path, 4, FOLD, VARIABLES, OPTIMIZER) is None
    assert len(unfinished.load(tmp_path, 5, FOLD, VARIABLES, OPTIMIZER).losses) == 0
    unfinished.remove(tmp_path)
    unfinished.remove(tmp_path)
    assert unfinished.load(tmp_path, 5, FOLD, VARIABLES, OPTIMIZER) is None
    assert not list(tmp_path.iterdir())


def test_half_of_it_is_none_and_a_damaged_one_is_told(tmp_path):
    unfinished.save(tmp_path, 4, FOLD, BEGUN)
    folder = tmp_path / unfinished.DIRECTORY
    content = bytearray((folder / arrays.FILE).read_bytes())
    content[-1] ^= 1
    (folder / arrays.FILE).write_bytes(content)
    with pytest.raises(ValueError, match=r"unfinished/arrays\.safetensors is damaged"):
        unfinished.load(tmp_path, 4, FOLD, VARIABLES, OPTIMIZER)
    (folder / "checksums.json").unlink()  # which is written last
    assert unfinished.load(tmp_path, 4, FOLD, VARIABLES, OPTIMIZER) is None
