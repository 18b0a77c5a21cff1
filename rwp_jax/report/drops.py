"""Marks learning rate drops in pictures over epochs."""

import math
from collections.abc import Iterable, Sequence

from rwp_jax.report import style

_MOST = 4  # lines; more would hide the curves


def drops(config) -> list[float]:
    """Numbers of epochs after which the run's schedule drops the learning rate (see `optimizer`)."""
    epochs = config.epochs
    if config.optimizer.schedule == "piecewise":
        return [epochs / 2, 3 * epochs / 4]
    if config.optimizer.schedule == "piecewise_epoch":  # counts epochs from 1: drops one earlier
        return [math.ceil(epochs / 2) - 1, math.ceil(3 * epochs / 4) - 1]
    return []


def draw_drops(panels: Sequence, configs: Iterable) -> str:
    """Marks the drops of all runs on axes over epochs; returns their part of a caption, "" if unmarked."""
    falls = sorted({epoch for config in configs for epoch in drops(config)})
    if not 0 < len(falls) <= _MOST:
        return ""
    for axes in panels:
        for epoch in falls:
            axes.axvline(epoch, color=style.GREY, ls=style.DOTTED, lw=0.8, zorder=0)
    after = " and ".join(f"{fall:g}" for fall in falls)
    return f"the learning rate falls after {after} epochs (dotted vertical lines)"
