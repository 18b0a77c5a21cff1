"""Compares computed with recorded arrays and formats the results as a table."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from rwp_jax.errors import InputError, first_line

INPUT_ARRAYS = re.compile(r"[xy]\d*")  # a case's images and labels


class Row(NamedTuple):
    """One line of the table; `error` is the largest over the arrays, NaN if none was compared."""

    case: str
    arrays: int
    error: float
    tolerance: float
    verdict: str

    @property
    def failed(self) -> bool:
        return self.verdict.startswith("FAIL")


def relative_error(ours, theirs) -> float:
    """Returns max |ours - theirs| / max |theirs|; absolute if theirs is all zero, inf if shapes differ."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if ours.shape != theirs.shape:
        return float("inf")
    if theirs.size == 0:
        return 0.0
    error, scale = np.abs(ours - theirs).max(), np.abs(theirs).max()
    # NaN on our side must count as a difference.
    return float(np.nan_to_num(error / scale if scale > 0 else error, nan=np.inf))


def compare(case: str, ours: Mapping, recorded: Mapping, tolerance: float) -> Row:
    """Compares every recorded array except the inputs; a missing computed array is a failure."""
    wanted = [name for name in recorded if not INPUT_ARRAYS.fullmatch(name)]
    missing = [name for name in wanted if name not in ours]
    errors = {name: relative_error(ours[name], recorded[name]) for name in wanted if name in ours}
    worst = max(errors, key=errors.get, default=None)
    error = errors[worst] if worst else float("nan")
    if missing:
        verdict = f"FAIL: nothing computed for {missing[0]}"
    elif not errors:
        verdict = "FAIL: no array to compare"
    else:
        verdict = "pass" if error <= tolerance else f"FAIL: {worst}"
    return Row(case, len(errors), error, tolerance, verdict)


def guarded(case: str, tolerance: float, run: Callable[[], Row]) -> Row:
    """Runs a case; an exception becomes the verdict of its row, so that the other cases still run."""
    try:
        return run()
    except InputError as error:
        why = str(error)
    except KeyError as error:
        why = f"the case lacks {error}"
    except Exception as error:  # for example arrays that fit no network
        why = f"{type(error).__name__} {first_line(error)}"
    return Row(case, 0, float("nan"), tolerance, f"FAIL: {why}")


def table(rows: Iterable[Row]) -> str:
    """Formats the rows as aligned text, with errors in scientific notation."""
    cells = [("case", "arrays", "largest relative error", "tolerance", "result")]
    for row in rows:
        figures = (str(row.arrays), f"{row.error:.1e}", f"{row.tolerance:.0e}")
        cells.append((row.case, *(figures if row.arrays else ("-", "-", "-")), row.verdict))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(format_line(line, widths) for line in cells)


def format_line(cells, widths) -> str:
    """Aligns names and results to the left, figures to the right."""
    first, *figures, last = cells
    return "  ".join(
        [first.ljust(widths[0])]
        + [figure.rjust(w) for figure, w in zip(figures, widths[1:-1], strict=True)]
        + [last]
    ).rstrip()
