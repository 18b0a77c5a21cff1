"""Keeps programs in which CPU devices communicate out of JAX's persistent compilation cache.

XLA's CPU backend runs independent operations at the same time and orders collectives by a resource that all
of a program share. In a program that is read from the cache (jaxlib 0.10.2), collectives that do not belong
together meet all the same: training on eight devices crashes, and wrong sums cannot be ruled out. Programs
compiled in the process are not affected.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import Mesh


def needed(mesh: Mesh) -> bool:
    """Returns whether programs with collectives over this mesh are compiled outside the cache."""
    return mesh.size > 1 and mesh.devices.flat[0].platform == "cpu"


@contextlib.contextmanager
def uncached() -> Iterator[None]:
    """Neither reads nor writes the persistent cache within the block; takes about a microsecond."""
    config: Any = jax.config
    if not (config.jax_enable_compilation_cache and config.jax_compilation_cache_dir):
        yield
        return
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # JAX decides once whether it uses a cache
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
        compilation_cache.reset_cache()
