"""SIGTERM and mistakes end the program with a sentence and a status."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ds_jax import ending

ROOT = Path(__file__).parents[1]


def run(body, *, grace=15.0, listen=True, send=True, **options):
    """Runs a block under `told`; SIGTERM comes when it has printed a line."""
    lines = [
        "import sys, time",
        "from ds_jax import ending",
        f"ending.GRACE = {grace}",
        "with ending.told(False):",
        *(["    ending.listen()"] if listen else []),
        *("    " + line for line in body.strip("\n").splitlines()),
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", "\n".join(lines)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if send:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    out, error = process.communicate(timeout=60)
    return process.returncode, out, error, time.monotonic() - began


TOLD = f"stopped by SIGTERM: {ending.ADVICE}\n"


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
    assert (status, out, error) == (143, "cleaned up\n", TOLD)
    assert seconds < 10


def test_a_block_that_defers_it_comes_to_its_end():
    status, out, error, _ = run(
        """
with ending.deferred():
    with ending.deferred():
        print("ready", flush=True)
        while not ending.is_asked():
            time.sleep(0.01)
        print("saved", flush=True)
    print("closed", flush=True)
print("not reached")
"""
    )
    assert (status, out, error) == (143, "saved\nclosed\n", TOLD)


def test_a_block_that_takes_too_long_is_left():
    status, out, error, seconds = run(
        """
with ending.deferred():
    print("ready", flush=True)
    time.sleep(60)
    print("not reached")
""",
        grace=0.5,
    )
    assert (status, out, error) == (143, "", TOLD)
    assert 0.4 < seconds < 10


def test_nothing_is_asked_of_a_block_that_was_left_in_peace():
    assert not ending.is_asked()
    with ending.deferred():
        pass


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        ("ValueError('two\\n lines')", "error: two lines\n"),
        ("FloatingPointError('nan')", "error: nan\n"),
        ("OSError('as it is')", "error: as it is\n"),
        ("OSError(28, 'No space left', '/a/file')", "error: /a/file: No space left\n"),
        ("BlockingIOError('held')", "error: held\n"),
        ("FileNotFoundError()", "error: FileNotFoundError\n"),
    ],
)
def test_mistakes_are_one_sentence(raised, told):
    status, _, error, _ = run(f"raise {raised}", listen=False, send=False)
    assert (status, error) == (1, told)


def test_faults_of_the_program_are_shown_whole():
    status, _, error, _ = run("raise KeyError('x')", listen=False, send=False)
    assert status == 1
    assert "Traceback" in error
