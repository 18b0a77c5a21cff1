"""Several runs at a time on a CPU, each in a process of its own on cores of its own.

A small network leaves cores idle: two runs on a core each take two thirds of the time of one after the
other on both. A run ends with the same digits only on as many cores: sums are split over threads.
"""

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

import jax

from rwp_jax.errors import InputError
from rwp_jax.preemption import EXIT_CODE, Interrupted
from rwp_jax.reproduce.job import DIVERGED, FINISHED, IN_USE
from rwp_jax.reproduce.plan import Run

_POLL = 0.2  # seconds


class _Job(NamedTuple):
    run: Run
    process: subprocess.Popen
    began: float

    @property
    def log(self):
        return self.run.directory.with_suffix(".log")

    def last_line(self) -> str:
        lines = self.log.read_text(errors="replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "it printed nothing")


def check_jobs(jobs: int) -> None:
    """Raises InputError where so many runs cannot go on at a time."""
    if jobs == 1:
        return
    if not hasattr(os, "sched_getaffinity"):
        raise InputError(f"--jobs={jobs} needs Linux: elsewhere it must be 1")
    cores = len(os.sched_getaffinity(0))
    if not 1 <= jobs <= cores:
        raise InputError(f"--jobs={jobs} must be in [1, {cores}], the number of CPU cores")
    if jax.default_backend() != "cpu":
        raise InputError(f"--jobs={jobs} is for CPUs: on {jax.default_backend()} it must be 1")


def train(runs: Sequence[Run], jobs: int) -> list[str]:
    """Trains runs, `jobs` at a time; what each prints goes to NAME.log beside its directory.

    Returns:
      Names of the runs that diverged.

    Raises:
      Interrupted: where a run was asked to stop, once all have saved.
      InputError: where a run could not go on.
    """
    cores = sorted(os.sched_getaffinity(0))
    share = len(cores) // jobs
    free = [cores[i * share : (i + 1) * share] for i in range(jobs)]
    waiting, working, diverged = list(reversed(runs)), {}, []

    def stop(*_) -> None:
        raise Interrupted("SIGTERM: the runs under way have saved; the same command continues")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        while waiting or working:
            while waiting and free:
                mine = tuple(free.pop(0))
                run = waiting.pop()
                working[mine] = _start(run, mine)
                print(f"{run.name}: begun, {len(waiting)} runs wait", flush=True)
            time.sleep(_POLL)
            ended = [mine for mine, job in working.items() if job.process.poll() is not None]
            for mine in ended:
                job = working.pop(mine)
                free.append(list(mine))
                if _judge(job) == DIVERGED:
                    diverged.append(job.run.name)
    finally:
        for job in working.values():
            job.process.terminate()
        for job in working.values():
            job.process.wait()
        signal.signal(signal.SIGTERM, before)
    return diverged


def _start(run: Run, cores: Sequence[int]) -> _Job:
    run.directory.parent.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ)
    if jax.config.jax_compilation_cache_dir:
        environment["JAX_COMPILATION_CACHE_DIR"] = jax.config.jax_compilation_cache_dir
    with run.directory.with_suffix(".log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "rwp_jax.reproduce.job", ",".join(map(str, cores))],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # Ctrl-C is for this process, which then asks them to stop
        )
    process.stdin.write(pickle.dumps((run.config, run.directory)))
    process.stdin.close()
    return _Job(run, process, time.monotonic())


def _judge(job: _Job) -> int:
    """Says how a run ended, and raises where the others must end too; returns its exit code."""
    code, name = job.process.returncode, job.run.name
    if code == FINISHED:
        print(f"{name}: finished in {(time.monotonic() - job.began) / 60:.1f} minutes", flush=True)
    elif code == DIVERGED:
        print(f"{name}: {job.last_line()}", flush=True)
    elif code == IN_USE:
        print(f"{name} is left to another process: {job.last_line()}", flush=True)
    elif code == EXIT_CODE:
        raise Interrupted(f"run {name}: {job.last_line()}")
    else:
        raise InputError(f"run {name} ended with exit code {code}: {job.last_line()} ({job.log})")
    return code
