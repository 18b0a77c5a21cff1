"""What an evaluation says of itself, a line at a time, in a file that grows."""

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from rwp_jax.attacks.autoattack.checks import check_file


class Log:
    """Adds lines to a file, where there is one, and hands them to a function."""

    def __init__(self, path: Any, echo: Callable[[str], None] | None = None):
        """Raises InputError where the file cannot be written; `path` may be None."""
        self.path: pathlib.Path | None = check_file("log_path", path)
        self._echo = echo

    def __call__(self, line: str) -> None:
        if self.path:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")
        if self._echo:
            self._echo(line)

    def accuracy(self, what: str, correct: np.ndarray, seconds: float | None = None) -> None:
        """Says which share of the images [N] bool is correct, and how long that took."""
        took = "" if seconds is None else f", {seconds:.1f} s"
        self(f"{what}: {correct.mean():.2%} ({correct.sum()} of {len(correct)} images{took})")
