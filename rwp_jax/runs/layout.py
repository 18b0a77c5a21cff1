"""A run's directory: which run it holds, and the files beside checkpoints and metrics."""

import contextlib
import fcntl
import json
import os
import pathlib
import socket
from collections.abc import Iterator

from rwp_jax.errors import InputError
from rwp_jax.files import PARTIAL
from rwp_jax.runs import zoo
from rwp_jax.runs.config import differences, flatten

CONFIG, SUMMARY, LOCK = "config.json", "summary.json", "in_use"
# What `evaluation.table2` writes, in EVALUATION/CHECKPOINT/, and its columns: those of the paper's Table 2.
EVALUATION, EVALUATION_JSON, EVALUATION_NPZ = "evaluation", "evaluation.json", "evaluation.npz"
# What a person reads counts epochs from 1 and says so; what older versions wrote has no such key.
COUNTED_FROM, FIRST_EPOCH = "epochs_count_from", 1
BENCHMARK_JSON = "benchmark.json"  # AutoAttack's record, see `evaluation.record`
COLUMNS = {
    "natural": "natural",
    "fgsm": "FGSM",
    "pgd20": "PGD-20",
    "pgd100": "PGD-100",
    "cw": "C&W",
    "autoattack": "AutoAttack",
}


def from_1(epoch: int) -> dict[str, int]:
    """The entries of a file for an epoch, which counts from 0 here."""
    return {"epoch": epoch + FIRST_EPOCH, COUNTED_FROM: FIRST_EPOCH}


def from_0(epoch: int, content: dict) -> int:
    """An epoch in the content of a file, counted from 0."""
    return epoch - content.get(COUNTED_FROM, 0)


class InUse(InputError):
    """Another live process works in the directory; the message names it."""


def check(workdir: pathlib.Path, config: dict, resume: bool) -> bool:
    """Tells whether the directory holds a run of this config, touching nothing.

    Args:
      workdir: may be missing.
      config: as nested dicts of JSON values.
      resume: whether continuing a run is wanted.

    Returns:
      True if there is a run to continue, False if the directory is free.

    Raises:
      InputError: if it holds a run of another config, anything that is no run, or a run although
        `resume` is false; or if it cannot be written to.
    """
    zoo.refuse(workdir, "a run is trained in a directory of its own")
    try:
        if workdir.is_symlink() and not workdir.exists():
            raise InputError(f"workdir={workdir} is a link to a directory that does not exist")
        existing = next(p for p in (workdir, *workdir.absolute().parents) if p.exists())
        if not existing.is_dir():
            raise InputError(f"workdir={workdir}: {existing} is a file, must be a directory")
        if not os.access(existing, os.W_OK | os.X_OK):
            raise InputError(f"workdir={workdir}: no permission to write in {existing}")
        # A kill in the first moment of a run may leave an unfinished file, which is nothing to keep.
        leftover = lambda path: path.suffix == PARTIAL or path.name == LOCK
        if existing != workdir or all(map(leftover, workdir.iterdir())):
            return False
    except OSError as error:
        raise InputError(f"workdir={workdir}: {error.strerror}") from None
    path = workdir / CONFIG
    try:
        held = flatten(json.loads(path.read_text()))
    except (OSError, ValueError, AttributeError):
        raise InputError(
            f"workdir={workdir} holds files but no readable {CONFIG}: choose an empty directory"
        ) from None
    different = differences(held, flatten(json.loads(json.dumps(config))))
    if different:
        raise InputError(
            f"workdir={workdir} holds a run of another config ({'; '.join(different)}): "
            "choose another directory"
        )
    if not resume:
        raise InputError(
            f"workdir={workdir} holds a run of this config, which is not to be resumed: "
            "choose another directory, or let it resume"
        )
    return True


@contextlib.contextmanager
def lock(workdir: pathlib.Path) -> Iterator[None]:
    """Makes and claims the directory; the claim ends with this process too, however that ends.

    Raises:
      InUse: where another live process has claimed it. File systems without locks are not protected.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        claim = (workdir / LOCK).open("a+")
    except OSError as error:
        raise InputError(f"workdir={workdir} cannot be written to: {error.strerror}") from None
    with claim as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "another process"
            raise InUse(f"workdir={workdir} is in use by {owner}") from None
        except OSError:  # no locks here
            pass
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
