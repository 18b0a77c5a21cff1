"""Flags of XLA's CPU backend, which have to be set before JAX computes."""

import importlib.util
import os

import jaxlib.version

_ACCELERATORS = ("libtpu", "jax_cuda12_plugin", "jax_cuda13_plugin", "jax_rocm7_plugin")


def value(flag: str) -> str | None:
    """Returns the value that a flag has in XLA_FLAGS, "true" if it has none, None for other flags."""
    parts = [part.partition("=") for part in os.environ.get("XLA_FLAGS", "").split()]
    settings = [setting if equals else "true" for name, equals, setting in parts if name == flag]
    return settings[-1] if settings else None


def has_accelerator_plugin() -> bool:
    """Returns whether a plugin for GPUs or TPUs is installed, with a device or without."""
    return any(map(importlib.util.find_spec, _ACCELERATORS))


def set_for_cpus(flag: str, setting: str) -> None:
    """Adds a flag to XLA_FLAGS, unless the user has set it there or XLA_FLAGS names a file of flags.

    XLA aborts on unknown flags, so nothing is changed for versions that are not known to have the package's
    flags and on machines with an accelerator's plugin.
    """
    given = os.environ.get("XLA_FLAGS", "")
    is_file = given.strip() and not given.lstrip().startswith("-")
    known = (0, 10) <= jaxlib.version.__version_info__[:2] < (0, 13)
    if known and not has_accelerator_plugin() and not is_file and value(flag) is None:
        os.environ["XLA_FLAGS"] = f"{given} {flag}={setting}"
