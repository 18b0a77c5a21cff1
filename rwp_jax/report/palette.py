"""One look for each method, AT, AWP and RWP, in all pictures."""

import itertools
from collections.abc import Iterable

METHODS = (
    "none",
    "awp",
    "rwp",
)  # of `config.weight_perturbation.name`; their looks are the first of `style`


def method(config) -> int:
    """Index of the colour and marker of a run's method."""
    return METHODS.index(config.weight_perturbation.name)


def looks(configs: Iterable, more: int = 0) -> list[int]:
    """Index of colour and marker for settings side by side.

    Args:
      configs: one of each setting.
      more: looks wanted behind them, of no method.

    Returns:
      The method's for the first setting of each method; others have one that no method has.
    """
    free = itertools.count(len(METHODS))
    found: list[int] = []
    for config in configs:
        index = method(config)
        found.append(next(free) if index in found else index)
    return [*found, *itertools.islice(free, more)]
