"""One colour and marker for each method, AT, AWP and RWP, in all pictures."""

import itertools
from collections.abc import Iterable

# Values of `config.weight_perturbation.name`; they use the first colours and markers of `style`.
METHODS = ("none", "awp", "rwp")


def method(config) -> int:
    """Index of the colour and marker of a run's method."""
    return METHODS.index(config.weight_perturbation.name)


def looks(configs: Iterable, more: int = 0) -> list[int]:
    """Returns indices of colour and marker for settings drawn in one picture.

    Args:
      configs: one config of each setting.
      more: number of further indices to append, which no method uses.

    Returns:
      The index of the method for the first setting of each method; other settings get an index that no
      method uses.
    """
    free = itertools.count(len(METHODS))
    found: list[int] = []
    for config in configs:
        index = method(config)
        found.append(next(free) if index in found else index)
    return [*found, *itertools.islice(free, more)]
