"""What the modes share: paths of flags, and JAX's configuration before any computation."""

import pathlib

from rwp_jax.errors import check_path
from rwp_jax.models.convolution import prefer_eigen
from rwp_jax.models.precision import enable_x64_for


def path_of(flag) -> pathlib.Path | None:
    """Returns the path that a flag holds, None for an empty one."""
    return check_path(flag.name, flag.value) if flag.value else None


def prepare(*dtypes: str) -> None:
    """Configures JAX, before any computation, for these dtypes; library code leaves that to its caller."""
    enable_x64_for(*dtypes)
    if "float32" in dtypes and "float64" not in dtypes:
        prefer_eigen()
