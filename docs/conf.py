"""Builds the documentation: `sphinx-build -W docs docs/_build`."""

import pathlib

from rwp_jax.command_line.help import key_comments
from rwp_jax.configs import default
from rwp_jax.runs.config import flatten
from rwp_jax.version import __version__

project = "rwp-jax"
author = copyright = "The rwp-jax authors"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 2
exclude_patterns = ["_build"]
html_theme = "furo"
autodoc_member_order = "bysource"
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_use_ivar = True  # attributes of NamedTuples have docstrings of tuple fields otherwise


def _default(value: object) -> str:
    """As a reader would type it: radii and step sizes in 255ths."""
    in_255ths = value * 255 if isinstance(value, float) and 0 < value < 0.05 else 0.5
    return f"{in_255ths:.0f}/255" if in_255ths == round(in_255ths) else repr(value)


def _row(key: str, value: object, about: str) -> str:
    about = about[:1].upper() + about[1:].replace("|", r"\|")
    return f"| `config.{key}` | `{_default(value)}` | {about} |"


def configuration() -> str:
    """The page of all keys, from the comments of configs/default.py."""
    values, sections = flatten(default.get_config().to_dict()), {}
    comments = key_comments()
    for key in filter(values.__contains__, comments):
        section = key.rpartition(".")[0]
        sections.setdefault(section, []).append(_row(key, values[key], comments[key]))
    lines = [
        "# Configuration",
        "Every key with its default, as in `configs/default.py`; on the command line `--config.KEY=VALUE`.",
    ]
    for section, rows in sections.items():
        about = comments.get(section, "")
        lines += [f"## config.{section}" if section else "## The run"]
        lines += [about[:1].upper() + about[1:] + "."] if about else []
        lines += ["\n".join(["| key | default | |", "| --- | --- | --- |", *rows])]
    return "\n\n".join(lines) + "\n"


pathlib.Path(__file__).with_name("configuration.md").write_text(configuration(), encoding="utf-8")
