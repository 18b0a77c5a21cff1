"""Tests run in float64 on eight virtual CPU devices, with compiled programs kept between runs."""

import os

import jax
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_num_cpu_devices", 8)
if not jax.config.jax_compilation_cache_dir:
    jax.config.update("jax_compilation_cache_dir", os.path.expanduser("~/.cache/rwp-jax/xla-tests"))


@pytest.fixture
def key():
    return jax.random.key(0)
