"""Accuracy over one setting, as the paper's Figures 1(b), 1(c), 2(a) and 2(b) draw it."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rwp_jax.report import style
from rwp_jax.report.spread import Spread


class Line(NamedTuple):
    """Values over the setting.

    Attributes:
      label: in the legend.
      values: one for each value of the setting; None leaves a gap.
      index: of its colour and marker.
      dashed: whether it is.
      marked: whether its best is.
    """

    label: str
    values: Sequence[Spread | None]
    index: int
    dashed: bool = False
    marked: bool = False


class Sweep(NamedTuple):
    """What is drawn.

    Attributes:
      axis: name of the setting.
      labels: its values, left to right.
      accuracies: robust test accuracies, in [0, 1].
      references: settings beside the sweep, drawn as lines across it: their one value, in [0, 1].
      second: heading and lines of the lower panel, in its own unit.
      below: what the lower panel shows, in words.
      percent: whether that is accuracy in %.
    """

    axis: str
    labels: Sequence[str]
    accuracies: Sequence[Line]
    references: Sequence[Line]
    second: tuple[str, Sequence[Line]]
    below: str
    percent: bool = False


def _bars(line: Line) -> tuple[np.ndarray, np.ndarray]:
    """Means [N], and the distances [2, N] to the ends of their intervals; NaN where nothing is."""
    nothing = Spread(np.nan, None, 0)
    known = [value or nothing for value in line.values]
    means = np.array([value.mean for value in known])
    ends = np.array(
        [[v.mean if v.low is None else v.low, v.mean if v.high is None else v.high] for v in known]
    ).T
    return means, np.abs(ends - means)


def _draw(axes, line: Line, scale: float, shift: float = 0.0) -> list[float]:
    """A line with its intervals; returns the ends, in the axis' unit."""
    means, bars = (scale * values for values in _bars(line))
    axes.errorbar(
        np.arange(len(means)) + shift,
        means,
        bars,
        color=style.colour(line.index),
        marker=style.marker(line.index),
        mfc="white" if line.dashed else None,
        ls=style.DASHED if line.dashed else "-",
        elinewidth=0.8,
        label=line.label,
    )
    return [value for value in (*(means - bars[0]), *(means + bars[1])) if not np.isnan(value)]


def draw_sweep(sweep: Sweep, title: str, setting: str, path: pathlib.Path) -> str:
    """Draws robust test accuracy over a setting as PNG, a second panel below it; returns a caption."""
    with style.panels(path, 2.5, 1.6, sharex=True) as (figure, (upper, lower)):
        shown = []
        count = len(sweep.accuracies)
        for number, line in enumerate(sweep.accuracies):
            shift = 0.06 * (number - (count - 1) / 2)
            shown += _draw(upper, line, 100, shift)
            if line.marked:
                means = 100 * _bars(line)[0]
                style.mark_best(
                    upper, np.arange(len(means)) + shift, means, line.index, line.dashed
                )
        for line in sweep.references:
            (value,) = line.values
            look = {"color": style.colour(line.index), "lw": 0.9}
            dash = style.DASHED if line.dashed else "-."
            upper.axhline(100 * value.mean, ls=dash, label=line.label, **look)
            shown.append(100 * value.mean)
        upper.set(ylabel="PGD accuracy (%)")
        style.show_percent(upper, shown)
        heading, lines = sweep.second
        shown = []
        for line in lines:
            shown += _draw(lower, line, 100 if sweep.percent else 1)
        if sweep.percent:
            style.show_percent(lower, shown)
        else:
            lower.set_ylim(min([0, *shown]), max([1, *shown]) * 1.1)
        lower.set(ylabel=heading, xlabel=sweep.axis)
        crowded = sum(map(len, sweep.labels)) > 35
        lower.set_xticks(
            range(len(sweep.labels)),
            sweep.labels,
            rotation=30 if crowded else 0,
            ha="right" if crowded else "center",
        )
        style.title(figure, title, setting)
        style.legend(figure, upper)
    marked = " and ".join(line.label for line in sweep.accuracies if line.marked)
    return (
        f"Accuracy under PGD on test images over {sweep.axis}, with 95% intervals (over seeds; over test "
        f"images for one seed) and the best value ringed ({marked}); below, {sweep.below}."
    )
