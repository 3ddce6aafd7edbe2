"""How the program ends: a user's mistake is one sentence, and no signal loses work.

Clusters take a machine back by SIGTERM, and by SIGKILL half a minute later. In between the program
ends what it may not leave half-done, says how to go on, and leaves.
"""

import contextlib
import gc
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from types import FrameType

from ds_jax.runtime import errors, files

STATUS = 128 + signal.SIGTERM  # of a program that SIGTERM has ended, as shells have it
INTERRUPTED = 128 + signal.SIGINT  # by Ctrl-C
UNREAD = 128 + signal.SIGPIPE  # by whoever stopped reading its output
AGAIN = 0.1  # seconds after which a signal comes again that nobody could take
GRACE = 20.0  # seconds after SIGTERM in which the program leaves, wherever it may be
TURN = 1.0  # seconds that the first of several processes leaves the others to be gone before it

# What becomes of the work: after SIGTERM was answered, after less than that, and in other modes.
ADVICE = "start the same command again, and it goes on where it was"
LATER = "start the same command again, and it goes on after what was saved last"
ANEW = "the same command starts anew"
_asked = threading.Event()
_deadline: list[float] = []  # the moment, by the monotonic clock, at which GRACE is over
_leaving = threading.Event()  # from when it is said why
_goes_on = [False]  # as `exits_cleanly` was told
_deferred = [0]  # how many blocks are under way that SIGTERM may not break off


class Interrupted(BaseException):
    """SIGTERM has come. No Exception, which others might take for a failure of their own."""


def listen() -> None:
    """Takes SIGTERM from here on; call it in the main thread, after JAX has started."""
    received, sent = os.pipe()
    os.set_blocking(sent, False)
    signal.set_wakeup_fd(sent, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, _take)
    threading.Thread(target=_leave_at_last, args=(received,), daemon=True).start()


@contextlib.contextmanager
def defer_sigterm() -> Iterator[None]:
    """A block that SIGTERM does not break off, and that asks `sigterm_received` when it may leave.

    Raises:
        Interrupted: SIGTERM came within, and the block has ended.
    """
    _deferred[0] += 1
    try:
        yield
    finally:
        _deferred[0] -= 1
    if _asked.is_set() and not _deferred[0]:
        raise Interrupted


def sigterm_received() -> bool:
    """Whether SIGTERM has come."""
    return _asked.is_set()


@contextlib.contextmanager
def exits_cleanly(goes_on: bool, debug: bool = False) -> Iterator[None]:
    """Turns what ends the block early into a sentence and a status.

    Errors that nobody foresaw pass with their traceback, for whoever mends the program.

    Args:
        goes_on: Whether the same command goes on where it was stopped.
        debug: Whether all errors pass.
    """
    _goes_on[0] = goes_on
    handler = signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
        sys.stdout.flush()
    except Interrupted:
        _end(_stopped("SIGTERM", ADVICE), STATUS)
    except KeyboardInterrupt:
        if debug:
            raise
        _end("\n" + _stopped("Ctrl-C", LATER), INTERRUPTED)  # the line shows ^C already
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # it is flushed at exit
        sys.exit(UNREAD)
    except Exception as error:
        said = None if debug else errors.sentence(error)
        if said is not None:  # names of files in it may be hostile
            _end("\n".join(files.printable(line) for line in f"error: {said}".split("\n")), 1)
        if not _is_one_of_several():
            raise
        _end(traceback.format_exc(), 1)
    finally:
        signal.signal(signal.SIGINT, handler)


def _take(number: int, frame: FrameType | None) -> None:
    _note()
    _asked.set()
    if not _deferred[0]:
        _raise(Interrupted, number, frame)


def _note() -> None:
    """Begins the time that is left after SIGTERM, which main thread and watcher hear of each."""
    if not _deadline:
        _deadline.append(time.monotonic() + GRACE)


def _interrupt(number: int, frame: FrameType | None) -> None:
    _raise(KeyboardInterrupt, number, frame)


def _raise(what: type[BaseException], number: int, frame: FrameType | None) -> None:
    """Raises what a signal stands for, where it is not lost."""
    callbacks = {getattr(callback, "__code__", None) for callback in gc.callbacks}
    if frame is None or frame.f_code not in callbacks:
        raise what
    # Python ignores what is raised while it collects garbage, and JAX has a callback there.
    threading.Timer(AGAIN, os.kill, (os.getpid(), number)).start()


def _leave_at_last(received: int) -> None:
    """Ends the program some time after SIGTERM, also while it waits or compiles outside Python."""
    while os.read(received, 1) != bytes([signal.SIGTERM]):
        pass
    _note()
    time.sleep(max(0.0, _deadline[0] - time.monotonic()))
    if not _leaving.is_set():
        print(_stopped("SIGTERM", LATER), file=sys.stderr, flush=True)
    _leave(STATUS)


def _is_one_of_several() -> bool:
    """Whether other processes of the same run may wait for this one."""
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized() and jax.process_count() > 1


def _stopped(by: str, advice: str) -> str:
    """Says what ended the program, and what the same command would do."""
    return f"stopped by {by}: {advice if _goes_on[0] else ANEW}"


def _end(text: str, status: int) -> None:
    _leaving.set()
    print(text, file=sys.stderr, flush=True)
    if not _is_one_of_several():
        sys.exit(status)
    # At an ordinary end JAX waits for the other processes, which may wait for this one: so they
    # hear at once that it is gone.
    sys.stdout.flush()
    _leave(status)


def _leave(status: int) -> None:
    """Ends this process at once; the first of several last, since JAX aborts the others then.

    After SIGTERM, which each may take some time to answer, the first one waits for the others as
    long as there is time; after an error they could go on for ever, and are not waited for.
    """
    if _is_one_of_several():
        jax = sys.modules["jax"]
        client, rank = jax._src.distributed.global_state.client, jax.process_index()
        with contextlib.suppress(Exception):  # time is over, or the other is gone
            if rank:
                client.key_value_set(f"gone/{rank}", "")
            elif _deadline:
                for other in range(1, jax.process_count()):
                    left = max(0.0, _deadline[0] - time.monotonic())
                    client.blocking_key_value_get(f"gone/{other}", round(1000 * left))
        if not rank:
            time.sleep(TURN)
    os._exit(status)
