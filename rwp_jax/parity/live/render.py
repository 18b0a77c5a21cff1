"""Renders the comparison as text, Markdown and HTML from the same cells."""

from collections.abc import Iterable

from rwp_jax.parity.live.both_sides import Compared, QuantityRow, outside
from rwp_jax.parity.live.setting import IMAGES
from rwp_jax.parity.live.trace import QUANTITIES
from rwp_jax.report.page import Section
from rwp_jax.report.table import Table

COLUMNS = ("quantity", "upstream", "ours", "float64", "float32 by step", "upstream's own", "result")
FIGURES = range(1, 6)  # columns of figures, aligned to the right
WIDTHS = (18, 19, 19, 7)  # of the first columns in text; gate counts need 19
LEGEND = (
    "upstream, ours: float64, in the last step: the loss, the examples below c_min, or the L_2 norm.",
    "float64: largest relative error of any array after any step of attack, ascent and training.",
    "float32 by step: |ours - upstream| / |upstream| after each training step, both in float32.",
    "upstream's own: the same between upstream in float32 and in float64, which is its own rounding.",
    "Where float64 agrees, float32 shows rounding: small until a sign, ReLU or gate falls the other way.",
    "Below each table: float32 inside the first training step, after each step of attack and ascent.",
)


def _number(value: float) -> str:
    return f"{value:.0e}" if value else "0"


def _numbers(values: list[float]) -> str:
    return " ".join(_number(value) for value in values)


def _result(line: QuantityRow, compared: Compared) -> str:
    if compared.stopped:
        return "FAIL" if compared.failed else "-"
    return f"FAIL: {line.worst}" if outside(line, compared.tolerance) else "pass"


def cells(compared: Compared) -> list[tuple[str, ...]]:
    """Returns one tuple per line of the setting, in the order of COLUMNS."""
    return [
        (
            QUANTITIES[line.quantity],
            line.theirs or "-",
            line.ours or "-",
            "-" if compared.stopped else _number(line.error),
            _numbers(line.drift) or "-",
            _numbers(line.rounding) or "-",
            _result(line, compared),
        )
        for line in compared.lines
    ]


def heading(compared: Compared) -> str:
    steps = compared.setting.steps
    return f"{compared.setting.name}: {steps} step{'s'[: steps > 1]} of {IMAGES} images"


def stopped(compared: Compared) -> str:
    """Returns a note for a setting that the authors' code cannot run, "" for others."""
    return f"upstream stops: {compared.stopped}" if compared.stopped else ""


def growth(compared: Compared) -> list[str]:
    """Describes the float32 drift inside the first training step, with one line each for delta and v."""
    return [
        f"float32 in step 1, {QUANTITIES[quantity]} by step: {_numbers(values)}"
        for quantity, values in compared.growth.items()
    ]


def _text_line(line: tuple[str, ...], steps: int) -> str:
    widths = (*WIDTHS, *[max(6 * steps, len(COLUMNS[4]))] * 2)
    aligned = (
        cell.rjust(width) if i in FIGURES else cell.ljust(width)
        for i, (cell, width) in enumerate(zip(line, widths, strict=False))
    )
    return "  ".join((*aligned, line[-1])).rstrip()


def text_header(steps: int) -> str:
    """Returns the column names; `steps` is the largest number of training steps of any setting."""
    return _text_line(COLUMNS, steps)


def text(compared: Compared, steps: int) -> str:
    """Returns a setting's block under `text_header(steps)`."""
    lines = [heading(compared), *filter(None, [stopped(compared)])]
    lines += [_text_line(line, steps) for line in cells(compared)]
    return "\n".join(lines + growth(compared))


def markdown(results: Iterable[Compared], about: str) -> str:
    """Returns a document with a table for each setting."""
    row = lambda line: "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |"
    rule = row([("---:" if i in FIGURES else "---") for i in range(len(COLUMNS))])
    parts = [f"# Parity with upstream\n\n{about}\n\n" + "\n".join(f"- {line}" for line in LEGEND)]
    for compared in results:
        block = [f"## {heading(compared)}", ""]
        if compared.stopped:
            block += [f"`{stopped(compared)}`", ""]
        block += [row(COLUMNS), rule, *map(row, cells(compared))]
        parts.append("\n\n".join(["\n".join(block), *growth(compared)]))
    return "\n\n".join(parts) + "\n"


def sections(results: Iterable[Compared]) -> list[Section]:
    """Returns a section of a page for each setting."""
    return [
        Section(
            heading(compared),
            tables=[
                Table(stopped(compared), COLUMNS, cells(compared), "; ".join(growth(compared)))
            ],
        )
        for compared in results
    ]
