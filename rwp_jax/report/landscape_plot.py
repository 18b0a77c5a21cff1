"""The weight-loss landscape of several runs in one picture."""

import math
import pathlib
from collections.abc import Sequence

import numpy as np
from matplotlib.lines import Line2D

from rwp_jax.report import style
from rwp_jax.report.spread import spread
from rwp_jax.report.table import Table

Slices = dict[str, tuple[np.ndarray, np.ndarray]]  # kind -> distances [T], losses [R, T]


def draw_landscape(
    runs: dict[str, Slices], num_classes: int, title: str, path: pathlib.Path
) -> str:
    """Draws loss over distance along random and adversarial directions as PNG; returns a caption.

    Args:
      runs: name -> its losses along `random`, `awp` and `rwp` (as far as there are).
      num_classes: at whose logarithm a network guesses.
      title: over the picture.
      path: of the file to write.
    """
    chance = math.log(num_classes)
    with style.panels(path, 2.1, 2.1) as (figure, (upper, lower)):
        for index, (name, slices) in enumerate(runs.items()):
            distances, losses = slices["random"]
            points = [spread(losses[:, t]) for t in range(len(distances))]
            style.draw_mean(upper, distances, points, index, name, markevery=4)
            for kind, dash in (("rwp", "-"), ("awp", style.DASHED)):
                if kind in slices:
                    distances, losses = slices[kind]
                    points = [spread([loss]) for loss in losses[0]]
                    style.draw_mean(lower, distances, points, index, ls=dash, markevery=4)
        upper.axhline(chance, color=style.GREY, ls=style.DOTTED, lw=0.8)
        for axes, along in ((upper, "random directions"), (lower, "directions of AWP and RWP")):
            axes.set(ylabel="adversarial loss", xlabel=f"distance ‖d‖/‖w‖ along {along}")
            axes.locator_params("x", nbins=5)
        upper.set_ylim(0, max(1.6 * chance, 1.1 * _at_rest(runs)))
        lower.set_ylim(0)
        kinds = [("RWP's direction", "-"), ("AWP's direction", style.DASHED)]
        kinds.append(("guessing", style.DOTTED))
        extra = [
            Line2D([], [], color=style.GREY, ls=dash, lw=1, label=label) for label, dash in kinds
        ]
        style.title(figure, title, "")
        style.legend(figure, upper, extra)
    return (
        "Adversarial loss over the distance from the weights: above, along filter-normalised random "
        "directions (mean and 95% interval); below, along the directions in which AWP and RWP perturb."
    )


def _at_rest(runs: dict[str, Slices]) -> float:
    """The largest loss at distance 0."""
    at_zero = lambda distances, losses: losses[:, np.argmin(np.abs(distances))].max()
    return max(at_zero(*slices["random"]) for slices in runs.values())


def landscape_table(runs: dict[str, Slices]) -> Table:
    """Every loss, a row each."""
    rows: list[Sequence[str]] = []
    for name, slices in runs.items():
        for kind, (distances, losses) in slices.items():
            for t, distance in enumerate(distances):
                for r, loss in enumerate(losses[:, t]):
                    rows.append([name, kind, str(r), f"{distance:.6g}", f"{loss:.6g}"])
    header = ["run", "directions", "number", "distance", "loss"]
    return Table("Adversarial loss over distance", header, rows)
