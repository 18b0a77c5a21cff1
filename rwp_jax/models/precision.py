"""Precision of matrix products, and float64, which commands enable and library code requires."""

import contextlib

import jax

from rwp_jax.errors import InputError

# For matrix products of float32 numbers, including convolutions. `default` is the device's fast mode (TF32
# on GPUs, one bfloat16 pass on TPUs) unless JAX_DEFAULT_MATMUL_PRECISION sets another; `high` is three
# bfloat16 passes on TPUs and the same as `default` on GPUs; `highest` is float32. CPUs always use float32.
PRECISIONS = ("default", "high", "highest")


def matmul_precision(precision: str):
    """Returns a context in which matrix products are traced with one of PRECISIONS."""
    if precision == "default":
        return contextlib.nullcontext()
    return jax.default_matmul_precision(precision)


def enable_x64_for(*dtypes: str) -> None:
    """Enables jax_enable_x64, for the whole process, if one of the dtypes is float64."""
    if "float64" in dtypes:
        jax.config.update("jax_enable_x64", True)


def require_x64(what: str) -> None:
    """Raises InputError if jax_enable_x64 is off; `what` names the setting that needs it."""
    if not jax.config.read("jax_enable_x64"):
        raise InputError(
            f"{what} needs JAX_ENABLE_X64=1, or jax.config.update('jax_enable_x64', True) before any "
            "array is created"
        )
