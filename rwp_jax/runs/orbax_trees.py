"""Reads trees of arrays that any program saved with orbax, and configures orbax for this package."""

import contextlib
import gc
import io
import logging
import math
import os
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from rwp_jax.errors import InputError

UNFINISHED = ".orbax-checkpoint-tmp"  # orbax's own suffix of directories that are being written
_LATE = 0.2  # seconds within which threads report a failure
_METADATA = "_METADATA"  # present in every directory that holds a tree
_CHECKPOINT = "_CHECKPOINT_METADATA"
_MARKS = (_METADATA, _CHECKPOINT, "manifest.ocdbt")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences orbax's log, which prints tracebacks of its errors; messages here are one line."""
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio", "concurrent.futures")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _unheard() -> Iterator[None]:
    """Silences tracebacks that threads of orbax and tensorstore print of errors that are also raised."""
    hook = sys.unraisablehook
    sys.unraisablehook = lambda _: None
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        sys.unraisablehook = hook


def alone(options):
    """Restricts orbax's multiprocessing options to this process, so that it waits for no other host."""
    options.primary_host = jax.process_index()
    options.active_processes = {jax.process_index()}
    options.barrier_sync_key_prefix = f"process{jax.process_index()}"
    return options


def is_tree(path: pathlib.Path) -> bool:
    """Returns whether a directory is a checkpoint of orbax, a part of one, or a directory of such."""
    return any((path / mark).exists() for mark in _MARKS) or bool(_parts(path) or _steps(path))


def _parts(path: pathlib.Path) -> list[pathlib.Path]:
    """Returns the trees of a checkpoint that holds them by name; each is no checkpoint itself."""
    found = [mark.parent for mark in path.glob(f"*/{_METADATA}")]
    return sorted(part for part in found if not (part / _CHECKPOINT).exists())


def _steps(path: pathlib.Path) -> list[str]:
    """Names the checkpoints in a directory of a CheckpointManager."""
    found = [mark.parent for name in _MARKS for mark in path.glob(f"*/{name}")]
    return sorted({step.name for step in found if step.name.isdecimal()}, key=int)


def _tree_in(path: pathlib.Path) -> pathlib.Path:
    """Returns the directory of the only tree in a checkpoint; raises InputError if there are several."""
    if (path / _METADATA).exists():
        return path
    if steps := _steps(path):
        raise InputError(
            f"{path} holds checkpoints of steps {', '.join(steps)}: name one of them, such as "
            f"{path / steps[-1]}"
        )
    parts = _parts(path)
    if len(parts) > 1:
        names = ", ".join(part.name for part in parts)
        raise InputError(f"{path} holds several trees ({names}): name one, such as {parts[0]}")
    if not parts:
        raise InputError(f"{path} is a checkpoint of orbax without a tree ({_METADATA} is missing)")
    return parts[0]


def _check_memory(tree: Any) -> None:
    """Raises ValueError for arrays that cannot fit, as running out of memory would end the process."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "shape")]
    size = sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in leaves)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if size > memory:
        raise ValueError(
            f"its arrays have {size / 1e9:,.0f} GB, this machine {memory / 1e9:,.0f} GB"
        )


def read_tree(path: pathlib.Path) -> Any:
    """Reads a tree that PyTreeCheckpointer, StandardCheckpointer, CheckpointManager or `v1` saved.

    Args:
      path: directory of the checkpoint, or of one of its trees.

    Returns:
      Nested dicts and lists of NumPy arrays, numbers and strings.

    Raises:
      InputError: if the directory holds no tree or several, or cannot be read.
    """
    if UNFINISHED in path.name:
        raise InputError(f"{path} is a checkpoint of orbax whose save was cut short")
    directory = _tree_in(path).resolve()
    options = alone(ocp.options.MultiprocessingOptions())
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=options)
    as_array = ocp.RestoreArgs(restore_type=np.ndarray)
    how = lambda leaf: as_array if hasattr(leaf, "shape") else ocp.RestoreArgs()
    with quiet(), _unheard():
        try:
            with ocp.Checkpointer(handler, multiprocessing_options=options) as checkpointer:
                metadata = checkpointer.metadata(directory).item_metadata
                if metadata is None:  # orbax only logs why
                    raise ValueError("files are missing or cut short")
                _check_memory(metadata.tree)
                restore = ocp.args.PyTreeRestore(restore_args=jax.tree.map(how, metadata.tree))
                return checkpointer.restore(directory, restore)
        except Exception as error:  # orbax and its storage raise many kinds, with long messages
            why = str(error).partition("[")[0].partition("\n")[0].strip()[:150]
            message = f"{path} cannot be read by orbax ({why or type(error).__name__})"
            time.sleep(_LATE)
        gc.collect()  # tasks that failed report it when they are collected
    raise InputError(message)
