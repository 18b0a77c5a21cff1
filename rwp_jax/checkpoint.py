"""Checkpoints `last` and `best` of a run, by orbax."""

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from rwp_jax.errors import InputError

DIRECTORY = "checkpoints"


def _rank(record: dict) -> tuple:
    """Better robust accuracy ranks higher, the earlier epoch among equals."""
    return record["pgd_accuracy"], -record["epoch"]


class Checkpoints:
    """The checkpoints of one run: one per epoch, of which the newest and the best are kept.

    A checkpoint holds the training state and that epoch's test record (`epoch`, `pgd_accuracy`, ...).
    """

    def __init__(self, workdir: pathlib.Path):
        policies = ocp.training.preservation_policies
        keep = [policies.LatestN(1), policies.BestN(get_metric_fn=_rank, n=1)]
        self._checkpointer = ocp.training.Checkpointer(
            pathlib.Path(workdir).resolve() / DIRECTORY,
            preservation_policy=policies.AnyPreservationPolicy(keep),
        )

    def save(self, state, record: dict[str, Any]) -> None:
        """Starts saving the state after epoch record["epoch"]; returns once the state is copied."""
        self._checkpointer.save_async(record["epoch"], state, metrics=record, force=True)

    def find(self, which: str) -> dict[str, Any] | None:
        """The record of checkpoint `last` or `best`, once saves are done; None where there is none."""
        self._checkpointer.wait()
        records = [checkpoint.metrics for checkpoint in self._checkpointer.checkpoints]
        key = _rank if which == "best" else lambda record: record["epoch"]
        return max(records, key=key, default=None)

    def restore(self, epoch: int, like):
        """The state saved after `epoch`, with the structure, dtypes and shardings of `like`.

        Raises:
          InputError: where it cannot be read back.
        """
        return self._read(epoch, lambda: jax.tree.map(ocp.arrays.to_shape_dtype_struct, like))

    def load(self, epoch: int) -> dict[str, Any]:
        """What was saved after `epoch`, as nested dicts of NumPy arrays, on whatever devices it was.

        Raises:
          InputError: where it cannot be read back.
        """

        def like():
            saved = self._checkpointer.metadata(epoch).metadata
            return jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), saved)

        return self._read(epoch, like)

    def _read(self, epoch: int, like: Callable):
        try:
            return self._checkpointer.load(epoch, like())
        except Exception as error:  # orbax and its storage raise many kinds for damaged files
            raise InputError(
                f"checkpoint {self.path(epoch)} is damaged ({type(error).__name__}): with it moved away "
                "an older one is used, if there is one"
            ) from None

    def path(self, epoch: int) -> pathlib.Path:
        return pathlib.Path(self._checkpointer.directory) / str(epoch)

    def close(self) -> None:
        """Waits for the last save and frees the checkpointer."""
        self._checkpointer.close()
