"""Places value labels next to points so that they overlap neither one another nor the plot."""

import numpy as np
from matplotlib.patheffects import withStroke
from matplotlib.text import Text

_VALUE = "value"  # gid of the texts that `place` moves
_NEAR = 13  # distance in points beyond which a leader joins a text to its point
_X, _Y = np.meshgrid(np.arange(-42, 43, 6), np.arange(-66, 67, 3))
_OFFSETS = np.stack([_X.ravel(), _Y.ravel()], 1)  # [C, 2] candidate offsets, in points


def write(axes, x: float, y: float, text: str, colour) -> None:
    """Adds the label of a point; `place` positions it."""
    label = axes.annotate(
        text,
        (x, y),
        (0, 10),
        textcoords="offset points",
        ha="center",
        va="center",
        color=colour,
        fontsize=7,
        zorder=6,
        gid=_VALUE,
        arrowprops={"arrowstyle": "-", "lw": 0.5, "color": colour, "shrinkA": 0, "shrinkB": 4},
    )
    label.set_path_effects([withStroke(linewidth=1.8, foreground="white")])
    label.set_in_layout(False)


def place(figure) -> None:
    """Moves every label to where it hides least, with a thin leader if that is far from its point."""
    figure.draw_without_rendering()  # lays the panels out
    for axes in figure.axes:
        texts = [text for text in axes.texts if text.get_gid() == _VALUE]
        lines, marks = _drawn(axes) if texts else (np.empty((0, 2)),) * 2
        placed: list[np.ndarray] = []
        for text in sorted(texts, key=lambda text: -axes.transData.transform(text.xy)[1]):
            offset, box = _best(axes, text, lines, marks, placed)
            text.set_position(offset)
            text.arrow_patch.set_visible(bool(np.hypot(*offset) > _NEAR))
            placed.append(box)
            leader = axes.transData.transform(text.xy) + [[0, 0], offset * axes.figure.dpi / 72]
            marks = np.concatenate([marks, _filled(leader, axes.figure.dpi / 48)])


def _best(axes, text, lines, marks, placed) -> tuple[np.ndarray, np.ndarray]:
    """Returns the cheapest offset of a text, in points, and its box [2, 2] there, in pixels."""
    pixels = axes.figure.dpi / 72
    extent = Text.get_window_extent(text)  # without its leader
    half = np.array([extent.width, extent.height]) / 2 + pixels
    centres = axes.transData.transform(text.xy) + pixels * _OFFSETS
    low, high = centres - half, centres + half

    def covered(points, margin=0.0):
        """Counts the points that each candidate hides, [C]."""
        points = np.reshape(points, (-1, 1, 2))
        hit = (points > low - margin) & (points < high + margin)
        return hit.all(-1).sum(0)

    cost = np.hypot(*_OFFSETS.T) + 0.2 * np.abs(_OFFSETS[:, 0]) + (_OFFSETS[:, 1] < 0)
    cost += 1.5 * covered(lines) + 40 * covered(marks, 3.5 * pixels)
    outside = (low < axes.bbox.p0) | (high > axes.bbox.p1)
    cost += 1e4 * outside.any(-1)
    along = np.linspace(axes.transData.transform(text.xy), centres, 20)  # [20, C, 2], its leader
    for other in placed:
        cost += 1e3 * ((low < other[1]) & (high > other[0])).all(-1)
        cost += 1e3 * ((along > other[0]) & (along < other[1])).all(-1).any(0)
    chosen = int(np.argmin(cost))
    return _OFFSETS[chosen], np.stack([low[chosen], high[chosen]])


def _drawn(axes) -> tuple[np.ndarray, np.ndarray]:
    """Returns pixels [N, 2] along all lines and error bars, and the pixels [M, 2] of all markers."""
    paths, marks = [np.empty((0, 2))], [np.empty((0, 2))]
    for line in axes.lines:
        points = line.get_transform().transform(line.get_xydata())
        if line.get_linestyle() != "None":
            paths.append(points)
        if line.get_marker() not in (None, "", "None", "_"):
            marks.append(points)
    for bars in axes.collections:
        if hasattr(bars, "get_segments"):
            segments = [np.reshape(segment, (-1, 2)) for segment in bars.get_segments()]
            paths += map(bars.get_transform().transform, segments)
    along = [_filled(path, axes.figure.dpi / 48) for path in paths]
    found = [np.concatenate(part) for part in (along, marks)]
    lines, markers = (part[np.isfinite(part).all(-1)] for part in found)
    return lines, markers


def _filled(path: np.ndarray, step: float) -> np.ndarray:
    """Resamples a path as points [N, 2] at most `step` apart."""
    if len(path) < 2:
        return path
    pieces = []
    for begin, end in zip(path, path[1:], strict=False):
        length = np.hypot(*(end - begin))
        count = int(length // step) + 2 if np.isfinite(length) else 2
        pieces.append(np.linspace(begin, end, count))
    return np.concatenate(pieces)
