"""Plots a histogram of adversarial losses, split at c_min."""

import math
import pathlib

import numpy as np

from rwp_jax.report import palette, style

_BINS = 30


def draw_losses(
    losses: np.ndarray,
    c_min: float,
    method: int,
    title: str,
    setting: str,
    path: pathlib.Path,
) -> str:
    """Draws the losses [N] of a network's adversarial examples as PNG; returns the caption.

    Args:
      losses: losses that the gate compares with c_min.
      c_min: c_min of the run's config.
      method: method of the run, see `palette.method`; only RWP uses c_min.
      title: title of the picture.
      setting: line below the title.
      path: file to write.
    """
    bounded = 0 < c_min < math.inf
    # The last bin also counts larger losses, as a few large ones would compress all other bins.
    top = max(float(np.quantile(losses, 0.99)), 1.3 * c_min if bounded else 0.0, 1e-3)
    edges = np.linspace(0, top, _BINS + 1)
    if bounded:  # an edge at c_min, so that no bar straddles it
        edges = edges * c_min / edges[1:][np.argmin(np.abs(edges[1:] - c_min))]
    below = losses < c_min
    with style.panels(path, 2.4) as (figure, (axes,)):
        shown = np.clip(losses, 0, edges[-1])
        for part, label, look in (
            (below, "below c_min", {"color": style.colour(method)}),
            (~below, "c_min or more", {"color": "0.8", "hatch": "////", "edgecolor": "0.4"}),
        ):
            if part.any():
                name = f"{label}: {part.mean():.0%}" if bounded else "all losses"
                axes.hist(shown[part], edges, label=name, linewidth=0.3, **look)
        if bounded:
            axes.axvline(c_min, color="black", ls=style.DASHED, lw=1)
            axes.annotate(
                f"c_min = {c_min:g}",
                (c_min, 1),
                (0, 1),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                ha="center",
                va="bottom",
            )
        axes.set(xlabel="adversarial loss of an example", ylabel="examples")
        style.title(figure, title, setting)
        style.legend(figure, axes)
    uses_c_min = palette.METHODS[method] == "rwp"
    use = "" if uses_c_min or not bounded else " (which this run does not use)"
    condition = f", split at c_min{use}" if bounded else ""
    return f"Losses of {len(losses):,} training images under the training attack{condition}."
