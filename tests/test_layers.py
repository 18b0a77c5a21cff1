"""Imports run downwards only, in the order that CONTRIBUTING.md shows."""

import ast
import pathlib

import rwp_jax

PACKAGE = pathlib.Path(rwp_jax.__file__).parent
# From the bottom up; modules on the same line do not import each other.
LAYERS = (
    ("errors", "losses", "version"),
    ("files", "names", "configs", "registry"),
    ("models", "data", "distributed"),
    ("attacks",),
    ("runs",),
    ("evaluation",),
    ("report",),
    ("training",),
    ("hardware", "importing"),
    ("pytorch",),
    ("explain", "inspection", "parity", "reproduce", "zoo"),
    ("command_line",),
)
HEIGHTS = {name: height for height, names in enumerate(LAYERS) for name in names}


def _imported(path: pathlib.Path) -> set[str]:
    """Returns the top-level modules and packages of rwp_jax that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "rwp_jax":
            found |= {f"rwp_jax.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    names = {name.split(".")[1] for name in found if name.startswith("rwp_jax.")}
    return names & HEIGHTS.keys()


def test_slow_tests_exist():
    tests = pathlib.Path(__file__).parent
    for line in (tests / "slow_tests.txt").read_text().splitlines():
        path, _, name = line.partition("::")
        wanted = f"def {name.partition('[')[0]}(" if name else "def test_"
        assert wanted in (tests / path).read_text(), line


def test_every_file_has_a_place():
    flat = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert flat | packages == HEIGHTS.keys()
    assert len(list(PACKAGE.glob("*.py"))) <= 8


def test_imports_run_downwards():
    for path in PACKAGE.rglob("*.py"):
        place = path.relative_to(PACKAGE).with_suffix("").parts[0]
        if place in HEIGHTS:
            others = _imported(path) - {place}
            assert all(HEIGHTS[other] < HEIGHTS[place] for other in others), (path, others)


def test_no_file_is_long():
    root = PACKAGE.parent
    for folder in ("rwp_jax", "configs", "tests", "benchmarks", "examples"):
        for path in (root / folder).rglob("*.py"):
            assert len(path.read_text().splitlines()) <= 300, path
