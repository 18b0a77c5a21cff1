"""JAX's configuration for a process of its own; library code leaves it to its caller."""

from rwp_jax.models.convolution import prefer_eigen
from rwp_jax.models.precision import enable_x64_for


def prepare(*dtypes: str) -> None:
    """Configures JAX for runs of these dtypes; call it before JAX initialises its devices."""
    enable_x64_for(*dtypes)
    if "float32" in dtypes and "float64" not in dtypes:
        prefer_eigen()
