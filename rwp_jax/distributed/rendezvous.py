"""Connects the processes of a run on several hosts.

`jax.distributed` ends a process without a Python exception if another process is missing or disagrees about
their number. So the processes first check both, over a plain connection to the address that it will use.
"""

import collections
import contextlib
import json
import os
import socket
import time
import warnings
from typing import NamedTuple

import jax

from rwp_jax.errors import InputError, first_line

CONNECT_SECONDS = 120
HEARTBEAT_SECONDS = 30  # until the others notice that a process has died
SHUTDOWN_SECONDS = 15  # for which an ending process waits for the others
_PAUSE = 0.5  # seconds between two attempts to connect
_PATIENCE = 5  # seconds to wait for the message of a connection


class Place(NamedTuple):
    """The place of a process in a run: HOST:PORT of process 0, the number of processes, the number of this
    one (from 0), and whether the cluster's environment or flags specify this."""

    address: str
    processes: int
    process_id: int
    from_cluster: bool

    @property
    def source(self) -> str:
        return "the cluster's environment" if self.from_cluster else f"coordinator={self.address}"


def _from_cluster(seconds: int) -> Place | None:
    """Returns the place from the environment of SLURM, Open MPI, Kubernetes or a TPU pod, or None."""
    # There is no public name for the detection in `jax.distributed.initialize`.
    from jax._src.clusters import ClusterEnv

    try:
        # It warns about a package that only Kubernetes jobs need.
        with warnings.catch_warnings(action="ignore"):
            address, processes, process_id, _ = ClusterEnv.auto_detect_unset_distributed_params(
                None, None, None, None, None, seconds
            )
    except Exception as error:  # its type depends on the cluster
        if "KUBERNETES_SERVICE_HOST" in os.environ and "JOB_COMPLETION_INDEX" not in os.environ:
            return None  # a pod that is not part of an indexed job
        raise InputError(
            f"the cluster's environment does not describe the processes ({first_line(error)}): "
            "give coordinator=, processes= and process_id=, or processes=1 to run alone"
        ) from None
    if None in (address, processes, process_id) or processes == 1:
        return None
    return Place(address, processes, process_id, True)


def _from_flags(address: str, processes: int, process_id: int) -> Place:
    """Returns the place that the flags specify; raises InputError if they are invalid."""
    given = {"coordinator=": address, "processes=": processes, "process_id=": process_id}
    missing = [flag for flag, value in given.items() if value is None]
    if missing:
        raise InputError(
            f"{missing[0]} is missing: coordinator=, processes= and process_id= must be given together"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InputError(f"coordinator={address} must be HOST:PORT of process 0, PORT below 65536")
    if processes < 1:
        raise InputError(f"processes={processes} must be at least 1")
    if not 0 <= process_id < processes:
        raise InputError(f"process_id={process_id} must be in [0, processes={processes})")
    return Place(address, processes, process_id, False)


def connect(
    address: str | None = None,
    processes: int | None = None,
    process_id: int | None = None,
    seconds: int = CONNECT_SECONDS,
) -> None:
    """Connects the processes of a run; call it before JAX computes.

    Without the first three arguments, the cluster's environment is used. If that describes no other
    process, or `processes` is 1, nothing is done.

    Args:
      address: HOST:PORT of process 0.
      processes: number of processes.
      process_id: number of this process, from 0.
      seconds: time to wait for the others.

    Raises:
      InputError: if an argument is invalid, processes disagree about their number, or one of them does not
        connect.
    """
    if seconds < 1:
        raise InputError(f"connect_seconds={seconds} must be at least 1")
    if address is None and process_id is None and processes in (None, 1):
        place = None if processes else _from_cluster(seconds)
        if place is None:
            return
    else:
        place = _from_flags(address, processes, process_id)
    deadline = time.monotonic() + seconds
    (_call if place.process_id == 0 else _answer)(place, seconds, deadline)
    # Its handler would swallow a SIGTERM that arrives before training sets its own.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        place.address,
        place.processes,
        place.process_id,
        initialization_timeout=seconds,
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        shutdown_timeout_seconds=SHUTDOWN_SECONDS,
        # A cluster's environment also selects the devices of a process; with flags, it uses all.
        cluster_detection_method=None if place.from_cluster else "deactivate",
    )
    devices = collections.Counter(device.process_index for device in jax.devices())
    if len(set(devices.values())) > 1:
        few = min(devices, key=devices.get)
        raise InputError(
            f"process {few} has {devices[few]} devices and another {max(devices.values())}: all must have "
            "the same number"
        )


