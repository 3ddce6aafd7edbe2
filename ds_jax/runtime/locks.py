"""Locks by which processes keep out of each other's way; one that dies lets go of them."""

import contextlib
import errno
import getpass
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import filelock

from ds_jax.runtime import files
from ds_jax.runtime.files import explain_write_errors

# Of a file system whose server locks nothing, as NFS without its lock service.
_LOCKLESS = errno.ENOLCK, errno.ENOTSUP


@contextlib.contextmanager
def hold(path: Path, what: str, wait: bool = False, advice: str = "") -> Iterator[None]:
    """Keeps all other processes from what a lock stands for.

    The system's own lock of a file (flock), which ends with its process; where a file system has
    none, filelock's file that names its owner, which is taken over once that process is dead.
    Beside the lock lies `<lock>.owner`, for people.

    Args:
        path: The lock's file. Its folder is made.
        what: The lock stands for, as a message begins with it.
        wait: Whether to wait until it is free, and say so.
        advice: What else can be done, told to those who do not wait.

    Raises:
        BlockingIOError: Another process has it; the message names its owner.
        OSError: The lock cannot be written, or its file system has none.
    """
    lock, owner = filelock.FileLock(path), path.with_name(f"{path.name}.owner")
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout as error:
            held = f"{what} is in the hands of {_read(owner)}"
            gone = f"if that process is gone, with its machine perhaps, delete {path}"
            if not wait:
                advice = f", or {advice}" if advice else ""
                raise BlockingIOError(f"{held}: wait for its end{advice}; {gone}") from error
            print(files.printable(f"{held}: waiting for it; {gone}"), flush=True)
            lock.acquire()
        except OSError as error:
            if error.errno not in _LOCKLESS:
                raise
            raise OSError(
                f"{path} cannot be locked ({error.strerror}): its file system has no locks. Have "
                "it mounted with them, or name a folder on another disk"
            ) from error
    try:
        with explain_write_errors(owner):
            owner.write_text(_this_process(), encoding="utf-8")
        yield
    finally:
        with contextlib.suppress(OSError):  # the folder may be gone, or the disk
            owner.unlink(missing_ok=True)
        lock.release()


def _this_process() -> str:
    since = time.strftime("%Y-%m-%d %H:%M:%S %z")
    command = " ".join([Path(sys.executable).name, *sys.argv])
    return f"process {os.getpid()} of {_user()} on {socket.gethostname()} since {since} ({command})"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in containers
        return f"user {os.getuid()}"


def _read(owner: Path) -> str:
    try:
        return owner.read_text(encoding="utf-8") or "another process"
    except (OSError, UnicodeDecodeError):
        return "another process"
