"""Layout of a run's directory, the check of which run it holds, and its lock."""

import contextlib
import fcntl
import json
import os
import pathlib
import socket
from collections.abc import Iterator

from rwp_jax.errors import InputError, TemporaryError, is_temporary
from rwp_jax.files import PARTIAL
from rwp_jax.runs import zoo
from rwp_jax.runs.config import HISTORY, changed, differences, flatten
from rwp_jax.runs.history import CONFIG

SUMMARY, LOCK = "summary.json", "in_use"
# Files that `evaluation.table2` writes to EVALUATION/CHECKPOINT/.
EVALUATION, EVALUATION_JSON, EVALUATION_NPZ = "evaluation", "evaluation.json", "evaluation.npz"
# Files for people count epochs from 1 and state it with this key, which older versions did not write.
COUNTED_FROM, FIRST_EPOCH = "epochs_count_from", 1
BENCHMARK_JSON = "benchmark.json"  # AutoAttack's record, see `evaluation.record`
COLUMNS = {  # of the paper's Table 2: name -> heading
    "natural": "natural",
    "fgsm": "FGSM",
    "pgd20": "PGD-20",
    "pgd100": "PGD-100",
    "cw": "C&W",
    "autoattack": "AutoAttack",
}


def from_1(epoch: int) -> dict[str, int]:
    """Returns the entries that a file has for `epoch`, which is counted from 0."""
    return {"epoch": epoch + FIRST_EPOCH, COUNTED_FROM: FIRST_EPOCH}


def from_0(epoch: int, content: dict) -> int:
    """Converts the epoch in a file's content to counting from 0."""
    return epoch - content.get(COUNTED_FROM, 0)


class InUse(InputError):
    """Another live process is using the directory; the message names it."""


class OtherConfig(InputError):
    """The directory holds a run of another config; `changed` maps each key to [held, wanted]."""

    def __init__(self, message: str, changed: dict[str, list]):
        super().__init__(message)
        self.changed = changed


def check(workdir: pathlib.Path, config: dict, resume: bool) -> bool:
    """Checks whether the directory holds a run of this config; changes nothing.

    Args:
      workdir: directory of the run, which need not exist.
      config: config of the run, as nested dicts of JSON values.
      resume: whether an existing run may be continued.

    Returns:
      True if there is a run to continue, False if the directory is free.

    Raises:
      OtherConfig: if it holds a run of another config.
      InputError: if it holds files that are not a run, or a run although `resume` is false; or if it
        cannot be written to.
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
        # A kill right after the start of a run may leave an unfinished file, which can be discarded.
        leftover = lambda path: path.suffix == PARTIAL or path.name == LOCK
        if existing != workdir or all(map(leftover, workdir.iterdir())):
            return False
    except OSError as error:
        raise InputError(f"workdir={workdir}: {error.strerror}") from None
    path = workdir / CONFIG
    try:
        content = json.loads(path.read_text())
        held = flatten({key: value for key, value in content.items() if key != HISTORY})
    except (OSError, ValueError, AttributeError):
        raise InputError(
            f"workdir={workdir} holds files but no readable {CONFIG}: choose an empty directory"
        ) from None
    wanted = flatten(json.loads(json.dumps(config)))
    different = differences(held, wanted)
    if different:
        raise OtherConfig(
            f"workdir={workdir} holds a run of another config ({'; '.join(different)}): "
            "choose another directory",
            changed(held, wanted),
        )
    check_resumed(workdir, resume)
    return True


def check_resumed(workdir: pathlib.Path, resume: bool) -> None:
    """Raises InputError if the run in a directory may not be continued."""
    if not resume:
        raise InputError(
            f"workdir={workdir} holds a run of this config and resume is off: "
            "choose another directory, or resume the run"
        )


def finished(directory: pathlib.Path, epochs: int) -> dict | None:
    """Returns the content of a run's summary.json; None if there is none, or it has fewer than `epochs`.

    The latter is that of a run that is being extended.
    """
    try:
        summary = json.loads((directory / SUMMARY).read_text(encoding="utf-8"))
        last = summary.get("last", {}).get("epoch")
        return summary if last is None or from_0(last, summary) + 1 >= epochs else None
    except (OSError, ValueError, AttributeError, TypeError):
        return None


@contextlib.contextmanager
def lock(workdir: pathlib.Path) -> Iterator[None]:
    """Creates and locks the directory; the lock also ends with this process, however that ends.

    Raises:
      InUse: if another live process holds the lock. File systems without locks are not protected.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        claim = (workdir / LOCK).open("a+")
    except OSError as error:
        kind = TemporaryError if is_temporary(error) else InputError
        raise kind(f"workdir={workdir} cannot be written to: {error.strerror}") from None
    with claim as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "another process"
            raise InUse(f"workdir={workdir} is in use by {owner}") from None
        except OSError:  # the file system has no locks
            pass
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
