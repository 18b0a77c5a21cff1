"""Precision: of matrix products; and float64, which commands switch on and library code asks for."""

import contextlib

import jax

from rwp_jax.errors import InputError

# Of matrix products of float32 numbers, convolutions included. `default` is the device's fast mode (TF32
# on GPUs, one pass of bfloat16 on TPUs) unless JAX_DEFAULT_MATMUL_PRECISION chooses another; `high` is
# three passes of bfloat16 on TPUs and as `default` on GPUs; `highest` is float32's. On CPUs all are.
PRECISIONS = ("default", "high", "highest")


def matmul_precision(precision: str):
    """A context in which functions are traced with matrix products of one of PRECISIONS."""
    if precision == "default":
        return contextlib.nullcontext()
    return jax.default_matmul_precision(precision)


def enable_x64_for(*dtypes: str) -> None:
    """Switches jax_enable_x64 on, for the whole process, where one of the dtypes is float64."""
    if "float64" in dtypes:
        jax.config.update("jax_enable_x64", True)


def require_x64(what: str) -> None:
    """Raises InputError where jax_enable_x64 is off; `what` needs it."""
    if not jax.config.read("jax_enable_x64"):
        raise InputError(
            f"{what} needs JAX_ENABLE_X64=1, or jax.config.update('jax_enable_x64', True) before any "
            "array is made"
        )
