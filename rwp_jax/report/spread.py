"""Means over seeds, with their 95% intervals."""

import statistics
from collections.abc import Iterable
from typing import NamedTuple

from scipy.special import stdtrit

from rwp_jax.evaluation.intervals import wilson


class Spread(NamedTuple):
    """Mean of values that differ only in the seed, with its interval.

    Attributes:
      mean: mean of the values.
      std: sample standard deviation of the values, None for one value.
      count: number of values.
      low: lower end of the mean's 95% interval, None if there is no interval.
      high: upper end of the interval.
    """

    mean: float
    std: float | None
    count: int
    low: float | None = None
    high: float | None = None

    def scaled(self, unit: float) -> "Spread":
        """Returns the spread multiplied by a positive unit."""
        values = (v if v is None else unit * v for v in (self.mean, self.std, self.low, self.high))
        mean, std, low, high = values
        return Spread(mean, std, self.count, low, high)

    def within(self, least: float, most: float) -> "Spread":
        """Returns the spread with its interval clipped to the possible values."""
        if self.low is None:
            return self
        return self._replace(low=max(least, self.low), high=min(most, self.high))

    def percent(self, signed: bool = False) -> str:
        """Formats a share in %, such as 58.55 [57.93, 59.17]; `signed` is for differences of shares."""
        sign = "+" if signed else ""
        number = lambda value: f"{100 * value:{sign}.2f}".replace("-", "−")
        interval = "" if self.low is None else f" [{number(self.low)}, {number(self.high)}]"
        return f"{number(self.mean)}{interval}"


def spread(values: Iterable[float | None], examples: int | None = None) -> Spread | None:
    """Returns mean, deviation and interval over runs, ignoring None; returns None if no value is left.

    The interval is Student's over runs and covers other seeds on the same data. A single value has an
    interval (Wilson's) only if it is a share of `examples`; it covers other images, not other seeds.
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
