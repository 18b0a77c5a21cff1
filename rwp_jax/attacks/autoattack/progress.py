"""How far an evaluation is: for a function of the caller's, or as a line on standard error."""

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

from rwp_jax.errors import InputError, shown

_WIDTH = 20  # of the bar, in characters


@dataclasses.dataclass(frozen=True)
class Progress:
    """A moment of the evaluation.

    Attributes:
      attack: its name.
      index: its place among the attacks, from 0.
      attacks: how many they are.
      fraction: the share of this attack that is done, or not needed any more.
      robust: images not broken so far.
      total: images.
    """

    attack: str
    index: int
    attacks: int
    fraction: float
    robust: int
    total: int


def draw(moment: Progress) -> None:
    """Draws a bar on standard error, over the last one of the same attack."""
    done = "#" * round(moment.fraction * _WIDTH)
    line = (
        f"{moment.attack} ({moment.index + 1} of {moment.attacks}) [{done:{_WIDTH}}] "
        f"{moment.fraction:4.0%}, {moment.robust} of {moment.total} images robust"
    )
    print(f"\r{line}", end="\n" if moment.fraction >= 1 else "", file=sys.stderr, flush=True)


def listener(progress: Any) -> Callable[[Progress], None] | None:
    """The function that hears of every moment: `draw` for True, none for None and False.

    Raises:
      InputError: for anything else that cannot be called.
    """
    if progress is None or progress is False:
        return None
    if progress is True:
        return draw
    if not callable(progress):
        raise InputError(f"progress={shown(progress)} must be True, False or a function")
    return progress
