"""The log of an evaluation, appended to a file line by line."""

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from rwp_jax.attacks.autoattack.checks import check_file


class Log:
    """Appends lines to a file and passes them to a function, if given."""

    def __init__(self, path: Any, echo: Callable[[str], None] | None = None):
        """Raises InputError if the file cannot be written; `path` may be None."""
        self.path: pathlib.Path | None = check_file("log_path", path)
        self._echo = echo

    def __call__(self, line: str) -> None:
        if self.path:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")
        if self._echo:
            self._echo(line)

    def accuracy(self, what: str, correct: np.ndarray, seconds: float | None = None) -> None:
        """Logs the share of correct images, given as bool [N], and the duration."""
        took = "" if seconds is None else f", {seconds:.1f} s"
        self(f"{what}: {correct.mean():.2%} ({correct.sum()} of {len(correct)} images{took})")
