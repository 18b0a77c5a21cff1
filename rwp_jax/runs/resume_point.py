"""Selects saved epochs by name, and describes where a run resumes training."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

Steps = Sequence[dict[str, Any]]  # scalar metrics of each step of an epoch


class Position(NamedTuple):
    """Position at which a run resumes.

    Attributes:
      epoch: epoch to train next, from 0.
      steps: metrics of the steps of this epoch that are already done.
      metrics: records of metrics.jsonl for the epochs before it.
      seconds: training time so far.
    """

    epoch: int = 0
    steps: Steps = ()
    metrics: Sequence[dict] = ()
    seconds: float = 0.0

    @classmethod
    def after(cls, record: dict[str, Any]) -> "Position":
        """Returns the position after the checkpoint with this record."""
        if "within_epoch" not in record:
            return cls(record["epoch"] + 1, (), record["metrics"], record["seconds"])
        columns = {
            name: np.array(column["values"], column["dtype"])
            for name, column in record["within_epoch"].items()
        }
        count = len(next(iter(columns.values())))
        steps = [{name: column[i] for name, column in columns.items()} for i in range(count)]
        return cls(record["epoch"], steps, record["metrics"], record["seconds"])

    def described(self, epochs: int) -> str:
        """Describes the position in a run of `epochs` epochs, in words."""
        if self.steps:
            return f"in epoch {self.epoch + 1} of {epochs}, after {len(self.steps)} steps of it,"
        return f"after epoch {self.epoch} of {epochs}"


def within_epoch(steps: Steps) -> dict[str, dict]:
    """Returns the metrics of an epoch's first steps as JSON values that can be restored bit for bit."""
    columns = {name: np.stack([step[name] for step in steps]) for name in steps[0]}
    return {
        name: {"dtype": column.dtype.name, "values": column.tolist()}
        for name, column in columns.items()
    }


def _rank_by(figure: str) -> Callable[[dict], tuple]:
    """Ranks records by an accuracy, then by earlier epoch; without that accuracy, by later epoch."""

    def rank(record: dict) -> tuple:
        known = figure in record
        return (record[figure], -record["epoch"]) if known else (-1.0, record["epoch"])

    return rank


_epoch = lambda record: record["epoch"]
_always = lambda record: True
_has = lambda figure: lambda record: figure in record


def _averages(record: dict) -> bool:
    """Checks whether the run averages weights, whether or not they were evaluated after this epoch."""
    return "ema_pgd_accuracy" in record or bool(record.get("config", {}).get("ema_decay"))


# Name -> (filter of the candidate records, key that the selected one maximises). `_ema`: averaged weights.
_CHOICES = {
    "best": (_always, _rank_by("pgd_accuracy")),
    "best_by_validation": (
        _has("validation_pgd_accuracy"),
        _rank_by("validation_pgd_accuracy"),
    ),
    "best_ema": (_has("ema_pgd_accuracy"), _rank_by("ema_pgd_accuracy")),
    "last": (_always, _epoch),
    "last_ema": (_averages, _epoch),
}
WHICH = tuple(_CHOICES)


def rank(which: str) -> Callable[[dict], Any]:
    """Returns the key that the epoch `which`, one of WHICH, maximises."""
    return _CHOICES[which][1]


def choose(which: str, records: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """Selects the record that `which` names; returns None if no record has the accuracies it needs.

    As in the paper, `best` is the best on the test set, which biases its accuracy upwards.
    `best_by_validation` is selected on held-out training images, if the run has any. `best_ema` and
    `last_ema` are for averaged weights; `best_ema` is the best of them on the test set.

    Args:
      which: one of WHICH.
      records: one record per epoch, with `epoch` and test accuracies in [0, 1] such as `pgd_accuracy`.
        Accuracies on held-out images are named `validation_...`, those of averaged weights `ema_...`.
    """
    possible, largest = _CHOICES[which]
    return max(filter(possible, records), key=largest, default=None)
