"""Settings compared seed by seed: what one gains on another, with intervals."""

from collections.abc import Sequence
from typing import NamedTuple

from rwp_jax.report.results import Result
from rwp_jax.report.spread import Spread, spread
from rwp_jax.report.summary import cell
from rwp_jax.report.table import MISSING, Table


class Pair(NamedTuple):
    """Two settings, of which `ours` is to be better; runs of the same seed are compared."""

    ours: str
    other: str
    results: Sequence[Result]
    others: Sequence[Result]

    @property
    def name(self) -> str:
        return f"{self.ours} − {self.other}"


def _last(result: Result, name: str = "pgd_accuracy") -> float | None:
    return result.figure("last", name)


def _best(result: Result) -> float | None:
    return result.figure("best", "pgd_accuracy")


def _fall(result: Result) -> float | None:
    best, last = _best(result), _last(result)
    return None if None in (best, last) else best - last


_COLUMNS = {
    "best: PGD": _best,
    "last: PGD": _last,
    "best − last: PGD": _fall,
    "last: natural": lambda result: _last(result, "natural_accuracy"),
}


def _by_seed(pair: Pair, figure) -> list[float]:
    theirs = {other.config.seed: figure(other) for other in pair.others}
    both = [(figure(result), theirs.get(result.config.seed)) for result in pair.results]
    return [ours - other for ours, other in both if None not in (ours, other)]


def difference(pair: Pair, column: str = "last: PGD") -> Spread | None:
    """Mean over the seeds that both have, in [-1, 1]."""
    return spread(_by_seed(pair, _COLUMNS[column]))


def difference_table(pairs: Sequence[Pair]) -> Table:
    """A row for each pair that has a seed in common."""
    rows = []
    for pair in pairs:
        values = [difference(pair, column) for column in _COLUMNS]
        if any(values):
            cells = [value.percent(signed=True) if value else MISSING for value in values]
            ahead = _by_seed(pair, _last)
            above = f"{sum(value > 0 for value in ahead)} of {len(ahead)}"
            rows.append([pair.name, *cells, above])
    note = (
        "Points of accuracy: the mean over seeds of the difference within a seed. Brackets: its 95% "
        "interval (Student's). best − last: how much less (−) or more (+) PGD accuracy falls after the "
        "best epoch."
    )
    return Table("Differences", ["difference", *_COLUMNS, "seeds above, last: PGD"], rows, note)


_IN_FULL = 3  # differences that get a sentence each


def verdicts(pairs: Sequence[Pair]) -> list[str]:
    """What the last epochs say: a sentence for each of a few pairs, three lists for many."""
    values = [
        (pair, value) for pair in pairs if (value := difference(pair)) and value.low is not None
    ]
    if len(values) <= _IN_FULL:
        return [_sentence(pair, value) for pair, value in values]
    parts = {
        "above zero": [pair.name for pair, value in values if value.low > 0],
        "below zero": [pair.name for pair, value in values if value.high < 0],
        "around zero": [pair.name for pair, value in values if value.low <= 0 <= value.high],
    }
    said = [f"{where} of {'; '.join(names)}" for where, names in parts.items() if names]
    return [
        f"After the last epoch the interval of the difference in PGD accuracy lies {text}."
        for text in said
    ]


def _sentence(pair: Pair, value: Spread) -> str:
    direction = "above" if value.mean > 0 else "below"
    sure = "excludes" if value.low > 0 or value.high < 0 else "includes"
    size = value._replace(**_turned(value)) if value.mean < 0 else value
    return (
        f"After the last epoch {pair.ours} is {cell(size)} points {direction} {pair.other} in PGD "
        f"accuracy: the interval {sure} zero."
    )


def _turned(value: Spread) -> dict[str, float]:
    return {"mean": -value.mean, "low": -value.high, "high": -value.low}
