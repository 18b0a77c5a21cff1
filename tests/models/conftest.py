import pytest


@pytest.fixture(autouse=True, scope="module")
def compile_fast(few_optimizations):
    """Leaves out most of XLA's optimisations in all files of this directory."""
