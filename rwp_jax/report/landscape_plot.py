"""Plots the weight-loss landscapes of several runs in one picture."""

import math
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.lines import Line2D

from rwp_jax.report import style
from rwp_jax.report.spread import spread
from rwp_jax.report.table import Table

Slices = dict[str, tuple[np.ndarray, np.ndarray]]  # kind -> distances [T], losses [R, T]


class Network(NamedTuple):
    """Data of a run to draw.

    Attributes:
      slices: losses along `random` directions, and along `awp` and `rwp` if available.
      look: index of colour and marker, see `palette.looks`.
      gamma: gamma in training, None if the run does not perturb weights.
    """

    slices: Slices
    look: int
    gamma: float | None


def draw_landscape(
    runs: dict[str, Network], num_classes: int, title: str, setting: str, path: pathlib.Path
) -> str:
    """Draws loss over distance along random and adversarial directions as PNG; returns the caption.

    Args:
      runs: runs to draw, by name.
      num_classes: number of classes, whose logarithm is the loss of guessing.
      title: title of the picture.
      setting: line below the title.
      path: file to write.
    """
    chance = math.log(num_classes)
    gammas = sorted({run.gamma for run in runs.values() if run.gamma})
    with style.panels(path, 2.1, 2.1) as (figure, (upper, lower)):
        highest = {upper: [chance], lower: [0.0]}
        for number, (name, run) in enumerate(runs.items()):
            look = {"markevery": (number % 4, 4)}  # keeps all markers visible if curves coincide
            distances, losses = run.slices["random"]
            points = [spread(losses[:, t]) for t in range(len(distances))]
            style.draw_mean(upper, distances, points, run.look, name, **look)
            highest[upper] += [point.high or point.mean for point in points]
            for kind, dash in (("rwp", "-"), ("awp", style.DASHED)):
                if kind in run.slices:
                    distances, losses = run.slices[kind]
                    points = [spread([loss]) for loss in losses[0]]
                    style.draw_mean(lower, distances, points, run.look, ls=dash, **look)
                    highest[lower] += [point.mean for point in points]
        upper.axhline(chance, color=style.GREY, ls=style.DOTTED, lw=0.8)
        # Limits the axis, as losses along a random direction may dwarf all others.
        most = max(2 * chance, 1.5 * _at_rest(runs))
        for axes, along in ((upper, "random directions"), (lower, "directions of AWP and RWP")):
            axes.set(ylabel="adversarial loss", xlabel=f"distance ‖d‖/‖w‖ along {along}")
            axes.set_ylim(0, 1.1 * min(max(highest[axes]), most if axes is upper else math.inf))
            axes.locator_params("x", nbins=5)
        for gamma in gammas:
            lower.axvline(gamma, color="black", ls=style.DOTTED, lw=0.8, zorder=0)
            at = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
            lower.annotate(f"γ = {gamma:g}", (gamma, 1), (0, 1), ha="center", va="bottom", **at)
        kinds = [("RWP's direction", "-"), ("AWP's direction", style.DASHED)]
        kinds.append(("guessing", style.DOTTED))
        extra = [
            Line2D([], [], color=style.GREY, ls=dash, lw=1, label=label) for label, dash in kinds
        ]
        style.title(figure, title, setting)
        style.legend(figure, upper, extra)
    trained = "; γ: the radius of the perturbation in training" if gammas else ""
    return (
        "Adversarial loss over the distance from the weights: above, along filter-normalised random "
        "directions (mean and 95% interval over directions); below, along the directions in which AWP and "
        f"RWP perturb{trained}."
    )


def _at_rest(runs: dict[str, Network]) -> float:
    """The largest loss at distance 0."""
    at_zero = lambda distances, losses: losses[:, np.argmin(np.abs(distances))].max()
    return max(at_zero(*run.slices["random"]) for run in runs.values())


def landscape_table(runs: dict[str, Slices]) -> Table:
    """Returns a table with a row for every loss."""
    rows: list[Sequence[str]] = []
    for name, slices in runs.items():
        for kind, (distances, losses) in slices.items():
            for t, distance in enumerate(distances):
                for r, loss in enumerate(losses[:, t]):
                    rows.append([name, kind, str(r), f"{distance:.6g}", f"{loss:.6g}"])
    header = ["run", "directions", "number", "distance", "loss"]
    return Table("Adversarial loss over distance", header, rows)
