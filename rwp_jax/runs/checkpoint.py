"""Checkpoints of a run by orbax: the newest and the best ones, each with digests of our own.

Orbax does not notice a flipped bit in an array (it restored infinities), nor a damaged record.
"""

import concurrent.futures
import contextlib
import errno
import logging
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import v1

from rwp_jax.errors import InputError, first_line
from rwp_jax.files import array_digests, file_digests, seal, unseal, write_text
from rwp_jax.runs.network_record import check_same_shapes
from rwp_jax.runs.resume_point import choose

DIRECTORY = "checkpoints"
NEWEST = 2  # so many are kept beside the best, so that one may be damaged
_UNFINISHED = ".orbax-checkpoint-tmp"  # orbax's own suffix
_BEST = ("best", "best_by_validation", "best_ema")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the log of orbax, which holds tracebacks of what it raises: messages here are one line."""
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio", "concurrent.futures")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _alone(options):
    """Orbax's multiprocessing options for this process alone: no others, of a run on several hosts, are
    waited for."""
    options.primary_host = jax.process_index()
    options.active_processes = {jax.process_index()}
    options.barrier_sync_key_prefix = f"process{jax.process_index()}"
    return options


def _save(path: pathlib.Path, state) -> None:
    # By the older interface: the newer one's save always has all processes talk to each other.
    options = _alone(ocp.options.MultiprocessingOptions())
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=options)
    with _quiet(), ocp.Checkpointer(handler, multiprocessing_options=options) as checkpointer:
        checkpointer.save(path, ocp.args.PyTreeSave(state), force=True)


def _check_room(directory: pathlib.Path, state) -> None:
    """Raises OSError where the disk has no room: orbax would too, with pages of its threads' tracebacks."""
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    disk = shutil.disk_usage(directory)
    if disk.total and disk.free < size:  # some network file systems say 0 of everything
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _load(path: pathlib.Path, like):
    context = v1.Context()
    _alone(context.multiprocessing)
    with _quiet(), context:
        return v1.load(path, like)


class DamagedCheckpoint(InputError):
    """A checkpoint that is not what was saved; the message names it and what is wrong."""


