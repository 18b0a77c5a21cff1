"""The comparison as text, Markdown and HTML, all from the same cells."""

import html
from collections.abc import Iterable

from rwp_jax.parity.live.comparison import Compared, Line, outside
from rwp_jax.parity.live.setting import IMAGES
from rwp_jax.parity.live.trace import QUANTITIES

COLUMNS = ("quantity", "upstream", "ours", "float64", "float32 by step", "upstream's own", "result")
FIGURES = range(1, 6)  # columns of figures, to the right
WIDTHS = (18, 19, 19, 7)  # of the first columns in text; counts of a gate need 19
LEGEND = (
    "upstream, ours: float64, in the last step: the loss, the examples below c_min, or the L_2 norm.",
    "float64: largest relative error of any array, after any step of attack, ascent and training.",
    "float32 by step: |ours - upstream| / |upstream| after each training step, both in float32.",
    "upstream's own: the same of upstream in float32 and upstream in float64, which is its own rounding.",
    "Where float64 agrees, float32 shows rounding: small until a sign, ReLU or gate falls the other way.",
    "Below each table: float32 inside the first training step, after each step of attack and ascent.",
)


def _number(value: float) -> str:
    return f"{value:.0e}" if value else "0"


def _numbers(values: list[float]) -> str:
    return " ".join(_number(value) for value in values)


def _result(line: Line, compared: Compared) -> str:
    if compared.stopped:
        return "FAIL" if compared.failed else "-"
    return f"FAIL: {line.worst}" if outside(line, compared.tolerance) else "pass"


def cells(compared: Compared) -> list[tuple[str, ...]]:
    """One tuple a line of the setting, in the order of COLUMNS."""
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
    """What is said of a setting that the authors' code cannot run, "" of others."""
    return f"upstream stops: {compared.stopped}" if compared.stopped else ""


def growth(compared: Compared) -> list[str]:
    """How float32 drifts apart inside the first training step, a line for each of delta and v."""
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
    """The columns' names; `steps`: the most training steps of any setting."""
    return _text_line(COLUMNS, steps)


def text(compared: Compared, steps: int) -> str:
    """A setting's block under `text_header(steps)`."""
    lines = [heading(compared), *filter(None, [stopped(compared)])]
    lines += [_text_line(line, steps) for line in cells(compared)]
    return "\n".join(lines + growth(compared))


def markdown(results: Iterable[Compared], about: str) -> str:
    """A document with a table for each setting."""
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


STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; color: #222; background: #fff; margin: 2em auto;
  max-width: 72em; padding: 0 1em; }
h2 { font-size: 1.05em; margin: 1.6em 0 .3em; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .15em .6em; border-bottom: 1px solid #ddd; text-align: left; white-space: nowrap; }
th.figure, td.figure { text-align: right; }
.fail { color: #b00020; font-weight: bold; }
@media print { body { margin: 0; max-width: none; font-size: 9px; } section { break-inside: avoid; } }
"""


def as_html(results: Iterable[Compared], about: str) -> str:
    """A self-contained page with a table for each setting."""

    def row(line, tag):
        def cell(i, value):
            kind = "figure" if i in FIGURES else "fail" if value.startswith("FAIL") else ""
            opening = f'<{tag} class="{kind}">' if kind else f"<{tag}>"
            return f"{opening}{html.escape(value)}</{tag}>"

        return "<tr>" + "".join(cell(i, value) for i, value in enumerate(line)) + "</tr>"

    sections = [
        "\n".join(
            [
                f"<section><h2>{html.escape(heading(compared))}</h2>",
                f"<p>{html.escape(stopped(compared))}</p>" if compared.stopped else "",
                f"<table><thead>{row(COLUMNS, 'th')}</thead><tbody>",
                *(row(line, "td") for line in cells(compared)),
                "</tbody></table>",
                *(f"<p>{html.escape(line)}</p>" for line in growth(compared)),
                "</section>",
            ]
        )
        for compared in results
    ]
    legend = "".join(f"<li>{html.escape(line)}</li>" for line in LEGEND)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Parity with upstream</title>'
        f"<style>{STYLE}</style></head>\n<body><h1>Parity with upstream</h1><p>{html.escape(about)}</p>"
        f"<ul>{legend}</ul>\n" + "\n".join(sections) + "\n</body></html>\n"
    )
