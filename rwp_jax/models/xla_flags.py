"""Flags of XLA's CPU backend, which have to be set before JAX computes."""

import importlib.util
import os

import jaxlib.version

_ACCELERATORS = ("libtpu", "jax_cuda12_plugin", "jax_cuda13_plugin", "jax_rocm7_plugin")


def is_set(flag: str) -> bool:
    """Returns whether XLA_FLAGS has the flag, with whatever value."""
    return flag in os.environ.get("XLA_FLAGS", "")


def set_for_cpus(flag: str, value: str) -> None:
    """Adds a flag to XLA_FLAGS, unless the user has set it there.

    XLA aborts on unknown flags, so nothing is changed for versions that are not known to have the package's
    flags and on machines with an accelerator's plugin.
    """
    accelerated = any(map(importlib.util.find_spec, _ACCELERATORS))
    known = (0, 10) <= jaxlib.version.__version_info__[:2] < (0, 13)
    if known and not accelerated and not is_set(flag):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}={value}"
