"""What the modes share: the program's name, paths of flags, and JAX's configuration before it computes."""

import pathlib
import sys

from rwp_jax.errors import check_path
from rwp_jax.models.convolution import prefer_eigen
from rwp_jax.models.precision import enable_x64_for
from rwp_jax.training import collectives


def program_name() -> str:
    """Returns the program's name: main.py, rwp-jax, or rwp_jax for `python -m rwp_jax`."""
    path = pathlib.Path(sys.argv[0])
    return path.parent.name if path.name == "__main__.py" else path.name


def path_of(flag) -> pathlib.Path | None:
    """Returns the path that a flag holds, None for an empty one."""
    return check_path(flag.name, flag.value) if flag.value else None


def prepare(*dtypes: str) -> None:
    """Configures JAX, before any computation, for these dtypes; library code leaves that to its caller."""
    enable_x64_for(*dtypes)
    collectives.keep_in_order()
    if "float32" in dtypes and "float64" not in dtypes:
        prefer_eigen()
