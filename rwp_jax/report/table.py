"""A table as data, printed to a terminal, to CSV or (by `page`) to HTML."""

import csv
import io
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rwp_jax.atomic import write_text

MISSING = "–"


class Table(NamedTuple):
    """A table of text.

    Attributes:
      title: what it shows.
      header: names of the columns.
      rows: cells; the first column names the row, the others are figures.
      note: what a reader must know to read the figures.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def as_text(table: Table) -> str:
    """The table with aligned columns, names to the left and figures to the right."""
    widths = [max(map(len, column)) for column in zip(table.header, *table.rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (table.header, *table.rows)
    )


def _numbers(name: str, cells: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """A column of the table as columns of one number a cell: a deviation has its own, and so have both
    sides of `best / last`; what is missing is empty."""
    head, comma, last = name.rpartition(", ")
    names = last.split(" / ")
    both = [cell.split(" / ") if len(names) > 1 else [cell] for cell in cells]
    for i, part in enumerate(names):
        sides = ["" if len(sides) <= i or sides[i] == MISSING else sides[i] for sides in both]
        yield (head + comma + part, *(side.partition("±")[0] for side in sides))
        if any("±" in side for side in sides):
            yield (f"{head}{comma}{part}, std", *(side.partition("±")[2] for side in sides))


def write_csv(table: Table, path: pathlib.Path) -> None:
    """Writes the table with one number a cell."""
    names, *figures = zip(table.header, *table.rows, strict=True)
    columns = [names, *(column for f in figures for column in _numbers(f[0], f[1:]))]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(zip(*columns, strict=True))
    write_text(path, text.getvalue())
