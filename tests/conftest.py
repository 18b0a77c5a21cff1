"""Runs tests in float64 on eight virtual CPU devices and caches compiled programs between runs.

The tests and files of tests in slow_tests.txt are marked `slow`: the default run leaves them out, so that
it takes minutes on two cores from an empty cache. `.ci/run` runs them.
"""

import os
import pathlib

import jax
import pytest

from rwp_jax.evaluation import columns

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_num_cpu_devices", 8)
if not jax.config.jax_compilation_cache_dir:
    jax.config.update("jax_compilation_cache_dir", os.path.expanduser("~/.cache/rwp-jax/xla-tests"))


SLOW_TESTS = pathlib.Path(__file__).with_name("slow_tests.txt")


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items):
    slow = set(SLOW_TESTS.read_text().splitlines())
    for item in items:
        name = item.nodeid.removeprefix("tests/")
        if slow & {name, name.partition("[")[0], name.partition("::")[0]}:
            item.add_marker("slow")


@pytest.fixture(scope="module")
def one_device():
    """Hides all devices but the first, for tests whose subject does not depend on the number of devices.

    Training steps of several CPU devices are compiled anew in each process (rwp_jax.distributed.uncached),
    those of one device are cached.
    """
    first = jax.devices()[:1]
    columns._program.cache_clear()  # its programs are for all devices
    replaced = {
        "devices": first,
        "local_devices": first,
        "device_count": 1,
        "local_device_count": 1,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in replaced.items():
            patch.setattr(jax, name, lambda *_, value=value: value)
        yield
    columns._program.cache_clear()


@pytest.fixture(scope="module")
def few_optimizations():
    """Halves the time to compile, for tests of tiny networks whose programs run once.

    RWP_JAX_TEST_OPTIMIZED=1 switches it off, as in one stage of .ci/run.
    """
    jax.config.update(
        "jax_disable_most_optimizations", not os.environ.get("RWP_JAX_TEST_OPTIMIZED")
    )
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture(autouse=True, scope="module")
def compilation_cache():
    """Switches JAX's cache on again, which `--mode plan` switches off for its process."""
    yield
    jax.config.update("jax_enable_compilation_cache", True)


@pytest.fixture(autouse=True, scope="module")
def few_memory_mappings():
    """Drops compiled programs before the process runs out of memory mappings.

    Linux allows 65,530 per process; XLA crashes if it cannot map a program that it loads.
    """
    yield
    mappings = pathlib.Path("/proc/self/maps")
    if mappings.exists() and mappings.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()


@pytest.fixture(params=["cpu", "cuda"])
def programs_for(request, monkeypatch):
    """Runs a test twice, the second time with the branches of the program that are for GPUs, on the CPU."""

    def chosen(*operands, default=None, **branches):
        return branches.get(request.param, default)(*operands)

    monkeypatch.setattr(jax.lax, "platform_dependent", chosen)
    return request.param
