"""Collectives of CPU devices, which XLA's CPU backend may mix up in programs of a persistent cache.

It runs independent operations of a program at the same time. In a program that is loaded from JAX's
persistent cache, collectives that do not belong together then meet: with jaxlib 0.10.2, training with
CutMix on eight devices crashes, and wrong sums cannot be ruled out. Programs that were compiled in the
process are not affected, nor are those whose operations run one after the other.
"""

import warnings
from typing import Any

import jax

from rwp_jax.errors import RunWarning
from rwp_jax.models import xla_flags

CONCURRENT = "--xla_cpu_enable_concurrency_optimized_scheduler"


def keep_in_order() -> None:
    """Runs operations one after the other if there are several CPU devices; call it before JAX computes."""
    config: Any = jax.config
    several = config.jax_num_cpu_devices > 1 or jax.distributed.is_initialized()
    if several or xla_flags.value("--xla_force_host_platform_device_count"):
        xla_flags.set_for_cpus(CONCURRENT, "false")


def warn_of_cache() -> None:
    """Warns if collectives may be mixed up: on several CPU devices with JAX's persistent cache."""
    config: Any = jax.config
    cached = config.jax_enable_compilation_cache and config.jax_compilation_cache_dir
    several_cpus = jax.default_backend() == "cpu" and jax.device_count() > 1
    if cached and several_cpus and xla_flags.value(CONCURRENT) not in ("false", "0"):
        warnings.warn(
            "on several CPU devices, programs of JAX's persistent cache may crash or add up wrong "
            f"numbers: set XLA_FLAGS={CONCURRENT}=false, or no jax_compilation_cache_dir",
            RunWarning,
            stacklevel=3,
        )
