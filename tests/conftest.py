"""Tests run in float64 on eight virtual CPU devices, with compiled programs kept between runs.

Most of their time is XLA's, for programs that run once. They are compiled without its optimisations, unless
RWP_JAX_TEST_OPTIMIZED is set.
"""

import os
import pathlib

import jax
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_num_cpu_devices", 8)
if not os.environ.get("RWP_JAX_TEST_OPTIMIZED"):
    # In the environment, for the processes that tests start.
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    jax.config.update("jax_disable_most_optimizations", True)
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false"
if not jax.config.jax_compilation_cache_dir:
    jax.config.update("jax_compilation_cache_dir", os.path.expanduser("~/.cache/rwp-jax/xla-tests"))


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture(autouse=True, scope="module")
def few_memory_mappings():
    """Drops compiled programs before their memory mappings are too many.

    Linux allows a process 65,530; XLA crashes without one for a program that it loads.
    """
    yield
    mappings = pathlib.Path("/proc/self/maps")
    if mappings.exists() and mappings.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()
