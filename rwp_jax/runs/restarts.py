"""Counts starts of a run that end without progress, so that a cluster does not repeat a failure forever."""

import contextlib
import json
import pathlib
from collections.abc import Iterator

from rwp_jax.distributed.preemption import Interrupted
from rwp_jax.errors import InputError, is_temporary

FILE = "restarts.json"
MOST = 10  # restarts from the same checkpoint
_BYTES = 64  # size of the file, which on a full disk can be written again but not grow


@contextlib.contextmanager
def counted(directory: pathlib.Path, step: int, most: int = MOST) -> Iterator[None]:
    """Counts a start of the run, until the `with` block ends in good order: finished, stopped or refused.

    Args:
      directory: of the run.
      step: training steps in its newest checkpoint, 0 without one.
      most: restarts from the same checkpoint that are allowed; 0 for any number.

    Raises:
      InputError: if more than `most` restarts in a row have begun at this step.
    """
    path = directory / FILE
    restarts = _restarts_at(path, step)
    if most and restarts > most:
        raise InputError(
            f"workdir={directory}: {restarts} starts in a row ended without saving anything after step "
            f"{step} (max_restarts={most}): solve what ends them, then remove {path} or give another "
            "max_restarts="
        )
    _write(path, {"step": step, "restarts": restarts})
    try:
        yield
    except (Interrupted, InputError) as error:
        if not is_temporary(error):  # a refusal leaves nothing behind
            path.unlink(missing_ok=True)
        raise
    path.unlink(missing_ok=True)


def _restarts_at(path: pathlib.Path, step: int) -> int:
    """Returns how many restarts at this step there will be with this start."""
    try:
        held = json.loads(path.read_text())
        return held["restarts"] + 1 if held["step"] == step else 0
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # or a kill cut it short
        return 0


def _write(path: pathlib.Path, content: dict[str, int]) -> None:
    with path.open("r+" if path.exists() else "x") as file:
        file.write(json.dumps(content).ljust(_BYTES - 1) + "\n")
