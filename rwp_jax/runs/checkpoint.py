"""Checkpoints of a run, saved by orbax: the newest and the best ones, each with our own digests.

Orbax detects neither a flipped bit in an array (it restored infinities) nor a damaged record.
"""

import concurrent.futures
import errno
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import v1

from rwp_jax.errors import InputError, TemporaryError, first_line, is_temporary
from rwp_jax.files import array_digests, file_digests, seal, unseal, write_text
from rwp_jax.runs.network_record import check_same_shapes
from rwp_jax.runs.orbax_trees import UNFINISHED, alone, quiet
from rwp_jax.runs.resume_point import by_measure, choose

DIRECTORY = "checkpoints"
NEWEST = 2  # kept in addition to the best, so that one remains if the other is damaged
_BEST = ("best", "best_by_validation", "best_ema", "best_by_validation_ema")


def _save(path: pathlib.Path, state) -> None:
    # The older interface, because the newer one always synchronises all processes when it saves.
    options = alone(ocp.options.MultiprocessingOptions())
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=options)
    with quiet(), ocp.Checkpointer(handler, multiprocessing_options=options) as checkpointer:
        checkpointer.save(path, ocp.args.PyTreeSave(state), force=True)


def _check_room(directory: pathlib.Path, state) -> None:
    """Raises OSError if the disk is too full; orbax would too, with pages of its threads' tracebacks."""
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    disk = shutil.disk_usage(directory)
    if disk.total and disk.free < size:  # some network file systems report 0 for everything
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _load(path: pathlib.Path, like):
    context = v1.Context()
    alone(context.multiprocessing)
    with quiet(), context:
        return v1.load(path, like)


class DamagedCheckpoint(InputError):
    """A checkpoint differs from what was saved; the message names it and what is wrong."""


