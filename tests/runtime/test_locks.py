"""A lock keeps others out, names its owner, and goes with it."""

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ds_jax.runtime import locks

ROOT = Path(__file__).parents[2]
OWNER = """
import sys, time
from pathlib import Path
from ds_jax.runtime import locks
with locks.hold(Path(sys.argv[1]), "it"):
    print("held", flush=True)
    time.sleep(600)
"""


GONE = "if that process is gone, with its machine perhaps"


@pytest.fixture
def owner(tmp_path):
    """Another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, tmp_path / "a.lock"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_owner_is_named(tmp_path, owner):
    with (
        pytest.raises(BlockingIOError) as refused,
        locks.hold(tmp_path / "a.lock", "fold 3", advice="take another"),
    ):
        pass
    message = str(refused.value)
    assert message.startswith(f"fold 3 is in the hands of process {owner.pid} of ")
    assert f"on {socket.gethostname()} since {time.strftime('%Y-')}" in message
    assert "(python" in message
    assert ": wait for its end, or take another; if that process is gone" in message
    assert message.endswith(f", delete {tmp_path / 'a.lock'}")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_dead_owner_blocks_nobody(tmp_path, owner, number):
    owner.send_signal(number)
    owner.wait()
    with locks.hold(tmp_path / "a.lock", "it"):
        assert f"process {os.getpid()} " in (tmp_path / "a.lock.owner").read_text()


def test_those_who_wait_say_so_and_come_next(tmp_path, owner, capsys):
    taken, note = [], tmp_path / "a.lock.owner"
    note.write_text(note.read_text() + "\033[2J")  # an argument of somebody else's command

    def wait():
        with locks.hold(tmp_path / "a.lock", "it", wait=True):
            taken.append(time.monotonic())

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join(0.5)
    assert thread.is_alive()
    printed = capsys.readouterr().out
    assert f"it is in the hands of process {owner.pid} of" in printed
    assert "\033" not in printed
    assert r"\x1b[2J" in printed
    assert printed.endswith(f": waiting for it; {GONE}, delete {tmp_path / 'a.lock'}\n")
    owner.kill()
    thread.join(10)
    assert taken


def test_a_lock_is_let_go_of(tmp_path):
    for _ in range(2):
        with locks.hold(tmp_path / "new" / "a.lock", "it"):
            assert (tmp_path / "new" / "a.lock.owner").exists()
        assert not (tmp_path / "new" / "a.lock.owner").exists()
    with pytest.raises(KeyError), locks.hold(tmp_path / "a.lock", "it"):
        raise KeyError
    with locks.hold(tmp_path / "a.lock", "it"), locks.hold(tmp_path / "b.lock", "another"):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch, number):
    def refuse(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    with (
        pytest.raises(
            OSError, match=f"{tmp_path / 'a.lock'} cannot be locked .*no locks"
        ) as refused,
        locks.hold(tmp_path / "a.lock", "it"),
    ):
        pass
    assert os.strerror(number) in str(refused.value)
    assert "make room" not in str(refused.value)


def test_an_owner_that_left_no_note_is_another_process(tmp_path):
    with locks.hold(tmp_path / "a.lock", "it"):
        (tmp_path / "a.lock.owner").write_bytes(b"\xff")
        with (
            pytest.raises(BlockingIOError, match="in the hands of another process: wait"),
            locks.hold(tmp_path / "a.lock", "it"),
        ):
            pass
