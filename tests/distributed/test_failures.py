"""What each process of a run ends with when one of them fails, with a store in memory."""

import errno
import threading

import pytest

from rwp_jax.distributed import failures
from rwp_jax.distributed.failures import FAILED, Unreachable, Watch
from rwp_jax.distributed.preemption import EXIT_CODE
from rwp_jax.errors import InputError, TemporaryError, is_temporary


class Memory:
    """A store within this process, which may go away as process 0 does."""

    def __init__(self):
        self.values, self.gone, self._lock = {}, False, threading.Lock()

    def get(self, key):
        if self.gone:
            raise Unreachable
        return self.values.get(key)

    def put(self, key, value):
        if self.gone:
            raise Unreachable
        with self._lock:
            return self.values.setdefault(key, value) is value


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(failures, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(failures, "ANSWER_SECONDS", 0.5)


@pytest.fixture
def run():
    """Returns a function that starts the watches of some of several processes, and their endings."""
    started = []

    def start(processes, alive):
        store, ended = Memory(), {}
        watches = {}
        for process in alive:
            end = lambda code, line, process=process: ended.__setitem__(process, (code, line))
            watches[process] = Watch(store, process, processes, end)
            watches[process].start()
            started.append(watches[process])
        return store, watches, ended

    yield start
    for watch in started:
        watch.stop()


def joined(watches, *processes):
    for process in processes:
        watches[process]._thread.join(10)


@pytest.mark.parametrize("process", [0, 2])
def test_a_failure_ends_the_others_with_its_code(run, process):
    _, watches, ended = run(3, range(3))
    assert watches[process].fail(EXIT_CODE, "disk full") == (EXIT_CODE, "disk full")
    others = {0, 1, 2} - {process}
    joined(watches, *others)
    assert ended == dict.fromkeys(others, (EXIT_CODE, f"process {process} failed: disk full"))


def test_an_error_while_another_does_not_answer_is_its_end(run):
    _, watches, ended = run(3, (0, 1))
    code, line = watches[0].fail(None, "INTERNAL: Gloo closed")
    assert (code, line) == (
        EXIT_CODE,
        "process 2 ended or cannot be reached (INTERNAL: Gloo closed)",
    )
    joined(watches, 1)
    assert ended == {1: (EXIT_CODE, f"process 0 failed: {line}")}


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("INTERNAL: NCCL operation failed: invalid usage, connection", FAILED),
        ("RESOURCE_EXHAUSTED: Out of memory", FAILED),
        ("a ValueError that names a connection", FAILED),
        ("UNAVAILABLE: Connection reset by peer", EXIT_CODE),
        ("DEADLINE_EXCEEDED: Barrier timed out", EXIT_CODE),
    ],
)
def test_an_error_while_all_answer_counts_by_its_status(run, line, code):
    _, watches, ended = run(2, (0, 1))
    assert watches[1].fail(None, line) == (code, line)
    joined(watches, 0)
    assert ended == {0: (code, f"process 1 failed: {line}")}


def test_an_error_that_another_process_caused_is_explained_by_it(run):
    _, watches, _ = run(2, (0, 1))
    found = {}
    second = threading.Thread(
        target=lambda: found.update(second=watches[0].fail(None, "Gloo closed"))
    )
    watches[0]._failing.set()  # its main thread has met the error
    first = watches[1].fail(2, "no permission")
    second.start()
    second.join(10)
    assert (first, found["second"]) == (
        (2, "no permission"),
        (2, "process 1 failed: no permission"),
    )


def test_errors_of_several_processes_keep_their_own_words(run):
    _, watches, ended = run(2, (0, 1))
    watches[1]._failing.set()
    threads = threading.Thread(target=lambda: watches[1].fail(2, "config differs"))
    threads.start()
    assert watches[0].fail(2, "config differs") == (2, "config differs")
    threads.join(10)
    assert not ended


def test_without_process_0_an_error_is_its_end(run):
    store, watches, ended = run(2, (1,))
    store.gone = True
    assert watches[1].fail(None, "INTERNAL: x") == (
        EXIT_CODE,
        "process 0 ended or cannot be reached (INTERNAL: x)",
    )
    assert watches[1].fail(2, "no permission") == (2, "no permission")
    assert not ended


def test_a_stopped_watch_ends_nothing(run):
    store, watches, ended = run(2, (0, 1))
    watches[0].stop()
    store.put("rwp_jax/failure", {"process": 1, "code": 2, "line": "x"})
    assert not ended and not watches[0]._thread.is_alive()


def test_alone_nothing_is_asked():
    assert failures.fail(None, "x") == (FAILED, "x") and failures.fail(75, "y") == (75, "y")


@pytest.mark.parametrize(
    ("error", "temporary"),
    [
        (OSError(errno.ENOSPC, "full"), True),
        (OSError(errno.ESTALE, "stale"), True),
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (TemporaryError("full"), True),
        (PermissionError(errno.EACCES, "denied"), False),
        (FileNotFoundError(errno.ENOENT, "none"), False),
        (OSError(errno.EROFS, "read-only"), False),
        (InputError("wrong"), False),
        (ValueError("connection"), False),
    ],
)
def test_which_errors_may_pass(error, temporary):
    assert is_temporary(error) == temporary