class Checkpoints:
    """The checkpoints of one run: orbax's DIRECTORY/STEP, and DIRECTORY/STEP.json with the record.

    Only one process of a run may use them at a time.

    The record is written last, so that a save cut short by a kill does not count as a checkpoint. It holds
    `step` (the number of steps done), `epoch`, the digests of all arrays and files, and either
    `within_epoch`, if saved inside that epoch, or the epoch's test accuracies (none for an imported
    network).
    """

    def __init__(self, workdir: pathlib.Path):
        self.directory = pathlib.Path(workdir).resolve() / DIRECTORY
        self._writer = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
        self._pending: concurrent.futures.Future | None = None
        self._parsed: dict[pathlib.Path, tuple[tuple[int, ...], dict[str, Any]]] = {}  # by file
        self._damaged: dict[pathlib.Path, str] = {}  # path of record or checkpoint -> what is wrong

    def save(self, state, record: dict[str, Any]) -> None:
        """Starts saving the state after record["step"] steps; returns once the state is copied.

        Raises:
          InputError: if the previous checkpoint could not be written.
        """
        for leaf in jax.tree.leaves(state):
            leaf.copy_to_host_async()
        # Copied because on the CPU an array may be a view of a buffer that the next step reuses.
        copy = jax.tree.map(lambda leaf: np.array(leaf), state)
        self.wait()
        self._pending = self._writer.submit(self._write, copy, record)

    def _write(self, state, record: dict[str, Any]) -> None:
        path = self.path(record["step"])
        try:
            self._remove_unfinished()
            there = self.directory if self.directory.exists() else self.directory.parent
            _check_room(there, state)
            self._record_path(record["step"]).unlink(missing_ok=True)
            _save(path, state)
            self._damaged.pop(path, None)
            digests = {"digests": array_digests(state), "files": file_digests(path)}
            sealed = seal(record | digests)
            write_text(self._record_path(record["step"]), sealed)
        except (
            Exception
        ) as error:  # orbax and its storage raise many kinds, such as for a full disk
            full = os.strerror(errno.ENOSPC)
            why = full if full in str(error) else first_line(error)
            before = "earlier ones are intact" if self.records() else "there is no earlier one"
            self._remove_unfinished()
            kind = TemporaryError if why == full or is_temporary(error) else InputError
            raise kind(f"checkpoint {path} cannot be written ({why}); {before}") from None
        self._prune()

    def _remove_unfinished(self) -> None:
        """Removes checkpoints marked for deletion and the remains of saves that a kill cut short."""
        for path in self.directory.glob(f"*{UNFINISHED}*"):
            shutil.rmtree(path, ignore_errors=True)

    def _prune(self) -> None:
        """Deletes intact checkpoints that are no longer needed; damaged ones are left as they are."""
        records = self.records()
        newest = sorted(records, key=lambda record: record["step"])[-NEWEST:]
        whole = [record for record in records if "within_epoch" not in record]
        kept = [*newest, choose("last", whole)]
        kept += [choose(which, group) for group in by_measure(whole) for which in _BEST]
        steps = {record["step"] for record in kept if record}
        for record in records:
            if record["step"] not in steps:
                path = self.path(record["step"])
                self._record_path(record["step"]).unlink()
                self._parsed.pop(self._record_path(record["step"]), None)
                path.rename(path.with_name(f"{path.name}{UNFINISHED}"))
        self._remove_unfinished()

    def wait(self) -> None:
        """Waits until everything is written; raises InputError if that failed."""
        if self._pending:
            pending, self._pending = self._pending, None
            pending.result()

    def _record_path(self, step: int) -> pathlib.Path:
        return self.directory / f"{step}.json"

    def records(self) -> list[dict[str, Any]]:
        """Returns the intact records and remembers the others as damaged."""
        records = []
        for path in self.directory.glob("*.json"):
            try:
                record = self._parse(path)
                _ = record["step"], record["epoch"], record["digests"]
                if path != self._record_path(record["step"]):
                    raise ValueError(f"it is the record of step {record['step']}")
                if self.path(record["step"]) not in self._damaged:
                    records.append(record)
            except (OSError, ValueError, KeyError) as error:
                self._damaged[path] = f"{path} is damaged ({first_line(error)})"
        return records

    def _parse(self, path: pathlib.Path) -> dict[str, Any]:
        """Returns the sealed record in a file, which is read again only if the file changed.

        Every save needs all records, and each holds the metrics of all epochs before it.
        """
        status = path.stat()
        stamp = status.st_ino, status.st_mtime_ns, status.st_size
        if self._parsed.get(path, (None,))[0] != stamp:
            self._parsed[path] = stamp, unseal(path.read_text())
        return self._parsed[path][1]

    def damages(self) -> list[str]:
        """Describes the damage found so far, one line for each record or checkpoint."""
        without = [
            f"checkpoint {path} has no record because its save was interrupted or it was removed"
            for path in sorted(self.directory.glob("*"))
            if path.name.isdecimal() and not self._record_path(int(path.name)).exists()
        ]
        return [*self._damaged.values(), *without]

    def find(self, which: str) -> dict[str, Any] | None:
        """Waits for saves; returns the whole epoch's record that `resume_point.choose` selects, or None."""
        self.wait()
        return choose(which, [r for r in self.records() if "within_epoch" not in r])

    def newest(self) -> dict[str, Any] | None:
        """Waits for saves; returns the newest checkpoint's record, inside an epoch or not, or None."""
        self.wait()
        return max(self.records(), key=lambda record: record["step"], default=None)

    def restore_newest(self, like) -> tuple[Any, dict[str, Any]] | None:
        """Restores the newest intact checkpoint, inside an epoch or not.

        Damaged checkpoints are reported on standard output and left as they are.

        Args:
          like: a tree with the state's structure, shapes and dtypes.

        Returns:
          State and record; None if there is no checkpoint.

        Raises:
          InputError: if there are checkpoints but none is intact, or if `like` has other shapes.
        """
        self.wait()
        records = sorted(self.records(), key=lambda record: record["step"], reverse=True)
        template = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), like)

        def fitting(saved):
            check_same_shapes(template, saved)
            return template

        found = None
        for record in records:
            try:
                found = self._read(record, fitting), record
                break
            except DamagedCheckpoint as error:
                self._damaged[self.path(record["step"])] = str(error)
        said = self.damages()
        # A single one without a record may come from a first save that a kill cut short.
        if found is None and (self._damaged or len(said) > 1):
            why = said[0]
            raise InputError(
                f"{self.directory} has no intact checkpoint: {why}; nothing was deleted: restore it from a "
                "copy, or move the run's directory away to start over"
            )
        instead = f"the one of step {found[1]['step']} is used" if found else "training starts over"
        for why in said:
            print(f"{why}: {instead}", flush=True)
        return found

    def load(self, record: dict[str, Any]) -> dict[str, Any]:
        """Loads the arrays saved with a record, as nested dicts of NumPy arrays.

        Raises:
          DamagedCheckpoint: if the checkpoint differs from what was saved.
        """
        as_saved = lambda saved: jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), saved)
        return self._read(record, as_saved)

    def _read(self, record: dict[str, Any], like: Callable):
        """Loads what was saved into the tree that `like` builds from the saved shapes and dtypes."""
        path = self.path(record["step"])
        self._check_files(path, record.get("files", {}))
        try:
            state = _load(path, like(v1.metadata(path).metadata))
        except InputError:
            raise
        except Exception as error:  # orbax and its storage raise many kinds for damaged files
            raise DamagedCheckpoint(
                f"checkpoint {path} is damaged ({type(error).__name__})"
            ) from None
        digests, saved = array_digests(state), record["digests"]
        for name in sorted(digests.keys() | saved.keys()):
            if digests.get(name) != saved.get(name):
                raise DamagedCheckpoint(
                    f"checkpoint {path} is damaged ({name} is not what was saved)"
                )
        return state

    def _check_files(self, path: pathlib.Path, saved: dict[str, str]) -> None:
        """Checks the files' digests first, because orbax's errors for damaged files are very long."""
        try:
            digests = file_digests(path)
        except OSError as error:
            raise DamagedCheckpoint(f"checkpoint {path} cannot be read ({error})") from None
        for name, digest in saved.items():
            if digests.get(name) != digest:
                what = "is not what was written" if name in digests else "is missing"
                raise DamagedCheckpoint(f"checkpoint {path} is damaged ({name} {what})")

    def path(self, step: int) -> pathlib.Path:
        return self.directory / str(step)

    def close(self) -> None:
        """Waits for the last save; raises InputError if it could not be written."""
        try:
            self.wait()
        finally:
            self._writer.shutdown()
