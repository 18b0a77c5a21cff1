"""Progress of an evaluation, passed to a user-defined function or drawn on standard error."""

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

from rwp_jax.errors import InputError, shown

_WIDTH = 20  # of the bar, in characters


@dataclasses.dataclass(frozen=True)
class Progress:
    """Progress of an evaluation at one moment.

    Attributes:
      attack: name of the current attack.
      index: its index among the attacks, from 0.
      attacks: number of attacks.
      fraction: share of this attack's iterations that are done or no longer needed.
      robust: number of images not broken so far.
      total: number of images.
    """

    attack: str
    index: int
    attacks: int
    fraction: float
    robust: int
    total: int


class _Bar:
    """Draws a progress bar on standard error.

    On a terminal, a bar replaces the previous one of the same attack. In files and notebooks, bars are
    lines: one whenever a tenth of an attack is done.
    """

    def __init__(self) -> None:
        self._drawn: tuple[int, int] | None = None  # attack and tenth of the last line

    def __call__(self, moment: Progress) -> None:
        done = "#" * round(moment.fraction * _WIDTH)
        line = (
            f"{moment.attack} ({moment.index + 1} of {moment.attacks}) [{done:{_WIDTH}}] "
            f"{moment.fraction:4.0%}, {moment.robust} of {moment.total} images robust"
        )
        if sys.stderr.isatty():
            end = "\n" if moment.fraction >= 1 else ""
            print(f"\r{line}", end=end, file=sys.stderr, flush=True)
        elif self._drawn != (now := (moment.index, int(moment.fraction * 10))):
            self._drawn = now
            print(line, file=sys.stderr, flush=True)


def listener(progress: Any) -> Callable[[Progress], None] | None:
    """Returns the function to call with every Progress: a bar for True, None for None and False.

    Raises:
      InputError: for anything else that is not callable.
    """
    if progress is None or progress is False:
        return None
    if progress is True:
        return _Bar()
    if not callable(progress):
        raise InputError(f"progress={shown(progress)} must be True, False or a function")
    return progress
