"""Plots accuracy over one setting, as in the paper's Figures 1(b), 1(c), 2(a) and 2(b)."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rwp_jax.report import style
from rwp_jax.report.spread import Spread

_LOOKS = {  # epoch -> look of its line, to distinguish the lines of a method
    "last": {"ls": "-"},
    "best": {"ls": style.DASHED, "mfc": "white"},
    "best_by_validation": {"ls": style.DOTTED, "mfc": "white", "ms": 2.5, "lw": 1},
}


class Line(NamedTuple):
    """Values over the setting.

    Attributes:
      label: label in the legend.
      values: one for each value of the setting; None leaves a gap.
      index: index of colour and marker.
      which: epoch, a key of `_LOOKS`; the last epoch is solid and filled.
      marked: whether to ring the largest value.
    """

    label: str
    values: Sequence[Spread | None]
    index: int
    which: str = "last"
    marked: bool = False


class Sweep(NamedTuple):
    """Content of the picture.

    Attributes:
      axis: name of the setting.
      labels: values of the setting, left to right.
      accuracies: robust test accuracies, in [0, 1].
      references: settings outside the sweep, drawn as horizontal lines at their single value, in [0, 1].
      second: heading and lines of the lower panel, in its own unit.
      below: description of the lower panel, for the caption.
      percent: whether the lower panel shows accuracy, given in [0, 1] and drawn in %.
      joined: whether the values of a line are joined; False for settings without an order.
    """

    axis: str
    labels: Sequence[str]
    accuracies: Sequence[Line]
    references: Sequence[Line]
    second: tuple[str, Sequence[Line]]
    below: str
    percent: bool = False
    joined: bool = True


def _bars(line: Line) -> tuple[np.ndarray, np.ndarray]:
    """Returns means [N] and distances [2, N] to the ends of their intervals, NaN for missing values."""
    nothing = Spread(np.nan, None, 0)
    known = [value or nothing for value in line.values]
    means = np.array([value.mean for value in known])
    ends = np.array(
        [[v.mean if v.low is None else v.low, v.mean if v.high is None else v.high] for v in known]
    ).T
    return means, np.abs(ends - means)


def _shifts(lines: Sequence[Line]) -> list[float]:
    """Returns a horizontal shift for each line, so that error bars do not hide each other."""
    step = min(0.12, 0.75 / max(1, len(lines)))
    return [step * (number - (len(lines) - 1) / 2) for number in range(len(lines))]


def _draw(axes, line: Line, scale: float, shift: float, joined: bool) -> list[float]:
    """Draws a line with its intervals; returns their ends, in the axis' unit."""
    means, bars = (scale * values for values in _bars(line))
    x = np.arange(len(means)) + shift
    look = _LOOKS[line.which] | ({} if joined else {"ls": "none"})
    look |= {"color": style.colour(line.index), "marker": style.marker(line.index)}
    axes.errorbar(x, means, bars, elinewidth=0.8, label=line.label, **look)
    if line.marked:
        style.mark_best(axes, x, means, line.index)
    return [value for value in (*(means - bars[0]), *(means + bars[1])) if not np.isnan(value)]


def _draw_all(axes, lines: Sequence[Line], scale: float, joined: bool) -> list[float]:
    ends = [
        _draw(axes, line, scale, shift, joined)
        for line, shift in zip(lines, _shifts(lines), strict=True)
    ]
    return [end for each in ends for end in each]


def draw_sweep(sweep: Sweep, title: str, setting: str, path: pathlib.Path) -> str:
    """Draws robust test accuracy over a setting as PNG, with a second panel below; returns the caption."""
    with style.panels(path, 2.5, 1.6, sharex=True) as (figure, (upper, lower)):
        shown = _draw_all(upper, sweep.accuracies, 100, sweep.joined)
        for line in sweep.references:
            (value,) = line.values
            look = {"color": style.colour(line.index), "lw": 0.9, "ls": _LOOKS[line.which]["ls"]}
            upper.axhline(100 * value.mean, label=line.label, **look)
            shown.append(100 * value.mean)
        upper.set(ylabel="PGD accuracy (%)")
        style.show_percent(upper, shown)
        heading, lines = sweep.second
        shown = _draw_all(lower, lines, 100 if sweep.percent else 1, sweep.joined)
        (style.show_percent if sweep.percent else style.show_all)(lower, shown)
        lower.set(ylabel=heading, xlabel=sweep.axis, xlim=(-0.5, len(sweep.labels) - 0.5))
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
    ring = f"; the ring and the number beside it are the highest mean of {marked}" if marked else ""
    return (
        f"Accuracy under PGD on test images over {sweep.axis}, mean with its 95% interval (over seeds; "
        f"over test images for one seed), side by side at each value{ring}; below, {sweep.below}."
    )
