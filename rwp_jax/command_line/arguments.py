"""What the modes share: the program's name and paths of flags."""

import pathlib
import sys

from rwp_jax.errors import check_path


def program_name() -> str:
    """Returns the program's name: main.py, rwp-jax, or `python -m rwp_jax`."""
    path = pathlib.Path(sys.argv[0])
    return f"python -m {path.parent.name}" if path.name == "__main__.py" else path.name


def path_of(flag) -> pathlib.Path | None:
    """Returns the path that a flag holds, None for an empty one."""
    return check_path(flag.name, flag.value) if flag.value else None
