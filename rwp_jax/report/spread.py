"""Means over seeds, as the paper prints them."""

import statistics
from collections.abc import Iterable
from typing import NamedTuple


class Spread(NamedTuple):
    """Mean and sample standard deviation of `count` values; the deviation of one value is None."""

    mean: float
    std: float | None
    count: int

    def percent(self) -> str:
        """An accuracy in [0, 1] as the paper prints it: 58.55±0.50."""
        deviation = "" if self.std is None else f"±{100 * self.std:.2f}"
        return f"{100 * self.mean:.2f}{deviation}"


def spread(values: Iterable[float | None]) -> Spread | None:
    """Mean and deviation over runs, those without a value left out; None where no value is left."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Spread(
        statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None, len(known)
    )
