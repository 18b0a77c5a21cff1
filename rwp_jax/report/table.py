"""A table as data, printed to a terminal, to CSV or (by `page`) to HTML."""

import csv
import io
import pathlib
from collections.abc import Sequence
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


def write_csv(table: Table, path: pathlib.Path) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([table.header, *table.rows])
    write_text(path, text.getvalue())
