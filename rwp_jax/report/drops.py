"""Marks where the learning rate drops, and where a run's config changed, in pictures over epochs."""

import math
from collections.abc import Iterable, Sequence

from rwp_jax.report import style
from rwp_jax.runs.config import flatten
from rwp_jax.runs.history import History

_MOST = 4  # lines; more would hide the curves
NONE = History()


def _drops(schedule: str, epochs: int) -> list[float]:
    """Numbers of epochs after which a schedule drops the learning rate (see `optimizer`)."""
    if schedule == "piecewise":
        return [epochs / 2, 3 * epochs / 4]
    if schedule == "piecewise_epoch":  # counts epochs from 1: drops one earlier
        return [math.ceil(epochs / 2) - 1, math.ceil(3 * epochs / 4) - 1]
    return []


def drops(config, history: History = NONE) -> list[float]:
    """Numbers of epochs after which a run's schedule, or schedules, drop the learning rate."""
    if not history.changes:
        return _drops(config.optimizer.schedule, config.epochs)
    return [
        fall
        for stretch in history.stretches(flatten(config.to_dict()))
        for fall in _drops(stretch.config["optimizer.schedule"], stretch.config["epochs"])
        if stretch.first < fall < stretch.end
    ]


def draw_drops(panels: Sequence, runs: Iterable[tuple]) -> str:
    """Marks drops of the learning rate, and changes of the config, on axes over epochs.

    Args:
      panels: axes.
      runs: newest config and history of each run.

    Returns:
      Their part of a caption; "" if nothing is marked.
    """
    runs = list(runs)
    falls = sorted({epoch for run in runs for epoch in drops(*run)})
    changes = {c.after_epochs for config, history in runs for c in history.changes}
    last = max((config.epochs for config, _ in runs), default=0)
    changes = sorted(epoch for epoch in changes if 0 < epoch < last)
    parts = []
    for epochs, what, dash in (
        (falls, "the learning rate falls after {} epochs (dotted vertical lines)", style.DOTTED),
        (changes, "settings change after {} epochs (dashed vertical lines)", style.DASHED),
    ):
        if not 0 < len(epochs) <= _MOST:
            continue
        for axes in panels:
            for epoch in epochs:
                axes.axvline(epoch, color=style.GREY, ls=dash, lw=0.8, zorder=0)
        parts.append(what.format(" and ".join(f"{epoch:g}" for epoch in epochs)))
    return "; ".join(parts)
