"""Selects saved epochs by name, and describes where a run resumes training."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from rwp_jax.runs.config import MEASURE

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
        if not record.get("within_epoch"):  # empty before the first epoch, whose predecessor is -1
            return cls(record["epoch"] + 1, (), record["metrics"], record["seconds"])
        columns = {
            name: np.array(column["values"], column["dtype"])
            for name, column in record["within_epoch"].items()
        }
        count = len(next(iter(columns.values())))
        steps = [{name: column[i] for name, column in columns.items()} for i in range(count)]
        return cls(record["epoch"], steps, record["metrics"], record["seconds"])

    @property
    def next_epoch(self) -> int:
        """The first epoch, from 0, of which no step is done."""
        return self.epoch + bool(self.steps)

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
    "best_by_validation_ema": (
        _has("validation_ema_pgd_accuracy"),
        _rank_by("validation_ema_pgd_accuracy"),
    ),
    "last": (_always, _epoch),
    "last_ema": (_averages, _epoch),
}
WHICH = tuple(_CHOICES)


def rank(which: str) -> Callable[[dict], Any]:
    """Returns the key that the epoch `which`, one of WHICH, maximises."""
    return _CHOICES[which][1]


def by_measure(records: Iterable[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Groups records by how their accuracies were measured; the group of the newest epoch comes last.

    The settings are those of the config in a record. Records of old versions have none and, like records
    that were not evaluated, belong to the group of the epoch before them.
    """
    groups: list[list[dict[str, Any]]] = []
    held: dict[str, Any] = {}
    for record in sorted(records, key=_epoch):
        config = record.get("config", {})
        measure = {key: config[key] for key in MEASURE if key in config}
        if config:
            measure.setdefault("evaluation.validation_attack", "")  # newer than some runs
        evaluated = "pgd_accuracy" in record
        if not groups or (evaluated and any(held.get(k, v) != v for k, v in measure.items())):
            groups.append([])
        held = held | measure if evaluated else held
        groups[-1].append(record)
    return groups


def choose(which: str, records: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """Selects the record that `which` names; returns None if no record has the accuracies it needs.

    As in the paper, `best` is the best on the test set, which biases its accuracy upwards.
    `best_by_validation` is selected on held-out training images, if the run has any. `best_ema`,
    `best_by_validation_ema` and `last_ema` are for averaged weights; the first is the best of them on the
    test set. If the radius or an attack of the evaluation changed during a run, the best is that of the
    epochs since then.

    Args:
      which: one of WHICH.
      records: one record per epoch, with `epoch` and test accuracies in [0, 1] such as `pgd_accuracy`.
        Accuracies on held-out images are named `validation_...`, those of averaged weights `ema_...`.
    """
    possible, largest = _CHOICES[which]
    *_, newest = by_measure(records) or [[]]
    return max(filter(possible, newest), key=largest, default=None)
