"""Learning curves that others published, from a CSV file, to draw beside one's own."""

import csv
import pathlib
from typing import NamedTuple

from rwp_jax.errors import InputError
from rwp_jax.names import matches, spelled

_NAMED = ("source", "dataset", "norm", "model", "method")
_FIGURES = ("epoch", "test_acc", "test_robust_acc")


class PublishedCurve(NamedTuple):
    """One run of others.

    Attributes:
      name: SOURCE-DATASET-NORM-MODEL-METHOD.
      dataset: as `config.data.name` has it, but svhn.
      norm: `l_inf` or `l_2`.
      epochs: from 1.
      natural: test accuracies in [0, 1], one an epoch.
      robust: the same under the publishers' PGD.
    """

    name: str
    dataset: str
    norm: str
    epochs: list[int]
    natural: list[float]
    robust: list[float]


def read_published(path: pathlib.Path) -> list[PublishedCurve]:
    """Reads a CSV file with a row an epoch.

    Args:
      path: of the file, with the columns source, dataset, norm (in any spelling), model and method, which
        name the run, epoch (from 0), test_acc and test_robust_acc (in [0, 1]); others are ignored.

    Raises:
      InputError: where it cannot be read, lacks columns or holds no epochs and accuracies in them.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            header, rows = reader.fieldnames or [], list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no CSV file"
        raise InputError(f"curves={path} cannot be read: {why}") from None
    missing = [name for name in (*_NAMED, *_FIGURES) if name not in header]
    if missing:
        raise InputError(
            f"curves={path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}; needed are "
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
            natural, robust = float(row["test_acc"]), float(row["test_robust_acc"])
            if epoch < 0 or not 0 <= natural <= 1 or not 0 <= robust <= 1:
                raise ValueError
            if epoch + 1 in curve.epochs[-1:]:
                raise ValueError
        except (TypeError, ValueError):
            raise InputError(
                f"curves={path}, line {number}: epoch must be a number from 0, once in a run, test_acc "
                "and test_robust_acc accuracies in [0, 1]"
            ) from None
        for column, value in zip(curve[3:], (epoch + 1, natural, robust), strict=True):
            column.append(value)
    return [_sorted(curve) for curve in curves.values()]


def _sorted(curve: PublishedCurve) -> PublishedCurve:
    """The curve in the order of epochs."""
    points = sorted(zip(*curve[3:], strict=True))
    return PublishedCurve(*curve[:3], *map(list, zip(*points, strict=True)))


def choose_published(
    curves: list[PublishedCurve], patterns: str, threats: set[tuple[str, str]]
) -> list[PublishedCurve]:
    """Those to draw.

    Args:
      curves: all there are.
      patterns: shell patterns of their names, comma-separated; empty for those of the runs' threats.
      threats: (config.data.name, config.threat.norm) of the runs that they are drawn beside.

    Raises:
      InputError: where patterns were given and none fits.
    """
    if not patterns:
        wanted = {(name.removesuffix("_cropped"), spelled(norm)) for name, norm in threats}
        return [curve for curve in curves if (curve.dataset, curve.norm) in wanted]
    chosen = [curve for curve in curves if matches(curve.name, patterns)]
    if not chosen:
        there = ", ".join(curve.name for curve in curves) or "none"
        raise InputError(f"only={patterns}: no published curve of that name; there are {there}")
    return chosen
