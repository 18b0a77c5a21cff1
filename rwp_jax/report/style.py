"""Style of all pictures: as wide as a column of a paper, legible there and in greyscale."""

import contextlib
import math
import pathlib
import textwrap
from collections.abc import Iterable, Iterator, Sequence

import matplotlib
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rwp_jax.files import partial_of
from rwp_jax.report import labels

WIDTH = 3.5  # inches
LEAST_SPAN = 30  # least range of an accuracy axis in %; a smaller one would magnify noise
GREY = "0.45"
_MARGIN = 0.05  # share of an axis between the data and the frame
_LETTERS, _NARROW = 72, 12  # most letters of a line of the title; least when wrapping
DASHED, DOTTED = (0, (4, 2)), (0, (1, 2))  # as `ls` takes them
# The first three are for AT, AWP and RWP (see `palette`); in greyscale: dark, light and middle grey.
COLOURS = ("#0B2F5B", "#D99500", "#C23B22", "#009E73", "#CC79A7", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "p", "h", "d")
_TRAINING = (DASHED, (0, (6, 1.5, 1, 1.5)), (0, (1.5, 1)))  # dashes of training curves, by method
_METHODS = 3
_STYLE = {
    "font.size": 8,
    "axes.titlesize": 8,
    "figure.titlesize": 8,
    "legend.fontsize": 7,
    "lines.linewidth": 1.3,
    "lines.markersize": 4,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.5,
    "errorbar.capsize": 2,
    "savefig.dpi": 300,
}


@contextlib.contextmanager
def panels(path: pathlib.Path, *heights: float, **keywords) -> Iterator[tuple]:
    """Creates a figure with panels stacked vertically, and writes it as PNG at the end.

    Args:
      path: file to write.
      heights: heights of the panels, in inches.
      keywords: keyword arguments of `Figure.subplots`.

    Yields:
      The figure and a list of its axes.
    """
    # Without pyplot, whose backend and figures belong to the caller.
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
        axes = figure.subplots(len(heights), height_ratios=heights, squeeze=False, **keywords)
        yield figure, list(axes[:, 0])
        labels.place(figure)
        partial = partial_of(path)
        figure.savefig(partial, format="png")
        partial.replace(path)


def colour(index: int) -> str:
    """Returns the colour of an index, a method's if below three; the other colours repeat."""
    if index >= len(COLOURS):
        index = _METHODS + (index - _METHODS) % (len(COLOURS) - _METHODS)
    return COLOURS[index]


def ink(index: int) -> tuple[float, ...]:
    """Returns a darker shade of the colour for text, as the lightest colour is too pale in greyscale."""
    return tuple(0.7 * part for part in to_rgb(colour(index)))


def marker(index: int) -> str:
    return MARKERS[index % len(MARKERS)]


def training(index: int) -> dict:
    """Returns the look of a curve on training images: thin, with hollow markers, dashed by method."""
    return {"ls": _TRAINING[index % len(_TRAINING)], "lw": 0.8, "ms": 3, "mfc": "white", "mew": 0.7}


def draw_mean(axes, x: Sequence[float], points: Sequence, index: int, label=None, **look) -> None:
    """Draws means as a line and their intervals as a band.

    Args:
      axes: axes to draw on.
      x: x-coordinates of the points.
      points: `Spread` of each point.
      index: index of colour and marker.
      label: label in the legend.
      look: keyword arguments of `axes.plot`, which override the default of about eight markers per line.
    """
    look = {"marker": marker(index), "markevery": max(1, len(x) // 8)} | look
    axes.plot(x, [point.mean for point in points], color=colour(index), label=label, **look)
    if points and points[0].low is not None:
        low, high = [point.low for point in points], [point.high for point in points]
        face, edge = (colour(index), 0.16), (colour(index), 0.6)  # the edge shows in greyscale
        axes.fill_between(x, low, high, facecolor=face, edgecolor=edge, lw=0.5)


def mark_best(
    axes, x: Sequence[float], values: Sequence[float], index: int, since: float = -math.inf
) -> None:
    """Draws a ring around the largest value of a line beyond x = since and writes it next to the ring."""
    shown = [i for i in range(len(values)) if x[i] > since]
    best = max(shown, key=lambda i: (values[i] == values[i], values[i]))  # NaN last
    axes.plot(x[best], values[best], "o", ms=8, mfc="none", mec=colour(index))
    labels.write(axes, x[best], values[best], f"{values[best]:.1f}", ink(index))


def title(figure, text: str, settings: str) -> None:
    """Adds the title and the setting below it, wrapping lines that would be cut off."""
    lines = [line for line in f"{text}\n{settings}".splitlines() if line]
    for width in range(_LETTERS, _NARROW, -4):
        shown = figure.suptitle(
            "\n".join(textwrap.fill(line, width) for line in lines), fontsize=7.5
        )
        if shown.get_window_extent().width <= figure.bbox.width:
            return


def legend(figure, axes, extra: Sequence = (), columns: int = 2) -> None:
    """Adds a legend below all panels with the labelled artists of `axes`, then the `extra` handles.

    Uses fewer columns, then wrapped labels, if the legend would be cut off.
    """
    handles, names = axes.get_legend_handles_labels()
    handles, names = [*handles, *extra], [*names, *(handle.get_label() for handle in extra)]
    width = max(map(len, names), default=0)
    while names:
        wrapped = [textwrap.fill(name, width) for name in names]
        shown = figure.legend(
            handles, wrapped, loc="outside lower center", ncols=columns, frameon=False
        )
        if shown.get_window_extent().width <= figure.bbox.width or width <= _NARROW:
            return
        shown.remove()
        columns, width = (columns - 1, width) if columns > 1 else (1, width - 4)


def show_epochs(axes, last: int) -> None:
    """Sets up an x-axis over epochs from the beginning of training, with ticks at integers."""
    axes.set(xlabel="epoch", xlim=(0, 1.04 * last))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def show_percent(axes, values: Iterable[float]) -> None:
    """Sets limits around values in %, at least LEAST_SPAN apart; markers at 0 and 100 are not clipped."""
    values = list(values)
    if not values:
        return
    low, high = min(values), max(values)
    span = min(max(1.15 * (high - low), LEAST_SPAN), 100 / (1 - 2 * _MARGIN))
    margin = _MARGIN * span
    bottom = min(max((low + high - span) / 2, -margin), 100 + margin - span)
    axes.set_ylim(bottom, bottom + span)


def show_all(axes, values: Iterable[float]) -> None:
    """Sets limits that include the values, 0 and 1, without clipping markers or error bars."""
    low, high = min([0.0, *values]), max([1.0, *values])
    margin = 1.5 * _MARGIN * (high - low)
    axes.set_ylim(low - margin, high + margin)
