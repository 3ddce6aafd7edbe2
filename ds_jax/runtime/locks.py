"""Locks that keep other processes out, and that end with the process that holds them."""

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

from ds_jax.runtime.files import (
    explain_write_errors,
    make_folder,
    path_text,
    printable,
    remove_unfinished,
)

# The errors of file systems whose server has no locks, such as NFS without its lock service.
_LOCKLESS = errno.ENOLCK, errno.ENOTSUP


@contextlib.contextmanager
def hold(path: Path, what: str, wait: bool = False, advice: str = "") -> Iterator[None]:
    """Holds a lock within a block.

    It is the system's own lock of a file (flock), or on file systems without locks a file that
    names its owner, which filelock takes over once that process is dead. The file `<lock>.owner`
    next to it is for people.

    Args:
        path: The lock's file; its folder is created.
        what: The name of what the lock protects, with which messages begin.
        wait: Whether to wait until the lock is free, and to say so.
        advice: What else a user can do who does not wait.

    Raises:
        BlockingIOError: Another process holds the lock; the message names it.
        OSError: The lock cannot be written, or its file system has none.
    """
    lock, owner = filelock.FileLock(path), path.with_name(f"{path.name}.owner")
    with explain_write_errors(path):
        make_folder(path.parent)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout as error:
            held = f"{what} is in the hands of {_read(owner)}"
            gone = f"if that process is gone, with its machine perhaps, delete {path}"
            if not wait:
                advice = f", or {advice}" if advice else ""
                raise BlockingIOError(f"{held}: wait for its end{advice}; {gone}") from error
            print(printable(f"{held}: waiting for it; {gone}"), flush=True)
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
            owner.write_text(path_text(_describe_this_process()), encoding="utf-8")
        yield
    finally:
        with contextlib.suppress(OSError):  # the folder may be gone, or the disk
            owner.unlink(missing_ok=True)
        lock.release()


@contextlib.contextmanager
def hold_folder(directory: Path, name: str) -> Iterator[None]:
    """Keeps other processes from files of a folder within a block, and waits for those that do.

    Files that killed processes have left there half-written are removed first.
    """
    with hold(directory / f"{name}.lock", f"{directory}", wait=True):
        remove_unfinished(directory)
        yield


def _describe_this_process() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in containers
        user = f"user {os.getuid()}"
    since = time.strftime("%Y-%m-%d %H:%M:%S %z")
    command = " ".join([Path(sys.executable).name, *sys.argv])
    return f"process {os.getpid()} of {user} on {socket.gethostname()} since {since} ({command})"


def _read(owner: Path) -> str:
    try:
        return owner.read_text(encoding="utf-8") or "another process"
    except (OSError, UnicodeDecodeError):
        return "another process"
