import re

from PIL import Image

from rwp_jax.report.page import Picture, Section, write_page
from rwp_jax.report.table import Table


def test_everything_is_inside_and_escaped(tmp_path):
    picture = tmp_path / "picture.png"
    Image.new("RGB", (2, 2)).save(picture)
    table = Table("figures", ["run", "<b>"], [["a & b", "1.00±0.10"]], "a note")
    path = tmp_path / "report.html"
    section = Section("Results", [Picture(picture, "A caption.")], [table], ["A <finding>."])
    write_page(path, "Title <1>", ["About."], [section])
    page = path.read_text()
    assert "<figcaption>A caption.</figcaption>" in page and "<p>A &lt;finding&gt;.</p>" in page
    assert "Title &lt;1&gt;" in page and "&lt;b&gt;" in page and "a &amp; b" in page
    assert "1.00±0.10" in page and "a note" in page
    sources = re.findall(r'(?:src|href|url)\s*[=(]\s*"?([^"\s>)]*)', page)
    assert sources and all(source.startswith("data:image/png;base64,") for source in sources)
    assert "http" not in page and "<script" not in page


def test_wide_tables_are_smaller_and_notes_stay_with_their_tables(tmp_path):
    cells = ["36.56 [35.26, 37.86]"] * 9
    tables = [
        Table("", [str(i) for i in range(1 + count)], [["[a, b] − [c]", *cells, *more]], "a note")
        for count, more in ((9, []), (11, ["–", "5 of 5"]))
    ]
    write_page(tmp_path / "report.html", "title", [], [Section("s", tables=tables)])
    page = (tmp_path / "report.html").read_text()
    assert page.count("<table>") == page.count('<table class="wide">') == 1
    assert page.count("<td>36.56 <span>[35.26, 37.86]</span></td>") == 18
    assert page.count("<td>[a, b] − [c]</td>") == 2 and "<td>5 of 5</td>" in page
    assert page.count('</table></div>\n<p class="note">a note</p>\n</div>') == 2
    assert "break-inside: avoid" in page and ".note { break-before: avoid" in page
