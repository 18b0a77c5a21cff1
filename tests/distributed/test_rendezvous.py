import socket
import threading
import time

import pytest

from rwp_jax.distributed import rendezvous
from rwp_jax.errors import InputError


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def connected(monkeypatch):
    """Returns the ids of the processes that reach `jax.distributed.initialize`, in order."""
    ids = []
    initialize = lambda address, processes, process_id, **_: ids.append(process_id)
    monkeypatch.setattr(rendezvous.jax.distributed, "initialize", initialize)
    monkeypatch.setattr(rendezvous.jax.config, "update", lambda *_: None)
    return ids


def call_roll(port, *places, seconds=20):
    """Connects each (processes, process_id) in a thread; returns their error messages, or None."""
    errors = [None] * len(places)

    def connect(i):
        try:
            rendezvous.connect(f"127.0.0.1:{port}", *places[i], seconds)
        except InputError as error:
            errors[i] = str(error)

    threads = [threading.Thread(target=connect, args=(i,)) for i in range(len(places))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_all_come(port, connected):
    assert call_roll(port, (3, 1), (3, 0), (3, 2)) == [None] * 3
    assert sorted(connected) == [0, 1, 2]


@pytest.mark.parametrize(
    "places, message",
    [
        (((2, 0), (3, 1)), "disagree about their number: 2 in process 0, 3 in process 1"),
        (((3, 0), (3, 1), (3, 1)), "two processes claim to be process 1 of 3"),
    ],
)
def test_who_disagrees_is_refused_everywhere(port, connected, places, message):
    errors = call_roll(port, *places)
    assert all(message in error for error in errors) and not connected


def test_one_that_does_not_come(port, connected):
    errors = call_roll(port, (3, 0), (3, 1), seconds=1)
    assert all("process 2 of 3 did not connect within 1 s" in error for error in errors)
    assert not connected


def test_nobody_at_the_address(port, connected):
    (error,) = call_roll(port, (2, 1), seconds=1)
    assert f"process 0 at 127.0.0.1:{port}" in error and "waited 1 s" in error and not connected


def reach(port):
    """Connects to process 0 as soon as it listens."""
    for _ in range(1000):
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=1)
        except OSError:
            time.sleep(0.01)
    raise AssertionError("process 0 does not listen")


@pytest.mark.parametrize(
    "says",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"",  # and stays connected
        b'{"process_id": 1, "processes": 3}\n',  # and disconnects; another process takes its place
    ],
)
def test_strangers_and_who_leaves_are_passed_over(port, connected, monkeypatch, says):
    monkeypatch.setattr(rendezvous, "_PATIENCE", 0.5)
    errors = []
    first = threading.Thread(target=lambda: errors.extend(call_roll(port, (3, 0))))
    first.start()
    with reach(port) as stranger:
        stranger.sendall(says)
        if says.startswith(b"{"):
            time.sleep(0.2)
            stranger.close()
        assert call_roll(port, (3, 1), (3, 2)) == [None, None]
    first.join()
    assert errors == [None] and sorted(connected) == [0, 1, 2]


def test_one_process_asks_nobody(connected, monkeypatch):
    monkeypatch.setattr(rendezvous, "_from_cluster", lambda seconds: pytest.fail("it asked"))
    rendezvous.connect(processes=1)
    assert not connected


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("host:1", None, None), "processes= is missing"),
        ((None, 2, 0), "coordinator= is missing"),
        (("host", 2, 0), "coordinator=host must be HOST:PORT"),
        (("host:70000", 2, 0), "must be HOST:PORT"),
        (("host:1", 2, 2), r"process_id=2 must be in \[0, processes=2\)"),
        (("host:1", 0, 0), "processes=0 must be at least 1"),
        (("host:1", 2, 0, 0), "connect_seconds=0 must be at least 1"),
    ],
)
def test_flags_that_do_not_fit(connected, arguments, message):
    with pytest.raises(InputError, match=message):
        rendezvous.connect(*arguments)
    assert not connected


def test_a_cluster_says_who_is_who(port, connected, monkeypatch):
    environment = {
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_NODELIST": "127.0.0.1",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": "1",
        "SLURM_LOCALID": "0",
        "JAX_COORDINATOR_PORT": str(port),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=rf"127.0.0.1:{port} \(the cluster's environment\)"):
        rendezvous.connect(seconds=1)
    monkeypatch.setenv("SLURM_NTASKS", "1")
    rendezvous.connect(seconds=1)
    assert not connected
