"""Traces some training steps for TensorBoard and Perfetto."""

import contextlib
import os
import pathlib

import jax

from rwp_jax.errors import InputError

FIRST = 5  # first step of this process to be traced: compilation is finished by then
STEPS = 10


def check_directory(directory: pathlib.Path) -> None:
    """Creates the directory; raises InputError if it cannot be created or written to."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"profile={directory} cannot be created ({error.strerror}): it must be a directory that can be "
            "written to"
        ) from None
    if not os.access(directory, os.W_OK | os.X_OK):
        raise InputError(f"profile={directory}: no permission to write there")


class Profile:
    """Context manager that traces STEPS steps, starting with the FIRST call of `step`."""

    def __init__(self, directory: pathlib.Path | None):
        """Takes the directory to write to; None disables the trace."""
        self._directory = directory
        self._count = 0
        self._running = False

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *_) -> None:
        self._stop()

    def step(self, state) -> contextlib.AbstractContextManager:
        """Returns a context that marks a step in trace viewers; `state` is the state before the step."""
        if self._directory is None:
            return contextlib.nullcontext()
        self._count += 1
        if self._count == FIRST:
            jax.block_until_ready(state)
            jax.profiler.start_trace(str(self._directory), create_perfetto_trace=True)
            self._running = True
        elif self._count == FIRST + STEPS:
            jax.block_until_ready(state)
            self._stop()
        return jax.profiler.StepTraceAnnotation("train", step_num=self._count)

    def _stop(self) -> None:
        if not self._running:
            if self._directory and self._count < FIRST:
                print(f"no trace: it begins with step {FIRST}, but only {self._count} were run")
            return
        self._running = False
        jax.profiler.stop_trace()
        print(
            f"wrote a trace of {min(self._count - FIRST + 1, STEPS)} steps to {self._directory}: open that "
            "directory in TensorBoard, or perfetto_trace.json.gz inside it at https://ui.perfetto.dev"
        )
