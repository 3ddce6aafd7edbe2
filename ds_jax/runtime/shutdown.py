"""How the program ends: a user's mistake is one sentence, and no signal loses work.

Clusters take a machine back by SIGTERM, and by SIGKILL half a minute later. In between the program
finishes what it may not leave half-done, says how to go on, and leaves.
"""

import contextlib
import functools
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from types import ModuleType

from ds_jax.runtime import errors, files

STATUS = 128 + signal.SIGTERM  # of a program that SIGTERM has ended, as shells have it
INTERRUPTED = 128 + signal.SIGINT  # of one that Ctrl-C has ended
UNREAD = 128 + signal.SIGPIPE  # of one whose output nobody reads any more
AGAIN = 0.1  # seconds after which a signal is sent again whose exception Python has dropped
GRACE = 20.0  # seconds after SIGTERM in which the program leaves, wherever it may be
TURN = 1.0  # seconds that a process gives the others of its run to leave before it

# What the same command does next: after an answer to SIGTERM, without one, and in other modes.
ADVICE = "start the same command again, and it goes on where it was"
LATER = "start the same command again, and it goes on after what was saved last"
ANEW = "the same command starts anew"


class Interrupted(BaseException):
    """SIGTERM was received. It is no Exception, so that nobody takes it for a failure."""


class Shutdown:
    """The end of this process, which a signal may begin at any moment."""

    def __init__(self):
        self._resumes = False  # whether the same command goes on where this one stops
        self._received = False  # whether SIGTERM was received
        self._deadline: float | None = None  # by time.monotonic(), from SIGTERM on
        self._deferrals = 0  # blocks under way that SIGTERM must not interrupt
        self._is_over = False  # whether all that is left is Python's own end, which may wait
        self._is_explained = False  # whether the reason of the end was printed
        self._leaving = threading.Lock()

    def listen(self) -> None:
        """Handles SIGTERM from now on; call it in the main thread, after JAX has started."""
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda *_: self._interrupt())
        threading.Thread(target=self._leave_at_deadline, args=(read_end,), daemon=True).start()

    def sigterm_received(self) -> bool:
        """Returns whether SIGTERM was received."""
        return self._received

    @contextlib.contextmanager
    def defer_sigterm(self) -> Iterator[None]:
        """Delays `Interrupted` to the end of a block, which asks `sigterm_received` when to end.

        Raises:
            Interrupted: SIGTERM was received within the block.
        """
        self._deferrals += 1
        try:
            yield
        finally:
            self._deferrals -= 1
        if self._received and not self._deferrals:
            raise Interrupted

    @contextlib.contextmanager
    def exits_cleanly(self, resumes: bool, debug: bool = False) -> Iterator[None]:
        """Turns what ends a block early into a sentence and an exit status.

        Unforeseen errors pass with their traceback, for whoever repairs the program, and all do
        where `debug` is set; `resumes` says whether the same command goes on where it was stopped.
        """
        self._resumes, self._is_over = resumes, False
        handler = signal.signal(signal.SIGINT, signal.default_int_handler)
        hook = sys.unraisablehook
        sys.unraisablehook = functools.partial(_repeat_dropped_signal, hook)
        try:
            yield
            sys.stdout.flush()
        except Interrupted:
            self._is_over = True
            self._start_deadline()  # SIGTERM may have come to another process of the run
            self._end(self._advice("SIGTERM", ADVICE), STATUS)
        except KeyboardInterrupt:
            if debug:
                raise
            self._end("\n" + self._advice("Ctrl-C", LATER), INTERRUPTED)  # ^C is on the line
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # it is flushed at exit
            sys.exit(UNREAD)
        except Exception as error:
            sentence = None if debug else errors.sentence(error)
            if sentence is not None:  # it may quote a hostile file name
                lines = f"error: {sentence}".split("\n")
                self._end("\n".join(map(files.printable, lines)), 1)
            if _distributed_jax() is None:
                raise
            self._end(traceback.format_exc(), 1)
        finally:
            self._is_over = True
            signal.signal(signal.SIGINT, handler)
            sys.unraisablehook = hook

    def _interrupt(self) -> None:
        self._start_deadline()
        self._received = True
        if not self._deferrals and not self._is_over:
            raise Interrupted

    def _start_deadline(self) -> None:
        # The main thread and the watching thread each learn of the signal, in any order.
        self._deadline = self._deadline or time.monotonic() + GRACE

    def _leave_at_deadline(self, signals: int) -> None:
        """Ends the program some time after SIGTERM, even while it waits or compiles outside Python.

        The numbers of received signals come through the pipe `signals`.
        """
        while os.read(signals, 1) != bytes([signal.SIGTERM]):
            pass
        self._start_deadline()
        time.sleep(max(0.0, self._deadline - time.monotonic()))
        if not (self._is_explained or self._is_over):
            print(self._advice("SIGTERM", LATER), file=sys.stderr, flush=True)
        self._leave(STATUS)

    def _advice(self, cause: str, advice: str) -> str:
        return f"stopped by {cause}: {advice if self._resumes else ANEW}"

    def _end(self, text: str, status: int) -> None:
        self._is_explained = True
        print(text, file=sys.stderr, flush=True)
        if _distributed_jax() is None:
            sys.exit(status)
        sys.stdout.flush()
        self._leave(status)

    def _leave(self, status: int) -> None:
        """Ends this process without JAX' own end, which waits minutes for the other processes.

        After SIGTERM, which every process answers in its own time, they leave together if there is
        time: JAX aborts the others when the first one has left. After an error the others may go
        on for ever, and only the first process waits, so that they can print theirs.
        """
        self._leaving.acquire()  # never released: of two threads the second one stops here
        jax = _distributed_jax()
        if jax is not None and self._deadline is not None:
            together = threading.Thread(target=_disconnect, args=(jax,), daemon=True)
            together.start()
            together.join(max(0.0, self._deadline + TURN - time.monotonic()))
        elif jax is not None and jax.process_index() == 0:
            time.sleep(TURN)
        os._exit(status)


def _repeat_dropped_signal(hook: Callable, dropped: "sys.UnraisableHookArgs") -> None:
    """Sends a signal again whose exception Python has dropped; `hook` takes the other exceptions.

    Python drops exceptions in callbacks of its garbage collection, of which JAX has one.
    """
    number = {Interrupted: signal.SIGTERM, KeyboardInterrupt: signal.SIGINT}.get(dropped.exc_type)
    if number is None:
        hook(dropped)
    else:
        threading.Timer(AGAIN, os.kill, (os.getpid(), number)).start()


def _distributed_jax() -> ModuleType | None:
    """Returns the module jax if this process is one of several of a run, without importing it."""
    jax = sys.modules.get("jax")
    distributed = jax is not None and jax.distributed.is_initialized() and jax.process_count() > 1
    return jax if distributed else None


def _disconnect(jax: ModuleType) -> None:
    with contextlib.suppress(Exception):  # another process may be gone already
        jax.distributed.shutdown()  # waits until all processes call it


_shutdown = Shutdown()
listen, sigterm_received = _shutdown.listen, _shutdown.sigterm_received
defer_sigterm, exits_cleanly = _shutdown.defer_sigterm, _shutdown.exits_cleanly
