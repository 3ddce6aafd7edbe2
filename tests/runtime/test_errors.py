"""What users are told of errors, and which errors are told to nobody."""

import errno

import jax.numpy as jnp
import pytest

from ds_jax.runtime import errors


def test_the_system_s_errors_name_the_file():
    missing = FileNotFoundError(errno.ENOENT, "No such file", "a.wav")
    assert errors.sentence(missing) == "a.wav: No such file"
    full = OSError(errno.ENOSPC, "No space left on device", "b")
    assert errors.sentence(full).startswith("b: No space left on device: free some space")
    assert errors.sentence(OSError("in words")) == "in words"
    assert errors.sentence(BlockingIOError()) == "BlockingIOError"


def test_a_full_memory_is_told():
    with pytest.raises(RuntimeError) as raised:
        jnp.zeros(1 << 46).block_until_ready()
    assert "memory is full" in errors.sentence(raised.value)
    assert "--config.train.batch_size" in errors.sentence(raised.value)
    assert "the machine's memory is full" in errors.sentence(MemoryError())
    assert errors.sentence(RuntimeError("anything else")) is None


def test_a_missing_package_is_told():
    with pytest.raises(ModuleNotFoundError) as raised:
        import a_package_that_is_not_there.below  # noqa: F401
    said = errors.sentence(raised.value)
    assert said.startswith("the package a_package_that_is_not_there is not installed: pip install")
    with pytest.raises(ModuleNotFoundError) as raised:
        import ds_jax.nothing_of_the_kind  # noqa: F401
    assert errors.sentence(raised.value) is None
