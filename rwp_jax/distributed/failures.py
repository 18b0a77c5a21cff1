"""Ends all processes of a run when one fails, with an exit code that says whether a restart may help.

A process that fails says so in the key-value store of JAX's coordination service, which process 0 serves.
A thread in each of the others reads it there, since their main threads may be waiting in a collective for
the process that failed. An error of JAX does not tell whether another process is gone, so the process that
meets one first asks whether all others answer.
"""

import atexit
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn, Protocol

import jax

from rwp_jax.distributed.preemption import EXIT_CODE
from rwp_jax.errors import first_line

POLL_SECONDS = 1.0  # between two looks at the store
ANSWER_SECONDS = 15.0  # for which a process waits for the others' answers
FAILED = 1  # exit code of an error that another start would meet again

_FAILURE, _VERDICT, _ANSWER, _READ = (
    f"rwp_jax/{name}" for name in ("failure", "verdict", "answer", "read")
)
# Statuses of JAX's errors for what may be over soon, such as a network that was down.
_PASSING = re.compile(r"(UNAVAILABLE|ABORTED|CANCELLED|DEADLINE_EXCEEDED)\b")


class Unreachable(Exception):
    """Process 0, which serves the store, does not answer."""


class Store(Protocol):
    """A key-value store that the processes share."""

    def get(self, key: str) -> Any | None:
        """Returns the JSON value of a key, or None; raises Unreachable."""

    def put(self, key: str, value: Any) -> bool:
        """Sets a key that has no value; returns False if it has one; raises Unreachable."""


class _CoordinationService:
    """The store of `jax.distributed`, for which JAX has no public name."""

    def __init__(self):
        from jax._src import distributed

        self._client = distributed.global_state.client

    def get(self, key: str) -> Any | None:
        try:
            return json.loads(self._client.key_value_try_get(key))
        except jax.errors.JaxRuntimeError as error:
            if first_line(error).startswith("NOT_FOUND"):
                return None
            raise Unreachable(first_line(error)) from None

    def put(self, key: str, value: Any) -> bool:
        try:
            self._client.key_value_set(key, json.dumps(value))
        except jax.errors.JaxRuntimeError as error:
            if first_line(error).startswith("ALREADY_EXISTS"):
                return False
            raise Unreachable(first_line(error)) from None
        return True


class Watch:
    """The part that one process has in ending all.

    Args:
      store: what the processes share.
      process: number of this process, from 0.
      processes: number of all.
      end: called by the watching thread with the exit code and the line to print if another process fails;
        ends this one.
    """

    def __init__(self, store: Store, process: int, processes: int, end: Callable[[int, str], None]):
        self._store = store
        self._process = process
        self._others = [other for other in range(processes) if other != process]
        self._end = end
        self._stopped = threading.Event()
        self._failing = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread; to be called before the store is closed."""
        self._stopped.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def fail(self, code: int | None, line: str) -> tuple[int, str]:
        """Tells the other processes that this one fails.

        Args:
          code: exit code of this process, or None if the error may be the consequence of another process's
            end.
          line: the error in one line.

        Returns:
          The exit code and the line to end this process with.
        """
        self._failing.set()
        try:
            own = {"process": self._process, "code": code, "line": line}
            if not self._store.put(_FAILURE, own):
                read = self._read()
                self._store.put(f"{_READ}/{self._process}", True)
                return (code, line) if code is not None else read
            if code is None:
                code, line = self._judge(line)
            self._store.put(_VERDICT, {"code": code, "line": line})
            if self._process == 0:  # its end is the store's, and JAX aborts processes without one
                self._missing(_READ)
                time.sleep(POLL_SECONDS)
        except Unreachable:
            if code is None:
                return EXIT_CODE, f"process 0 ended or cannot be reached ({line})"
        return code, line

    def _judge(self, line: str) -> tuple[int, str]:
        """Returns exit code and line for an error of JAX, by its status and by which processes answer."""
        missing = self._missing(_ANSWER)
        if missing:
            gone = f"process {missing[0]} ended or cannot be reached ({line})"
            return EXIT_CODE, gone
        return EXIT_CODE if _PASSING.match(line) else FAILED, line

    def _missing(self, key: str) -> list[int]:
        """Waits until all others have set a key of theirs; returns those that do not in time."""
        missing, deadline = self._others, time.monotonic() + ANSWER_SECONDS
        while True:
            missing = [other for other in missing if self._store.get(f"{key}/{other}") is None]
            if not missing or time.monotonic() > deadline:
                return missing
            time.sleep(POLL_SECONDS / 10)

    def _read(self) -> tuple[int, str]:
        """Returns exit code and line for the failure of another process, once its verdict is there."""
        failure = self._store.get(_FAILURE)
        self._store.put(f"{_ANSWER}/{self._process}", True)
        deadline = time.monotonic() + 2 * ANSWER_SECONDS
        while (verdict := self._store.get(_VERDICT)) is None and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS / 10)
        verdict = verdict or {"code": EXIT_CODE, "line": failure["line"]}
        return verdict["code"], f"process {failure['process']} failed: {verdict['line']}"

    def _watch(self) -> None:
        try:
            while not self._stopped.wait(POLL_SECONDS):
                failure = self._store.get(_FAILURE)
                if failure and failure["process"] != self._process:
                    code, line = self._read()
                    # The main thread may be ending by itself, with an error of its own.
                    if not self._failing.wait(POLL_SECONDS * 3) and not self._stopped.is_set():
                        self._store.put(f"{_READ}/{self._process}", True)
                        self._end(code, line)
                    return
        except Unreachable:
            return  # JAX ends processes that have lost process 0


_watch: Watch | None = None


def watch() -> None:
    """Starts to watch the other processes, if there are any; call it once they are connected."""
    global _watch
    if jax.process_count() == 1 or _watch:
        return
    _watch = Watch(_CoordinationService(), jax.process_index(), jax.process_count(), leave)
    _watch.start()
    atexit.register(
        _watch.stop
    )  # runs before the end of jax.distributed, which was registered first


def fail(code: int | None, line: str) -> tuple[int, str]:
    """Tells the other processes that this one fails, see `Watch.fail`; alone, only completes the code."""
    return _watch.fail(code, line) if _watch else (FAILED if code is None else code, line)


def leave(code: int, text: str) -> NoReturn:
    """Prints a text and ends the process at once: an orderly end would wait for the other processes."""
    print(text, file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)
