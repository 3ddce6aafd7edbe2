"""Mistakes are told in one sentence, and what nobody foresaw keeps its traceback."""

import errno
import gc
import os
import signal
import subprocess
import sys
import time

import jax.numpy as jnp
import numpy as np
import pytest

from ds_jax import config, errors


def end(capsys, raise_it, goes_on=True, debug=False):
    """The status that the program ends with, and what it says."""
    with pytest.raises(SystemExit) as ended, errors.told(goes_on, debug):
        raise_it()
    code = ended.value.code
    return (code, capsys.readouterr().err) if isinstance(code, int) else (1, code)


def raiser(error):
    def raise_it():
        raise error

    return raise_it


def test_a_sentence_of_this_program_is_told(capsys):
    status, said = end(capsys, lambda: config.chosen_folds("x"))
    assert (status, said.partition(":")[0]) == (1, "error")
    assert "--fold=x" in said


@pytest.mark.parametrize(
    "accident",
    [
        lambda: np.zeros(3).reshape(2, 2),  # of a library, in C
        lambda: config.json.loads("no"),  # of a library, in Python
        lambda: config.difflib.get_close_matches("a", ["b"], n=0),
        lambda: errors.KINDS["none"],
        raiser(ValueError("raised by a stranger")),
    ],
)
def test_what_nobody_foresaw_passes(accident):
    with pytest.raises((ValueError, KeyError)), errors.told(True):
        accident()


def test_debug_lets_all_pass():
    for error in (ValueError("x"), OSError("x"), KeyboardInterrupt()):
        with pytest.raises(type(error)), errors.told(True, debug=True):
            raise error
    with pytest.raises(ValueError, match="--fold=x"), errors.told(True, debug=True):
        config.chosen_folds("x")


def test_the_system_s_errors_name_the_file(capsys):
    missing = raiser(FileNotFoundError(errno.ENOENT, "No such file", "a.wav"))
    assert end(capsys, missing) == (1, "error: a.wav: No such file")
    full = raiser(OSError(errno.ENOSPC, "No space left on device", "b"))
    assert "b: No space left on device: free some space" in end(capsys, full)[1]
    assert end(capsys, raiser(OSError("in words"))) == (1, "error: in words")


def test_a_full_memory_is_told(capsys):
    said = end(capsys, lambda: jnp.zeros(1 << 46).block_until_ready())[1]
    assert "memory is full" in said
    assert "--config.train.batch_size" in said
    assert "the machine's memory is full" in end(capsys, raiser(MemoryError()))[1]
    with pytest.raises(RuntimeError, match="else"), errors.told(True):
        raise RuntimeError("anything else")


def test_a_missing_package_is_told(capsys):
    def forgotten():
        import a_package_that_is_not_there.below  # noqa: F401

    said = end(capsys, forgotten)[1]
    assert "package a_package_that_is_not_there is not installed: pip install" in said
    with pytest.raises(ModuleNotFoundError), errors.told(True):
        import ds_jax.nothing_of_the_kind  # noqa: F401


@pytest.mark.parametrize(("goes_on", "how"), [(True, "goes on"), (False, "starts anew")])
def test_an_interrupt_says_how_to_go_on(capsys, goes_on, how):
    status, said = end(capsys, lambda: signal.raise_signal(signal.SIGINT), goes_on)
    assert status == errors.INTERRUPTED == 130
    assert how in said
    assert said.strip().count("\n") == 0


def test_an_interrupt_is_not_lost_where_garbage_is_collected(capsys):
    def callback(phase, info):
        if phase == "start":
            signal.raise_signal(signal.SIGINT)

    def collect():
        gc.callbacks.append(callback)
        try:
            gc.collect()
        finally:
            gc.callbacks.remove(callback)
        time.sleep(30)

    assert end(capsys, collect)[0] == errors.INTERRUPTED


def test_handlers_are_left_as_they_were():
    before = signal.getsignal(signal.SIGINT)
    with errors.told(True):
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_a_reader_that_has_enough_ends_it_quietly():
    program = "from ds_jax import errors\nwith errors.told(True):\n    print('x' * 1_000_000)"
    read, write = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdout=write, stderr=subprocess.PIPE, text=True
    )
    os.close(write)
    os.read(read, 10)
    os.close(read)
    assert child.communicate(timeout=60)[1] == ""
    assert child.returncode == errors.UNREAD
