"""Writes a report as one self-contained HTML file."""

import base64
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import jinja2

from rwp_jax.files import write_text
from rwp_jax.report.table import Table
from rwp_jax.version import described

PAGE = "report.html"
_MOST = 10  # columns of a table in the usual font size; more would exceed the page width

_TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
  :root { color-scheme: light; }
  body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff;
         max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }
  h1 { font-size: 1.5rem; margin-bottom: .2rem; }
  h2 { font-size: 1.1rem; margin: 2.2rem 0 .4rem; }
  p { max-width: 48rem; margin: .3rem 0; }
  .note { color: #555; font-size: .9rem; }
  .scroll { overflow-x: auto; }
  table { border-collapse: collapse; margin: .6rem 0; font-size: .8rem; line-height: 1.35;
          font-variant-numeric: tabular-nums; }
  .wide { font-size: .72rem; }
  .wide th, .wide td { padding: .2rem .3rem; }
  .wide td span { display: block; font-size: .92em; }
  caption { text-align: left; font-weight: 600; padding-bottom: .3rem; }
  th, td { padding: .2rem .4rem; text-align: right; vertical-align: bottom;
           border-bottom: 1px solid #e2e2e2; }
  th:first-child, td:first-child { text-align: left; padding-left: 0; min-width: 10.5em;
                                   overflow-wrap: anywhere; }
  td span { white-space: nowrap; }
  thead th { border-bottom: 2px solid #888; }
  figure { margin: .6rem 0; max-width: 30rem; break-inside: avoid; }
  img { max-width: 100%; height: auto; display: block; }
  figcaption { color: #555; font-size: .9rem; }
  @page { margin: 12mm; }
  @media print { body { margin: 0; padding: 0; max-width: none; font-size: 10pt; }
                 h1, h2, caption { break-after: avoid; } p { orphans: 3; widows: 3; }
                 figure { max-width: 11cm; } tr, .table { break-inside: avoid; }
                 .scroll { overflow: visible; } .note { break-before: avoid; font-size: 9pt; }
                 table { font-size: 6.5pt; } th, td { padding: .1rem .2rem; }
                 .wide { font-size: 6pt; } .wide th, .wide td { padding: .1rem .15rem; }
                 .wide td:first-child { min-width: 6em; } .wide td span { white-space: normal; } }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<p class="note">rwp-jax {{ version }}</p>
{% for paragraph in introduction %}<p>{{ paragraph }}</p>
{% endfor %}
{% for section in sections %}<section>
{% if section.heading != title %}<h2>{{ section.heading }}</h2>
{% endif %}{% for picture in section.pictures -%}
<figure><img alt="{{ section.heading }}" src="data:image/png;base64,{{ encoded(picture.path) }}">
<figcaption>{{ picture.caption }}</figcaption></figure>
{% endfor %}
{% for paragraph in section.findings %}<p>{{ paragraph }}</p>
{% endfor %}{% for table in section.tables %}<div class="table"><div class="scroll">
<table{% if table.header | length > most %} class="wide"{% endif %}>
{% if table.title %}<caption>{{ table.title }}</caption>
{% endif -%}
<thead><tr>{% for cell in table.header %}<th scope="col">{{ cell }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in table.rows %}<tr><td>{{ row[0] }}</td>
{%- for figure, interval in row[1:] | map("parted") -%}
<td>{{ figure }}{% if interval %} <span>{{ interval }}</span>{% endif %}</td>{% endfor %}</tr>
{% endfor %}</tbody>
</table></div>
{% if table.note %}<p class="note">{{ table.note }}</p>
{% endif %}</div>
{% endfor %}
</section>
{% endfor %}
</body>
</html>
"""


class Picture(NamedTuple):
    """A PNG file and its caption."""

    path: pathlib.Path
    caption: str


class Section(NamedTuple):
    """A heading, not shown if equal to the page's title, with pictures, sentences and tables below it."""

    heading: str
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    findings: Sequence[str] = ()


def _parted(cell: str) -> tuple[str, str]:
    """Splits a cell into a figure and its interval, as in 58.55 and [57.93, 59.17]."""
    figure, bracket, rest = cell.partition(" [")
    return figure, f"[{rest}" if bracket else ""


def write_page(
    path: pathlib.Path, title: str, introduction: Sequence[str], sections: Sequence[Section]
) -> None:
    """Writes the page with its pictures embedded."""
    environment = jinja2.Environment(autoescape=True)
    environment.filters["parted"] = _parted
    template = environment.from_string(_TEMPLATE)
    page = template.render(
        title=title,
        introduction=introduction,
        sections=sections,
        version=described(),
        most=_MOST,
        encoded=lambda picture: base64.b64encode(picture.read_bytes()).decode(),
    )
    write_text(path, page)
