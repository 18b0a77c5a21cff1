"""Handles signals that ask a run to stop, which clusters send before they take a machine away."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import jax

from rwp_jax.distributed import processes

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: try again later
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(RuntimeError):
    """The run was asked to stop and has saved its state; the message names the checkpoint."""


def end_on_sigterm(line: str) -> None:
    """Makes SIGTERM, outside of a `StopRequest`, print a line and end the process with EXIT_CODE.

    Python handles signals between its own instructions: a running compilation finishes first.
    """

    def end(*_) -> None:
        os.write(2, f"{line}\n".encode())
        os._exit(EXIT_CODE)

    signal.signal(signal.SIGTERM, end)


@contextlib.contextmanager
def ending_at_once() -> Iterator[None]:
    """Makes SIGTERM and SIGINT end the process at once, even in compilations; for work that may be lost."""
    numbers = SIGNALS
    # Python allows signal handlers in the main thread only.
    if threading.current_thread() is not threading.main_thread():
        numbers = ()
    previous = {number: signal.signal(number, signal.SIG_DFL) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def keep_handlers() -> None:
    """Restores Python's handlers of SIGTERM and SIGINT if a library, such as libtpu, has replaced them."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, signal.getsignal(number))


class StopRequest:
    """Context in which SIGTERM and SIGINT set `signal` instead of ending the process; a second one ends it.

    Attributes:
      signal: name of the signal that this process received, such as "SIGTERM"; None before.
    """

    def __init__(self):
        self.signal: str | None = None
        self._previous: dict[int, object] = {}

    def asked(self, answer: jax.Array) -> bool:
        """Waits for a step's answer, see `experiment.Parts`; returns whether to stop now.

        Several hosts stop after the same step, once all have the answer. A single process reacts to its own
        signal and does not wait for the steps queued after this one.
        """
        answered = bool(answer)
        return self.signal is not None if jax.process_count() == 1 else answered

    def asked_anywhere(self) -> bool:
        """Returns whether any process received a signal; waits for all of them."""
        return any(processes.gather(self.signal is not None))

    def __enter__(self) -> "StopRequest":
        # Python allows signal handlers in the main thread only.
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _: FrameType | None) -> None:
        self.signal = signal.Signals(number).name
        for second in self._previous:
            signal.signal(second, signal.SIG_DFL)
        doing = "finishing the step or evaluation, then saving; send it again to end at once"
        os.write(2, f"{self.signal}: {doing}\n".encode())
