"""What is found about a file or directory, and its form on the screen."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

_MOST_CLASSES = 20  # with counts of their own in a line


class Unsound(Exception):
    """What was inspected is damaged or has numbers that are not finite; the message names the first."""


class Findings(NamedTuple):
    """What a file or directory is.

    Attributes:
      kind: what it is, in words.
      rows: (heading, text) of each line.
      problems: what is wrong with it, if anything.
      usage: lines that say how to use it; commands begin with MAIN for the program.
    """

    kind: str
    rows: list[tuple[str, str]]
    problems: list[str]
    usage: list[str]


def as_text(path: str, found: Findings, program: str) -> str:
    """Formats findings, a line each; `program` is the name of the program."""
    rows = [*found.rows, ("sound", "no: see below" if found.problems else "yes")]
    usage = [re.sub("^MAIN(?= )", lambda _: program, line) for line in found.usage]
    rows += [("to use it" if not i else "", line) for i, line in enumerate(usage)]
    width = max(len(heading) for heading, _ in rows)
    lines = [f"{path}: {found.kind}"]
    lines += [f"  {heading:<{width}}  {text}" for heading, text in rows]
    return "\n".join([*lines, *(f"  unsound: {problem}" for problem in found.problems)])


def not_finite(arrays: Mapping[str, Any]) -> list[str]:
    """Describes the arrays that have entries that are not finite: the first, and how many there are."""
    bad = []
    for name, array in arrays.items():
        with np.errstate(all="ignore"):
            if not np.isfinite(np.asarray(array, np.float64)).all():
                bad.append(name)
    more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
    return [f"{bad[0]} has entries that are not finite{more}"] if bad else []


def weights(arrays: Mapping[str, Any]) -> str:
    """Returns the number of numbers in arrays, and their dtypes."""
    count = sum(int(np.size(array)) for array in arrays.values())
    dtypes = sorted({str(np.asarray(array).dtype) for array in arrays.values()})
    return f"{count:,} numbers in {len(arrays)} arrays, {', '.join(dtypes)}"


def shape(array: np.ndarray) -> str:
    """Returns dtype and shape, as `uint8 [10, 32, 32, 3]`."""
    return f"{array.dtype} {list(array.shape)}"


def counts(labels: np.ndarray) -> str:
    """Returns the number of examples of each class, or its range if there are many classes."""
    values, numbers = np.unique(labels, return_counts=True)
    if len(values) > _MOST_CLASSES:
        return f"{len(values)} classes of {numbers.min():,} to {numbers.max():,} examples"
    each = ", ".join(
        f"{'no label' if value == -1 else value}: {n:,}"
        for value, n in zip(values, numbers, strict=True)
    )
    classes = np.count_nonzero(values >= 0)
    return f"{classes} class{'' if classes == 1 else 'es'} ({each})"
