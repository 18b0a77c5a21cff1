"""Compares settings seed by seed: differences in accuracy, with intervals."""

from collections.abc import Sequence
from typing import NamedTuple

from rwp_jax.report.results import Result
from rwp_jax.report.spread import Spread, spread
from rwp_jax.report.summary import fall, gap
from rwp_jax.report.table import MISSING, Table


def _operand(setting: str) -> str:
    """Returns a setting in brackets if it has a comma and is not itself an interval."""
    return f"[{setting}]" if "," in setting and not setting.startswith("[") else setting


class Pair(NamedTuple):
    """Two settings, of which `ours` is expected to be better; runs with equal seeds are compared."""

    ours: str
    other: str
    results: Sequence[Result]
    others: Sequence[Result]

    @property
    def name(self) -> str:
        return f"{_operand(self.ours)} − {_operand(self.other)}"


_COLUMNS = {
    "best: PGD": lambda result: result.figure("best", "pgd_accuracy"),
    "last: PGD": lambda result: result.figure("last", "pgd_accuracy"),
    "best − last: PGD": fall,
    "last: PGD, training − test": gap,
    "last: natural": lambda result: result.figure("last", "natural_accuracy"),
}


def _by_seed(pair: Pair, column: str) -> list[float]:
    figure = _COLUMNS[column]
    theirs = {other.config.seed: figure(other) for other in pair.others}
    both = [(figure(result), theirs.get(result.config.seed)) for result in pair.results]
    return [ours - other for ours, other in both if None not in (ours, other)]


def difference(pair: Pair, column: str = "last: PGD") -> Spread | None:
    """Returns the mean difference over the seeds that both settings have, in [-1, 1]."""
    return spread(_by_seed(pair, column))


def difference_table(pairs: Sequence[Pair]) -> Table:
    """Returns a table with a row for each pair with a common seed."""
    rows = []
    for pair in pairs:
        values = [difference(pair, column) for column in _COLUMNS]
        if any(values):
            cells = [value.percent(signed=True) if value else MISSING for value in values]
            ahead = _by_seed(pair, "last: PGD")
            above = f"{sum(value > 0 for value in ahead)} of {len(ahead)}"
            rows.append([pair.name, *cells, above])
    note = (
        "Percentage points: the mean over seeds of the difference between runs with the same seed. "
        "Brackets: its 95% interval (Student's, not adjusted for multiple comparisons), for other seeds on "
        "the same training and test images. best − last: how much less (−) or more (+) PGD accuracy falls "
        "after the best epoch evaluated."
    )
    return Table("Differences", ["difference", *_COLUMNS, "seeds above, last: PGD"], rows, note)


_SAID = {  # column -> epoch it refers to, as the beginning of a sentence
    "best: PGD": "At the best epoch",
    "last: PGD": "After the last epoch",
    "best − last: PGD": "Between best and last",
    "last: PGD, training − test": "Between training and test images, after the last epoch,",
}


def verdicts(pairs: Sequence[Pair], columns: Sequence[str] = ("last: PGD",)) -> list[str]:
    """States in a sentence per column which intervals exclude zero, and on which side."""
    said = []
    for column in columns:
        values = [
            (pair, value)
            for pair in pairs
            if (value := difference(pair, column)) and value.low is not None
        ]
        above = [_named(pair, value) for pair, value in values if value.low > 0]
        below = [_named(pair, value) for pair, value in values if value.high < 0]
        unsure = [_named(pair, value) for pair, value in values if value.low <= 0 <= value.high]
        parts = [f"above zero for {', '.join(above)}"] * bool(above)
        parts += [f"below zero for {', '.join(below)}"] * bool(below)
        parts += [f"on both sides of zero for {', '.join(unsure)}"] * bool(unsure)
        if parts:
            said.append(
                f"{_SAID[column]} the interval of the difference is {'; it is '.join(parts)}."
            )
    return said


def _named(pair: Pair, value: Spread) -> str:
    return f"{pair.name} ({value._replace(low=None).percent(signed=True)} points)"
