"""Where in training a checkpoint was saved: all that continuing needs beside the state."""

from collections.abc import Sequence
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
