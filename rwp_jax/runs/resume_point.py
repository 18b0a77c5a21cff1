"""Which saved epoch is meant, and where in training a run goes on from it."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

Steps = Sequence[dict[str, Any]]  # metrics of each step of an epoch, scalars


class Position(NamedTuple):
    """Where a run goes on.

    Attributes:
      epoch: that is trained next, from 0.
      steps: metrics of its steps that are done already.
      metrics: records of metrics.jsonl of the epochs before it.
      seconds: trained for.
    """

    epoch: int = 0
    steps: Steps = ()
    metrics: Sequence[dict] = ()
    seconds: float = 0.0

    @classmethod
    def after(cls, record: dict[str, Any]) -> "Position":
        """The position that a checkpoint's record holds."""
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
        """Where it is, of so many epochs."""
        if self.steps:
            return f"in epoch {self.epoch + 1} of {epochs}, after {len(self.steps)} steps of it,"
        return f"after epoch {self.epoch} of {epochs}"


def within_epoch(steps: Steps) -> dict[str, dict]:
    """Metrics of an epoch's first steps, as JSON values that give the same bits again."""
    columns = {name: np.stack([step[name] for step in steps]) for name in steps[0]}
    return {
        name: {"dtype": column.dtype.name, "values": column.tolist()}
        for name, column in columns.items()
    }


def _rank_by(figure: str) -> Callable[[dict], tuple]:
    """Better accuracy ranks higher, the earlier epoch among equals; where none has it, the newest."""

    def rank(record: dict) -> tuple:
        known = figure in record
        return (record[figure], -record["epoch"]) if known else (-1.0, record["epoch"])

    return rank


_epoch = lambda record: record["epoch"]
_always = lambda record: True
_has = lambda figure: lambda record: figure in record


def _averages(record: dict) -> bool:
    """Whether the run keeps averaged weights, evaluated after this epoch or not."""
    return "ema_pgd_accuracy" in record or bool(record.get("config", {}).get("ema_decay"))


# Which records may be meant, and what the chosen one is the largest by. `_ema`: averaged weights.
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
    """What the epoch `which` of WHICH has the largest value of."""
    return _CHOICES[which][1]


def choose(which: str, records: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """The record that `which` of WHICH means; None where no record has the figures for it.

    As in the paper `best` is the best on the test set, which flatters it; `best_by_validation` is not
    chosen by the test set and is for runs with held-out images. `best_ema` and `last_ema` are for
    averaged weights, of which `best_ema` is the best on the test set.

    Args:
      which: one of WHICH.
      records: one an epoch, with `epoch` and test accuracies in [0, 1] such as `pgd_accuracy`, those on
        held-out images and of averaged weights as `validation_...` and `ema_...`.
    """
    possible, largest = _CHOICES[which]
    return max(filter(possible, records), key=largest, default=None)
