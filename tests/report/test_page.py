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
