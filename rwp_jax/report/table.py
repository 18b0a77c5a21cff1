"""A table as data, which is written as text, as CSV or (by `page`) as HTML."""

import csv
import io
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rwp_jax.files import write_text

MISSING = "–"


class Table(NamedTuple):
    """A table of text.

    Attributes:
      title: title of the table.
      header: names of the columns.
      rows: cells; the first column names the row, the others are figures.
      note: explanation of the figures.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def as_text(table: Table) -> str:
    """Formats the table with aligned columns, names to the left and figures to the right."""
    widths = [max(map(len, column)) for column in zip(table.header, *table.rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (table.header, *table.rows)
    )


# Matches 58.55, 58.55±0.50 (as in the paper) and 58.55 [57.93, 59.17] (with an interval).
_FIGURE = re.compile(
    r"(?P<figure>[-+−]?[\d.]+)(?:±(?P<std>[\d.]+))?(?: \[(?P<low>\S+), (?P<high>\S+)\])?"
)


def _numbers(name: str, cells: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Splits a column into columns with one number per cell: figure, deviation and ends of the interval.

    Missing values are empty, and cells that are not figures stay unchanged.
    """
    matches = [_FIGURE.fullmatch(cell) for cell in cells]
    ascii_minus = lambda number: number.replace("−", "-")
    figure = lambda cell, match: ascii_minus(match["figure"]) if match else cell
    pairs = list(zip(cells, matches, strict=True))
    yield (name, *("" if cell == MISSING else figure(cell, match) for cell, match in pairs))
    for part in ("std", "low", "high"):
        if any(match and match[part] for match in matches):
            numbers = ((match and match[part]) or "" for match in matches)
            yield (f"{name}, {part}", *map(ascii_minus, numbers))


def write_csv(table: Table, path: pathlib.Path) -> None:
    """Writes the table with one number per cell."""
    names, *figures = zip(table.header, *table.rows, strict=True)
    columns = [names, *(column for f in figures for column in _numbers(f[0], f[1:]))]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(zip(*columns, strict=True))
    write_text(path, text.getvalue())
