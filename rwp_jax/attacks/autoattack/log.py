"""The log of an evaluation, appended to a file line by line."""

import pathlib
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from rwp_jax.attacks.autoattack.checks import check_file
from rwp_jax.errors import InputError


class Log:
    """Appends lines to a file and passes them to a function, if given.

    A file that can no longer be written, as on a full disk, does not end the evaluation: a warning says so.
    """

    def __init__(self, path: Any, echo: Callable[[str], None] | None = None):
        """Raises InputError if the file cannot be written; `path` may be None."""
        self.path: pathlib.Path | None = check_file("log_path", path)
        self._echo, self._failed = echo, False
        try:
            self._append("")
        except OSError as error:
            raise InputError(f"log_path={path} cannot be written to: {error.strerror}") from None

    def _append(self, text: str) -> None:
        if self.path:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(text)

    def __call__(self, line: str) -> None:
        try:
            self._append(f"{line}\n")
        except OSError as error:
            if not self._failed:
                message = f"log_path={self.path} cannot be written to: {error.strerror}"
                warnings.warn(f"{message}; lines are missing", RuntimeWarning, stacklevel=2)
            self._failed = True
        if self._echo:
            self._echo(line)

    def accuracy(self, what: str, correct: np.ndarray, seconds: float | None = None) -> None:
        """Logs the share of correct images, given as bool [N], and the duration."""
        took = "" if seconds is None else f", {seconds:.1f} s"
        self(f"{what}: {correct.mean():.2%} ({correct.sum()} of {len(correct)} images{took})")
