"""Speeds up tests on tiny networks: nearly all of their time goes to compiling programs that run once."""

import os

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def few_optimizations():
    """Halves compile time, unless RWP_JAX_TEST_OPTIMIZED is set, as in one stage of .ci/run."""
    jax.config.update(
        "jax_disable_most_optimizations", not os.environ.get("RWP_JAX_TEST_OPTIMIZED")
    )
    yield
    jax.config.update("jax_disable_most_optimizations", False)
