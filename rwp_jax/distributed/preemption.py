"""Signals that ask a run to stop, as a cluster sends them before it takes a machine away."""

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
    """The run was asked to stop and has saved; the message says where."""


def end_on_sigterm(line: str) -> None:
    """Makes SIGTERM, where no `StopRequest` waits for it, end the process with a line and EXIT_CODE.

    Python hears signals between its own instructions: a compilation under way is finished first.
    """

    def end(*_) -> None:
        os.write(2, f"{line}\n".encode())
        os._exit(EXIT_CODE)

    signal.signal(signal.SIGTERM, end)


@contextlib.contextmanager
def ending_at_once() -> Iterator[None]:
    """Within it SIGTERM and SIGINT end the process at once, in compilations too: nothing must be lost."""
    numbers = SIGNALS
    # Python hands signals to the main thread alone.
    if threading.current_thread() is not threading.main_thread():
        numbers = ()
    previous = {number: signal.signal(number, signal.SIG_DFL) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def keep_handlers() -> None:
    """Puts Python's handlers of SIGTERM and SIGINT back, where a library has its own, as libtpu."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, signal.getsignal(number))


class StopRequest:
    """Within it SIGTERM and SIGINT set `signal` instead of ending the process; a second one ends it.

    Attributes:
      signal: name of the signal that came to this process, such as "SIGTERM"; None before.
    """

    def __init__(self):
        self.signal: str | None = None
        self._previous: dict[int, object] = {}

    def asked(self, answer: jax.Array) -> bool:
        """Waits for a step's answer, see `experiment.Parts`; whether to stop now.

        With several hosts all stop after the same step, when all have the answer. One alone need not wait
        for the steps that are queued behind it.
        """
        answered = bool(answer)
        return self.signal is not None if jax.process_count() == 1 else answered

    def asked_anywhere(self) -> bool:
        """Whether a signal came to any host; it waits for all of them."""
        return any(processes.gather(self.signal is not None))

    def __enter__(self) -> "StopRequest":
        # Python hands signals to the main thread alone.
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
        doing = "finishing the step or evaluation, then saving; again to end at once"
        os.write(2, f"{self.signal}: {doing}\n".encode())
