"""The README and the documentation name what exists: files, flags, configs, modules and public names."""

import importlib.util
import pathlib
import re

import pytest
from absl import flags

import rwp_jax
from rwp_jax.command_line import modes  # noqa: F401  (defines the flags)
from rwp_jax.command_line.config_file import load_config
from rwp_jax.configs import default
from rwp_jax.runs.config import flatten

ROOT = pathlib.Path(__file__).parents[1]
# The page of all keys is generated when the documentation is built.
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("[!c]*.md")]
KEYS = flatten(default.get_config().to_dict())


def commands(page: pathlib.Path) -> list[str]:
    """The lines of a page that call the program."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [
        line for line in "\n".join(blocks).splitlines() if re.search(r"main\.py|rwp-jax ", line)
    ]


def test_the_readme_is_one_page():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 1000


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_flags_and_configs(page):
    for line in commands(page):
        options = line.partition("main.py" if "main.py" in line else "rwp-jax ")[2].partition("#")[
            0
        ]
        for name in re.findall(r"(?<!\S)--([\w.]+)", options):
            section, _, key = name.partition("config.")
            known = key in KEYS if not section and key else name in flags.FLAGS
            assert known, f"--{name} in {line}"
        for config in re.findall(r"--config[ =](\S+)", options):
            if config != "FILE":
                load_config(config)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_and_modules(page):
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"\brwp_jax\.([A-Za-z_]\w*)", text):
        module = importlib.util.find_spec(f"rwp_jax.{name}")
        assert module or hasattr(rwp_jax, name), f"rwp_jax.{name}"
    for module in re.findall(r"python -m ((?:benchmarks|rwp_jax)[\w.]*)", text):
        assert importlib.util.find_spec(module.rstrip(".")), module
    for key in re.findall(r"`config\.(?!json)([\w.]+)[=`]", text):
        known = key in KEYS or any(other.startswith(key + ".") for other in KEYS)
        assert known, f"config.{key}"
