"""Checkpoints of a run by orbax: the last and the best ones."""

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from rwp_jax.errors import InputError
from rwp_jax.selection import choose, rank

DIRECTORY = "checkpoints"


class Checkpoints:
    """The checkpoints of one run: one per epoch, of which those are kept that `selection` may choose.

    A checkpoint holds the training state and that epoch's test record (`epoch`, `pgd_accuracy`, ...; an
    imported one no accuracies).
    """

    def __init__(self, workdir: pathlib.Path, validation: bool = False, ema: bool = False):
        """Args: of the run; whether records have accuracies on held-out images, or of averaged weights."""
        chosen = {"best": True, "best_by_validation": validation, "best_ema": ema}
        policies = ocp.training.preservation_policies
        best = [
            policies.BestN(get_metric_fn=rank(which), n=1) for which, kept in chosen.items() if kept
        ]
        keep = [policies.LatestN(1), *best]
        self._checkpointer = ocp.training.Checkpointer(
            pathlib.Path(workdir).resolve() / DIRECTORY,
            preservation_policy=policies.AnyPreservationPolicy(keep),
        )

    def save(self, state, record: dict[str, Any]) -> None:
        """Starts saving the state after epoch record["epoch"]; returns once the state is copied."""
        self._checkpointer.save_async(record["epoch"], state, metrics=record, force=True)

    def find(self, which: str) -> dict[str, Any] | None:
        """The record of the checkpoint that `selection.choose` means, once saves are done, or None."""
        self._checkpointer.wait()
        return choose(which, [checkpoint.metrics for checkpoint in self._checkpointer.checkpoints])

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
