"""The version, the commit that it was built from, and the versions of packages beside it."""

import functools
import importlib.metadata
import pathlib
import platform
import subprocess
from collections.abc import Iterable

__version__ = "0.1.0"


@functools.cache
def commit() -> str:
    """The commit of a clone, with a `+` where its files differ from it; "" outside of a clone.

    The first call counts: long work calls it at its beginning, as the clone may change meanwhile.
    """
    root = pathlib.Path(__file__).parents[1]
    if not (root / ".git").exists():
        return ""
    git = lambda *command: subprocess.run(
        ["git", "-C", str(root), *command], capture_output=True, text=True, check=True, timeout=10
    ).stdout.strip()
    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):  # no git, or a damaged clone
        return ""


def described() -> str:
    """The version with the commit, as in `0.1.0 (commit 0123456789ab)`."""
    return f"{__version__} (commit {commit()})" if commit() else __version__


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of rwp-jax, its commit where that is known, Python and the packages."""
    own = {"rwp-jax": __version__} | ({"commit": commit()} if commit() else {})
    others = {package: importlib.metadata.version(package) for package in packages}
    return own | {"python": platform.python_version()} | others
