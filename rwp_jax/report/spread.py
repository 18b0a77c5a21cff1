"""Means over seeds, with their 95% intervals."""

import statistics
from collections.abc import Iterable
from typing import NamedTuple

from scipy.special import stdtrit

from rwp_jax.evaluation.intervals import wilson


class Spread(NamedTuple):
    """The mean of values that differ in the seed alone.

    Attributes:
      mean: of them.
      std: their sample standard deviation, None for one value.
      count: how many there are.
      low: lower end of the mean's 95% interval, None where there is none.
      high: its upper end.
    """

    mean: float
    std: float | None
    count: int
    low: float | None = None
    high: float | None = None

    def scaled(self, unit: float) -> "Spread":
        """The same in another, positive unit."""
        values = (v if v is None else unit * v for v in (self.mean, self.std, self.low, self.high))
        mean, std, low, high = values
        return Spread(mean, std, self.count, low, high)

    def within(self, least: float, most: float) -> "Spread":
        """The same with an interval that does not leave the possible values."""
        if self.low is None:
            return self
        return self._replace(low=max(least, self.low), high=min(most, self.high))

    def percent(self, signed: bool = False) -> str:
        """A share as 58.55 [57.93, 59.17] in %, a difference of shares with its sign."""
        sign = "+" if signed else ""
        number = lambda value: f"{100 * value:{sign}.2f}".replace("-", "−")
        interval = "" if self.low is None else f" [{number(self.low)}, {number(self.high)}]"
        return f"{number(self.mean)}{interval}"


def spread(values: Iterable[float | None], examples: int | None = None) -> Spread | None:
    """Mean and deviation over runs, those without a value left out; None where no value is left.

    The interval is Student's over runs: it holds for other seeds on the same data. One value has an
    interval only where it is a share of `examples` (Wilson's): it holds for other images, not other seeds.
    """
    known = [value for value in values if value is not None]
    if not known:
        return None
    mean = statistics.fmean(known)
    if len(known) == 1:
        interval = wilson(round(mean * examples), examples) if examples else (None, None)
        return Spread(mean, None, 1, *interval)
    std = statistics.stdev(known)
    half = float(stdtrit(len(known) - 1, 0.975)) * std / len(known) ** 0.5
    return Spread(mean, std, len(known), mean - half, mean + half)
