"""Reads published learning curves from a CSV file, to draw them next to the runs' own."""

import csv
import pathlib
from typing import NamedTuple

from rwp_jax.errors import InputError
from rwp_jax.names import matches, spelled

_NAMED = ("source", "dataset", "norm", "model", "method")
_FIGURES = ("epoch", "test_acc", "test_robust_acc")


class PublishedCurve(NamedTuple):
    """One published run.

    Attributes:
      name: SOURCE-DATASET-NORM-MODEL-METHOD.
      dataset: data set as in `config.data.name`, except that svhn_cropped is svhn.
      norm: `l_inf` or `l_2`.
      epochs: from 1.
      natural: test accuracies in [0, 1], one per epoch.
      robust: test accuracies under the publishers' PGD, in [0, 1].
    """

    name: str
    dataset: str
    norm: str
    epochs: list[int]
    natural: list[float]
    robust: list[float]


def read_published(path: pathlib.Path) -> list[PublishedCurve]:
    """Reads a CSV file with one row per epoch.

    Args:
      path: file, separated by commas or semicolons, with the columns source, dataset, norm (in any
        spelling), model and method, which identify the run, epoch (from 0), test_acc and test_robust_acc
        (in [0, 1]); other columns are ignored.

    Raises:
      InputError: if the file cannot be read, lacks columns or rows, or has invalid epochs or accuracies.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            # Spreadsheets of some languages write semicolons between numbers with a decimal comma.
            semicolons = first.count(";") > first.count(",")
            reader = csv.DictReader(file, delimiter=";" if semicolons else ",")
            header, rows = reader.fieldnames or [], list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not a CSV file"
        raise InputError(f"curves={path} cannot be read: {why}") from None
    missing = [name for name in (*_NAMED, *_FIGURES) if name not in header]
    if missing:
        raise InputError(
            f"curves={path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}; required are "
            f"{', '.join((*_NAMED, *_FIGURES))}"
        )
    if not rows:
        raise InputError(f"curves={path} has no rows below its header")
    curves: dict[str, PublishedCurve] = {}
    for number, row in enumerate(rows, 2):
        name = "-".join(str(row[key]) for key in _NAMED)
        empty = PublishedCurve(name, row["dataset"], spelled(row["norm"]), [], [], [])
        curve = curves.setdefault(name, empty)
        try:
            epoch = int(row["epoch"])
            natural, robust = (
                float(row[name].replace(",", ".") if semicolons else row[name])
                for name in ("test_acc", "test_robust_acc")
            )
            if epoch < 0 or not 0 <= natural <= 1 or not 0 <= robust <= 1:
                raise ValueError
            if epoch + 1 in curve.epochs[-1:]:
                raise ValueError
        except (AttributeError, TypeError, ValueError):
            raise InputError(
                f"curves={path}, line {number}: epoch must be an integer from 0, once in a run, and "
                "test_acc and test_robust_acc must be in [0, 1]"
            ) from None
        for column, value in zip(curve[3:], (epoch + 1, natural, robust), strict=True):
            column.append(value)
    return [_sorted(curve) for curve in curves.values()]


def _sorted(curve: PublishedCurve) -> PublishedCurve:
    """Returns the curve sorted by epoch."""
    points = sorted(zip(*curve[3:], strict=True))
    return PublishedCurve(*curve[:3], *map(list, zip(*points, strict=True)))


def choose_published(
    curves: list[PublishedCurve], patterns: str, threats: set[tuple[str, str]]
) -> list[PublishedCurve]:
    """Selects the published curves to draw.

    Args:
      curves: all published curves.
      patterns: comma-separated shell patterns of names; empty to select by `threats`.
      threats: (config.data.name, config.threat.norm) of the runs that the curves are compared with.

    Raises:
      InputError: if patterns are given and no curve matches.
    """
    if not patterns:
        wanted = {(name.removesuffix("_cropped"), spelled(norm)) for name, norm in threats}
        return [curve for curve in curves if (curve.dataset, curve.norm) in wanted]
    chosen = [curve for curve in curves if matches(curve.name, patterns)]
    if not chosen:
        there = ", ".join(curve.name for curve in curves) or "none"
        raise InputError(f"only={patterns}: no published curve matches; there are {there}")
    return chosen
