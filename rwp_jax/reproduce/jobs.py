"""Trains several runs at a time on a CPU, each in its own process and on its own cores.

A small network leaves cores idle: two concurrent runs on one core each take two thirds of the time that
they take one after the other on both cores. A run is reproducible bit by bit only on the same number of
cores, because sums are split over threads.
"""

import os
import pathlib
import pickle
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

import jax

from rwp_jax.distributed.preemption import EXIT_CODE, Interrupted, StopRequest
from rwp_jax.errors import InputError
from rwp_jax.reproduce.job import BAD_INPUT, DIVERGED, FINISHED, IN_USE
from rwp_jax.reproduce.run_list import Run

_POLL = 0.2  # seconds


class _Job(NamedTuple):
    run: Run
    process: subprocess.Popen
    began: float

    def last_line(self) -> str:
        lines = log_of(self.run).read_text(errors="replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "it printed nothing")


def log_of(run: Run) -> pathlib.Path:
    """Path of the log that a run's output is appended to."""
    return run.directory.with_name(f"{run.directory.name}.log")


def check_jobs(jobs: int) -> None:
    """Raises InputError if this machine cannot train the given number of runs at a time."""
    if jobs == 1:
        return
    if not hasattr(os, "sched_getaffinity"):
        raise InputError(f"jobs={jobs} needs Linux: elsewhere it must be 1")
    cores = len(os.sched_getaffinity(0))
    if not 1 <= jobs <= cores:
        raise InputError(f"jobs={jobs} must be in [1, {cores}], the number of CPU cores")


def train(runs: Sequence[Run], jobs: int) -> list[str]:
    """Trains runs, `jobs` at a time; the output of each goes to NAME.log next to its directory.

    Returns:
      Names of the runs that diverged.

    Raises:
      Interrupted: after SIGTERM or Ctrl-C, or if a run was asked to stop, once all runs have saved.
      InputError: if a run failed.
    """
    if jax.default_backend() != "cpu":
        raise InputError(f"jobs={jobs} is for CPUs: on {jax.default_backend()} it must be 1")
    cores = sorted(os.sched_getaffinity(0))
    share = len(cores) // jobs
    free = [cores[i * share : (i + 1) * share] for i in range(jobs)]
    waiting, working, diverged = list(reversed(runs)), [], []
    with StopRequest() as stop:
        try:
            while (waiting or working) and not stop.signal:
                while waiting and free:
                    run, mine = waiting.pop(), free.pop(0)
                    working.append((_start(run, mine), mine))
                    print(
                        f"{run.name}: started, {len(waiting)} waiting; output in {log_of(run)}",
                        flush=True,
                    )
                time.sleep(_POLL)
                for job, mine in [pair for pair in working if pair[0].process.poll() is not None]:
                    working.remove((job, mine))
                    free.append(mine)
                    if _judge(job) == DIVERGED:
                        diverged.append(job.run.name)
        finally:
            for job, _ in working:
                job.process.terminate()
            codes = [job.process.wait() for job, _ in working]
    if stop.signal:
        saved = codes.count(EXIT_CODE)
        raise Interrupted(
            f"{stop.signal}: {saved} of the {len(codes)} runs under way saved, the others had ended or "
            "lost some steps; the same command continues"
        )
    return diverged


def _start(run: Run, cores: Sequence[int]) -> _Job:
    run.directory.parent.mkdir(parents=True, exist_ok=True)
    package = str(pathlib.Path(__file__).parents[2])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    if jax.config.jax_compilation_cache_dir:
        environment["JAX_COMPILATION_CACHE_DIR"] = jax.config.jax_compilation_cache_dir
    with log_of(run).open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "rwp_jax.reproduce.job", ",".join(map(str, cores))],
            stdin=subprocess.PIPE,  # stays open: the run saves and stops when it closes
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches only this process, which then stops the runs
        )
    process.stdin.write(pickle.dumps((run.config, run.directory)))
    process.stdin.flush()
    return _Job(run, process, time.monotonic())


def _judge(job: _Job) -> int:
    """Prints how a run ended and returns its exit code; raises if the other runs must stop too."""
    code, name = job.process.returncode, job.run.name
    if code == FINISHED:
        print(f"{name}: finished in {(time.monotonic() - job.began) / 60:.1f} minutes", flush=True)
    elif code == DIVERGED:
        print(f"{name}: {job.last_line()}", flush=True)
    elif code == IN_USE:
        print(f"{name} is left to another process: {job.last_line()}", flush=True)
    elif code == EXIT_CODE:
        raise Interrupted(f"run {name}: {job.last_line()}")
    elif code == BAD_INPUT:
        raise InputError(f"run {name}: {job.last_line()}")
    else:
        raise InputError(
            f"run {name} ended with exit code {code}: {job.last_line()} (all of it: {log_of(job.run)})"
        )
    return code
