"""Programs in which CPU devices communicate stay out of JAX's persistent cache."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental.compilation_cache import compilation_cache

from rwp_jax.distributed import devices, uncached


@pytest.fixture
def cache(tmp_path):
    """An empty cache that takes every program."""
    settings = {
        "jax_compilation_cache_dir": str(tmp_path),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield lambda: [path for path in tmp_path.iterdir() if path.name.endswith("-cache")]
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.mark.parametrize("mode", devices.MODES)
def test_programs_with_collectives_are_not_cached(cache, mode):
    total = lambda x: lax.psum(jnp.sum(x), devices.AXIS)
    mapped = devices.data_parallel(total, (True,), mode)
    images = np.arange(16.0)
    totals = [mapped(images), mapped(images + 1)]
    assert jax.device_count() == 8 and not cache()
    assert totals == [120, 136]


def test_other_programs_are_cached(cache):
    images = np.arange(16.0)
    np.testing.assert_array_equal(
        devices.over_examples(lambda x: x + 1, (True,))(images), images + 1
    )
    assert cache()


@pytest.mark.parametrize("enabled", [True, False])
def test_the_setting_is_restored(enabled):
    try:
        jax.config.update("jax_enable_compilation_cache", enabled)
        with pytest.raises(KeyError), uncached.uncached():
            assert not jax.config.jax_enable_compilation_cache
            raise KeyError
        assert jax.config.jax_enable_compilation_cache == enabled
    finally:
        jax.config.update("jax_enable_compilation_cache", True)


def test_one_device_is_no_reason():
    assert uncached.needed(devices.mesh_of(jax.devices()))
    assert not uncached.needed(devices.mesh_of(jax.devices()[:1]))
