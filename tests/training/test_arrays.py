"""Trees of arrays come back bit for bit, or not at all."""

import jax
import numpy as np
import pytest

from ds_jax.runtime import files
from ds_jax.training import arrays

TREE = {
    "a": {"b": np.asarray([[np.nan, -0.0], [1e-42, 3]], np.float32)},
    "c": (np.int32(7), np.arange(6).reshape(2, 3).T),  # the last is not contiguous
}


def test_a_tree_comes_back(tmp_path):
    assert not arrays.is_whole(tmp_path / "new")
    arrays.save(tmp_path / "new", TREE)
    assert arrays.is_whole(tmp_path / "new")
    loaded = arrays.shape(arrays.load(tmp_path / "new"), TREE)
    assert jax.tree.structure(loaded) == jax.tree.structure(TREE)
    for one, other in zip(jax.tree.leaves(loaded), jax.tree.leaves(TREE), strict=True):
        assert one.dtype == other.dtype
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize(
    "other",
    [
        {"a": TREE["a"]},
        TREE | {"d": np.zeros(2)},
        TREE | {"a": {"b": np.zeros((2, 3))}},
        {"x": TREE["a"], "c": TREE["c"]},
    ],
)
def test_another_shape_is_no_tree(tmp_path, other):
    arrays.save(tmp_path, TREE)
    assert arrays.shape(arrays.load(tmp_path), other) is None


@pytest.mark.parametrize("name", [arrays.FILE, files.CHECKSUMS])
def test_damage_is_told(tmp_path, name):
    arrays.save(tmp_path, TREE)
    whole = (tmp_path / name).read_bytes()
    for content in (b"", whole[:-2], whole[:40] + bytes([whole[40] ^ 8]) + whole[41:]):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=str(tmp_path / name)):
            arrays.load(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ValueError, match=f"{tmp_path / name} is missing"):
        arrays.load(tmp_path)
