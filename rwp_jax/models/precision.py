"""float64: commands switch JAX to it, library code says what its caller has to set."""

import jax

from rwp_jax.errors import InputError


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
