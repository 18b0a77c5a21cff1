"""How pictures look: as wide as a column of a paper, legible there and in grey."""

import contextlib
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from rwp_jax.files import partial_of

WIDTH = 3.5  # inches
LEAST_SPAN = 10  # points of accuracy that an axis shows at least: less would show noise
GREY = "0.45"
DASHED, DOTTED = (0, (4, 2)), (0, (1, 2))  # as `ls` takes them
# The first three, AT, AWP and RWP in most pictures, are a dark, a light and a middle grey without colour.
COLOURS = ("#0B3C6F", "#F0B429", "#C8432B", "#009E73", "#CC79A7", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
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
    """A figure of panels below one another, written as PNG at the end.

    Args:
      path: of the file.
      heights: of the panels, in inches.
      keywords: of `Figure.subplots`.

    Yields:
      The figure and a list of its axes.
    """
    # Not by pyplot, whose backend and figures are the caller's.
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
        axes = figure.subplots(len(heights), height_ratios=heights, squeeze=False, **keywords)
        yield figure, list(axes[:, 0])
        partial = partial_of(path)
        figure.savefig(partial, format="png")
        partial.replace(path)


def colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def marker(index: int) -> str:
    return MARKERS[index % len(MARKERS)]


def draw_mean(axes, x: Sequence[float], points: Sequence, index: int, label=None, **look) -> None:
    """Draws means with a band of their intervals.

    Args:
      axes: to draw on.
      x: of the points.
      points: `Spread` of each.
      index: of colour and marker.
      label: in the legend.
      look: of `axes.plot`, in place of a marker at every eighth of the points.
    """
    look = {"marker": marker(index), "markevery": max(1, len(x) // 8)} | look
    axes.plot(x, [point.mean for point in points], color=colour(index), label=label, **look)
    if points and points[0].low is not None:
        low, high = [point.low for point in points], [point.high for point in points]
        axes.fill_between(x, low, high, color=colour(index), alpha=0.18, lw=0)


def mark_best(axes, x: Sequence[float], values: Sequence[float], index: int, below: bool) -> None:
    """Rings the largest of the values of a line and writes it beside."""
    best = max(range(len(values)), key=lambda i: (values[i] == values[i], values[i]))  # NaN last
    axes.plot(x[best], values[best], "o", ms=8, mfc="none", mec=colour(index))
    text = axes.annotate(
        f"{values[best]:.1f}",
        (x[best], values[best]),
        (0, -13 if below else 6),
        textcoords="offset points",
        ha="center",
        zorder=5,
    )
    text.set_path_effects([withStroke(linewidth=2, foreground="white")])


def title(figure, text: str, settings: str) -> None:
    """What the picture shows, and in a second line in which setting."""
    figure.suptitle("\n".join(filter(None, [text, settings])), wrap=True, fontsize=7.5)


def legend(figure, axes, extra: Sequence = (), columns: int = 2) -> None:
    """Below all panels: what the axes drew with a label, then `extra` handles."""
    handles, labels = axes.get_legend_handles_labels()
    handles, labels = [*handles, *extra], [*labels, *(handle.get_label() for handle in extra)]
    if max(map(len, labels), default=0) > 30:
        columns = 1
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)


def show_percent(axes, values: Iterable[float]) -> None:
    """Sets limits that hold the values, in %, and LEAST_SPAN points at least."""
    values = list(values)
    if not values:
        return
    low, high = min(values), max(values)
    middle, half = (low + high) / 2, max(0.55 * (high - low), LEAST_SPAN / 2)
    low, high = middle - half, middle + half
    shift = max(0, -low) - max(0, high - 100) if half <= 50 else 0
    axes.set_ylim(low + shift, high + shift)