def _send(connection: socket.socket, message: dict) -> None:
    connection.sendall(json.dumps(message).encode() + b"\n")


def _receive(connection: socket.socket, deadline: float) -> dict:
    """Returns the other side's message, one line; raises OSError or ValueError if none arrives."""
    connection.settimeout(max(deadline - time.monotonic(), 0.01))
    with connection.makefile() as lines:
        return json.loads(lines.readline())


def _call(place: Place, seconds: int, deadline: float) -> None:
    """As process 0, waits until all others have connected and agree about their number."""
    port = int(place.address.rpartition(":")[2])
    both = socket.has_dualstack_ipv6()
    try:
        family = socket.AF_INET6 if both else socket.AF_INET
        server = socket.create_server(("", port), family=family, dualstack_ipv6=both)
    except OSError as error:
        raise InputError(f"{place.source}: port {port} cannot be opened here ({error})") from None
    present: dict[int, socket.socket] = {}
    with server, contextlib.ExitStack() as stack:

        def refuse(why: str) -> None:
            for connection in present.values():
                with contextlib.suppress(OSError):
                    _send(connection, {"refused": why})
            raise InputError(why)

        while len(present) < place.processes - 1:
            server.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                connection = stack.enter_context(server.accept()[0])
            except TimeoutError:
                missing = sorted(set(range(1, place.processes)) - present.keys())
                refuse(
                    f"{place.source}: process {missing[0]} of {place.processes} did not connect within "
                    f"{seconds} s"
                )
            try:
                who = _receive(connection, time.monotonic() + _PATIENCE)
                process, count = int(who["process_id"]), int(who["processes"])
            except (OSError, ValueError, KeyError, TypeError):
                continue  # not a process of this run
            for i in [i for i, other in present.items() if _has_left(other)]:
                del present[i]
            twice = process in present or process == 0
            present[-1 if twice else process] = connection
            if count != place.processes:
                refuse(
                    f"processes disagree about their number: {place.processes} in process 0, "
                    f"{count} in process {process}"
                )
            if twice:
                refuse(f"two processes claim to be process {process} of {place.processes}")
        for process, connection in present.items():
            try:
                _send(connection, {})
            except OSError:
                present.pop(process)
                refuse(f"{place.source}: process {process} of {place.processes} has disconnected")


def _has_left(connection: socket.socket) -> bool:
    """Returns whether the other side, which sends nothing more, has closed the connection."""
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        connection.setblocking(True)


def _answer(place: Place, seconds: int, deadline: float) -> None:
    """As any other process, connects to process 0 and waits for its answer."""
    host, _, port = place.address.rpartition(":")
    while True:
        try:
            with socket.create_connection(
                (host.strip("[]"), int(port)), timeout=_PATIENCE
            ) as connection:
                _send(connection, {"process_id": place.process_id, "processes": place.processes})
                # At its deadline, process 0 still sends which process is missing.
                word = _receive(connection, deadline + _PATIENCE)
                break
        except (OSError, ValueError) as error:
            if time.monotonic() + _PAUSE > deadline:
                raise InputError(
                    f"process 0 at {place.address} ({place.source}) cannot be reached, waited {seconds} s "
                    f"({error})"
                ) from None
            time.sleep(_PAUSE)
    if "refused" in word:
        raise InputError(word["refused"])
