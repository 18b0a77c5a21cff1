"""Checkpoints of a run by orbax: the last and the best ones."""

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from rwp_jax.errors import InputError

DIRECTORY = "checkpoints"


def _rank_by(figure: str) -> Callable[[dict], tuple]:
    """Better accuracy ranks higher, the earlier epoch among equals; imported networks have none."""
    return lambda record: (record.get(figure, -1.0), -record["epoch"])


_epoch = lambda record: record["epoch"]

# Figures that a record must have, and what the chosen one is the largest by. `_ema`: averaged weights.
_CHOICES = {
    "best": ((), _rank_by("pgd_accuracy")),
    "best_by_validation": (("validation_pgd_accuracy",), _rank_by("validation_pgd_accuracy")),
    "best_ema": (("ema_pgd_accuracy",), _rank_by("ema_pgd_accuracy")),
    "last": ((), _epoch),
    "last_ema": (("ema_pgd_accuracy",), _epoch),
}
WHICH = tuple(_CHOICES)


class Checkpoints:
    """The checkpoints of one run: one per epoch, of which the newest and the best are kept.

    As in the paper `best` is the best on the test set, which flatters it; `best_by_validation` is not
    chosen by the test set and is kept in runs with held-out images. `best_ema` and `last_ema` are for the
    averaged weights, of which `best_ema` is the best on the test set.

    A checkpoint holds the training state and that epoch's test record (`epoch`, `pgd_accuracy`, ...; an
    imported one no accuracies).
    """

    def __init__(self, workdir: pathlib.Path, validation: bool = False, ema: bool = False):
        """Args: of the run; whether records have accuracies on held-out images, or of averaged weights."""
        chosen = {"best": True, "best_by_validation": validation, "best_ema": ema}
        policies = ocp.training.preservation_policies
        best = [
            policies.BestN(get_metric_fn=_CHOICES[which][1], n=1)
            for which, kept in chosen.items()
            if kept
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
        """The record of one of the checkpoints `WHICH`, once saves are done; None where there is none."""
        self._checkpointer.wait()
        records = [checkpoint.metrics for checkpoint in self._checkpointer.checkpoints]
        figures, rank = _CHOICES[which]
        return max(filter(lambda r: r.keys() >= set(figures), records), key=rank, default=None)

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
