"""Signals and mistakes end the program with a sentence and a status."""

import difflib
import gc
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny

from ds_jax import cli
from ds_jax.runtime import errors, shutdown

ROOT = Path(__file__).parents[2]


def run_each(body, count, grace, resumes=True):
    """Runs a block in processes, which get SIGTERM when all have printed a line.

    Returns:
        The status of each, what each printed, and the seconds from SIGTERM on.
    """
    lines = [
        "import sys, time",
        "from ds_jax.runtime import shutdown",
        f"shutdown.GRACE = {grace}",
        f"with shutdown.exits_cleanly(resumes={resumes}):",
        *["    from ds_jax.runtime import processes; processes.start(True)"] * (count > 1),
        "    shutdown.listen()",
        *("    " + line for line in body.strip("\n").splitlines()),
    ]
    address = f"127.0.0.1:{tiny.free_port()}"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_COORDINATOR_ADDRESS": address}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", "\n".join(lines)],
            cwd=ROOT,
            env=environment | {"DS_JAX_PROCESSES": f"{count}", "DS_JAX_PROCESS": f"{rank}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        began = time.monotonic()
        for process in processes:
            process.send_signal(signal.SIGTERM)
        outputs = [process.communicate(timeout=60) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], outputs, time.monotonic() - began


def run(body, grace=15.0, resumes=True):
    """Runs a block in one process."""
    (status,), ((out, error),), seconds = run_each(body, 1, grace, resumes)
    return status, out, error, seconds


RESUMES = f"stopped by SIGTERM: {shutdown.ADVICE}\n"
RESUMES_LATER = f"stopped by SIGTERM: {shutdown.LATER}\n"
ANEW = f"stopped by SIGTERM: {shutdown.ANEW}\n"


def test_sigterm_ends_it_at_once_and_says_how_to_go_on():
    status, out, error, seconds = run(
        """
try:
    print("ready", flush=True)
    time.sleep(60)
except Exception:
    print("taken for a failure")
finally:
    print("cleaned up")
"""
    )
    assert (status, out, error) == (143, "cleaned up\n", RESUMES)
    assert seconds < 10


@pytest.mark.parametrize("ends", [False, True])
def test_it_leaves_the_end_of_the_program_alone(ends):
    """Then Python waits for worker processes, and an exception there would be printed."""
    status, out, error, _ = run(
        f"""
import atexit, os
atexit.register(lambda: print("cleaned up"))
atexit.register(time.sleep, 1.0)
if {ends}:
    atexit.register(os.kill, os.getpid(), 15)
    print("ready", flush=True)
    time.sleep(60)
else:
    atexit.register(print, "ready", flush=True)
"""
    )
    assert (status, out, error) == (
        (143, "cleaned up\n", RESUMES) if ends else (0, "cleaned up\n", "")
    )


def test_a_block_that_defers_it_comes_to_its_end():
    status, out, error, _ = run(
        """
with shutdown.defer_sigterm():
    with shutdown.defer_sigterm():
        print("ready", flush=True)
        while not shutdown.sigterm_received():
            time.sleep(0.01)
        print("saved", flush=True)
    print("closed", flush=True)
print("not reached")
"""
    )
    assert (status, out, error) == (143, "saved\nclosed\n", RESUMES)


def test_a_block_that_takes_too_long_is_left():
    status, out, error, seconds = run(
        """
with shutdown.defer_sigterm():
    print("ready", flush=True)
    time.sleep(60)
    print("not reached")
""",
        grace=0.5,
    )
    assert (status, out, error) == (143, "", RESUMES_LATER)
    assert 0.4 < seconds < 10


@pytest.mark.parametrize("block", ["with shutdown.defer_sigterm():", "if True:"])
def test_what_starts_anew_says_so_however_it_is_ended(block):
    body = f"{block}\n    print('ready', flush=True)\n    time.sleep(60)"
    status, _, error, _ = run(body, grace=0.5, resumes=False)
    assert (status, error) == (143, ANEW)


SLOW = """
with shutdown.defer_sigterm():
    print("ready", flush=True)
    while not shutdown.sigterm_received():
        time.sleep(0.01)
    time.sleep({} if processes.is_first_process() else {})
    print("saved", flush=True)
"""


@pytest.mark.parametrize("seconds", [(0, 4), pytest.param((4, 0), marks=pytest.mark.slow)])
def test_of_two_processes_each_has_the_time_that_it_needs(seconds):
    """JAX aborts the second when the first has left."""
    statuses, outputs, lasted = run_each(SLOW.format(*seconds), 2, grace=20)
    assert statuses == [143, 143], outputs
    assert outputs == [("saved\n", RESUMES)] * 2
    assert 4 <= lasted < 15


@pytest.mark.slow
def test_of_two_processes_neither_waits_longer_than_there_is_time():
    statuses, outputs, lasted = run_each(SLOW.format(0, 60), 2, grace=3)
    assert statuses == [143, 143], outputs
    assert outputs[0] == ("saved\n", RESUMES)
    assert outputs[1] == ("", RESUMES_LATER)
    assert 3 <= lasted < 10


def test_nothing_is_asked_of_a_block_without_sigterm():
    with shutdown.defer_sigterm():
        assert not shutdown.sigterm_received()


def end(capsys, raise_it, resumes=True, debug=False):
    """The status that the program ends with, and what it says."""
    with pytest.raises(SystemExit) as ended, shutdown.exits_cleanly(resumes, debug):
        raise_it()
    return ended.value.code, capsys.readouterr().err


def raiser(error):
    def raise_it():
        raise error

    return raise_it


def test_a_mistake_is_one_sentence_and_a_status(capsys):
    status, printed = end(capsys, lambda: cli.parse_folds("x"))
    assert status == 1
    assert printed.startswith("error: --fold=x")
    assert printed.count("\n") == 1


@pytest.mark.parametrize(
    "accident",
    [
        lambda: np.zeros(3).reshape(2, 2),  # of a library, in C
        lambda: json.loads("no"),  # of a library, in Python
        lambda: difflib.get_close_matches("a", ["b"], n=0),
        lambda: errors.KINDS["none"],
        raiser(ValueError("raised by a stranger")),
    ],
)
def test_what_nobody_foresaw_passes(accident):
    with pytest.raises((ValueError, KeyError)), shutdown.exits_cleanly(True):
        accident()


def test_debug_lets_all_pass():
    for error in (ValueError("x"), OSError("x"), KeyboardInterrupt()):
        with pytest.raises(type(error)), shutdown.exits_cleanly(True, debug=True):
            raise error
    with pytest.raises(ValueError, match="--fold=x"), shutdown.exits_cleanly(True, debug=True):
        cli.parse_folds("x")


@pytest.mark.parametrize(("resumes", "how"), [(True, "goes on"), (False, "starts anew")])
def test_an_interrupt_says_how_to_go_on(capsys, resumes, how):
    status, printed = end(capsys, lambda: signal.raise_signal(signal.SIGINT), resumes)
    assert status == shutdown.INTERRUPTED == 130
    assert how in printed
    assert printed.strip().count("\n") == 0


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

    assert end(capsys, collect)[0] == shutdown.INTERRUPTED


def test_handlers_are_restored(monkeypatch):
    monkeypatch.setattr(sys, "unraisablehook", hook := lambda dropped: None)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as shells start jobs in the background
    try:
        with shutdown.exits_cleanly(True), pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        assert sys.unraisablehook is hook
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_reader_that_has_enough_ends_it_quietly():
    program = (
        "from ds_jax.runtime import shutdown\n"
        "with shutdown.exits_cleanly(True):\n    print('x' * 1_000_000)"
    )
    read, write = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdout=write, stderr=subprocess.PIPE, text=True
    )
    os.close(write)
    os.read(read, 10)
    os.close(read)
    assert child.communicate(timeout=60)[1] == ""
    assert child.returncode == shutdown.UNREAD
