"""The configs of the repository's `configs/`, which the installed package has here instead of this file."""

import pathlib

__path__ = [str(pathlib.Path(__file__).parents[2] / "configs")]