class Checkpoints:
    """The checkpoints of one run: DIRECTORY/STEP by orbax, and DIRECTORY/STEP.json with the record.

    Of a run's processes one at a time works with them.

    The record is written last, so that what a kill leaves of a save is no checkpoint. It has `step`, the
    steps done, `epoch`, `within_epoch` where it was saved inside that epoch, the epoch's test accuracies
    otherwise (an imported network has none), and the digests of all arrays and files.
    """

    def __init__(self, workdir: pathlib.Path):
        self.directory = pathlib.Path(workdir).resolve() / DIRECTORY
        self._writer = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
        self._pending: concurrent.futures.Future | None = None
        self._parsed: dict[pathlib.Path, tuple[tuple[int, ...], dict[str, Any]]] = {}  # by file
        self._damaged: dict[pathlib.Path, str] = {}  # record or checkpoint: what is wrong with it

    def save(self, state, record: dict[str, Any]) -> None:
        """Starts saving the state after record["step"] steps; returns once the state is copied.

        Raises:
          InputError: where the save before this one could not be written.
        """
        for leaf in jax.tree.leaves(state):
            leaf.copy_to_host_async()
        # Copies: on the CPU an array may be a view of a buffer that the next step reuses.
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
        except Exception as error:  # orbax and its storage raise many kinds, for a full disk say
            full = os.strerror(errno.ENOSPC)
            why = full if full in str(error) else first_line(error)
            before = "those before it are intact" if self.records() else "there is none before it"
            self._remove_unfinished()
            raise InputError(f"checkpoint {path} cannot be written ({why}); {before}") from None
        self._prune()

    def _remove_unfinished(self) -> None:
        """Removes what was deleted, and what kills left of saves that orbax had not finished."""
        for path in self.directory.glob(f"*{_UNFINISHED}*"):
            shutil.rmtree(path, ignore_errors=True)

    def _prune(self) -> None:
        """Deletes sound checkpoints that nothing will ask for; damaged ones stay as they are."""
        records = self.records()
        newest = sorted(records, key=lambda record: record["step"])[-NEWEST:]
        whole = [record for record in records if "within_epoch" not in record]
        kept = [*newest, *(choose(which, whole) for which in (*_BEST, "last"))]
        steps = {record["step"] for record in kept if record}
        for record in records:
            if record["step"] not in steps:
                path = self.path(record["step"])
                self._record_path(record["step"]).unlink()
                self._parsed.pop(self._record_path(record["step"]), None)
                path.rename(path.with_name(f"{path.name}{_UNFINISHED}"))
        self._remove_unfinished()

    def wait(self) -> None:
        """Waits until everything is written; raises InputError where it could not be."""
        if self._pending:
            pending, self._pending = self._pending, None
            pending.result()

    def _record_path(self, step: int) -> pathlib.Path:
        return self.directory / f"{step}.json"

    def records(self) -> list[dict[str, Any]]:
        """The records that are sound; others are remembered as damaged."""
        records = []
        for path in self.directory.glob("*.json"):
            try:
                record = self._parse(path)
                _ = record["step"], record["epoch"], record["digests"]
                if path != self._record_path(record["step"]):
                    raise ValueError(f"it is that of step {record['step']}")
                if self.path(record["step"]) not in self._damaged:
                    records.append(record)
            except (OSError, ValueError, KeyError) as error:
                self._damaged[path] = f"{path} is damaged ({first_line(error)})"
        return records

    def _parse(self, path: pathlib.Path) -> dict[str, Any]:
        """The sealed record in a file, read again only where the file is another one.

        All are asked for at every save, and each holds the metrics of all epochs before it.
        """
        status = path.stat()
        stamp = status.st_ino, status.st_mtime_ns, status.st_size
        if self._parsed.get(path, (None,))[0] != stamp:
            self._parsed[path] = stamp, unseal(path.read_text())
        return self._parsed[path][1]

    def damages(self) -> list[str]:
        """What was found to be wrong so far, a line for each record or checkpoint."""
        without = [
            f"checkpoint {path} has no record, its save was interrupted or the record was removed"
            for path in sorted(self.directory.glob("*"))
            if path.name.isdecimal() and not self._record_path(int(path.name)).exists()
        ]
        return [*self._damaged.values(), *without]

    def find(self, which: str) -> dict[str, Any] | None:
        """The record of the whole epoch that `resume_point.choose` means, once saves are done, or None."""
        self.wait()
        return choose(which, [r for r in self.records() if "within_epoch" not in r])

    def newest(self) -> dict[str, Any] | None:
        """The record of the newest checkpoint, inside an epoch or not, once saves are done, or None."""
        self.wait()
        return max(self.records(), key=lambda record: record["step"], default=None)

    def restore_newest(self, like) -> tuple[Any, dict[str, Any]] | None:
        """The newest sound checkpoint, inside an epoch or not: state and record, None where there is none.

        Damaged ones are named on standard output, and left as they are.

        Args:
          like: a tree of the state's structure, shapes and dtypes.

        Raises:
          InputError: where there are checkpoints, and none is sound; where `like` has other shapes.
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
        # One without a record may be what a kill left of a first save.
        if found is None and (self._damaged or len(said) > 1):
            why = said[0]
            raise InputError(
                f"{self.directory} has no sound checkpoint: {why}; nothing was deleted: restore it from a "
                "copy, or move the run's directory away to begin again"
            )
        instead = f"that of step {found[1]['step']} is used" if found else "training begins again"
        for why in said:
            print(f"{why}: {instead}", flush=True)
        return found

    def load(self, record: dict[str, Any]) -> dict[str, Any]:
        """What was saved with a record, as nested dicts of NumPy arrays.

        Raises:
          DamagedCheckpoint: where it is not what was saved.
        """
        as_saved = lambda saved: jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), saved)
        return self._read(record, as_saved)

    def _read(self, record: dict[str, Any], like: Callable):
        """What was saved, as the tree that `like` makes of its shapes and dtypes."""
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
        """Before orbax reads them, which says at length what it does not like in a damaged one."""
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
        """Waits for the last save; raises InputError where it could not be written."""
        try:
            self.wait()
        finally:
            self._writer.shutdown()
