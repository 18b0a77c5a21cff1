"""Pictures of several runs, as the paper draws them: learning curves, and accuracy over a setting."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  the backend must be chosen first
import numpy as np  # noqa: E402

from rwp_jax.atomic import partial_of  # noqa: E402
from rwp_jax.report.published import PublishedCurve  # noqa: E402
from rwp_jax.report.results import Result  # noqa: E402
from rwp_jax.report.spread import Spread  # noqa: E402

_COLOURS = plt.get_cmap("tab10").colors
_LEGEND_WIDTH = 150  # characters below a picture of two panels
_SELECTIONS = {  # which epoch: how its line is drawn
    "best": {"color": "tab:red", "marker": "o", "label": "best (on the test set)"},
    "best_by_validation": {"color": "tab:purple", "marker": "^", "label": "best by validation"},
    "last": {"color": "tab:blue", "marker": "s", "label": "last"},
}


def _save(figure, path: pathlib.Path) -> None:
    partial = partial_of(path)
    figure.savefig(partial, dpi=120, format="png")
    plt.close(figure)
    partial.replace(path)


def _mean_curve(results: Sequence[Result], name: str) -> tuple[list, np.ndarray, np.ndarray]:
    """Epochs that all runs have, and over runs mean and standard deviation of a figure in %."""
    curves = [dict(zip(*result.curve(name), strict=True)) for result in results]
    epochs = sorted(set.intersection(*map(set, curves)))
    values = 100 * np.array([[curve[epoch] for epoch in epochs] for curve in curves])
    deviation = values.std(0, ddof=1) if len(values) > 1 else np.zeros(len(epochs))
    return epochs, values.mean(0), deviation


def draw_learning_curves(
    groups: dict[str, Sequence[Result]],
    published: Sequence[PublishedCurve],
    title: str,
    path: pathlib.Path,
) -> None:
    """Draws natural and PGD accuracy over epochs, the runs of a group as their mean with a band.

    Test accuracies are solid, training ones dashed where they were measured, published ones dotted, for
    the epochs that the runs have.

    Args:
      groups: name -> runs that differ in the seed alone.
      published: see `published.choose_published`.
      title: over the picture.
      path: of the PNG file to write.
    """
    figure, both = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    last = 1
    for axes, name, heading in zip(
        both,
        ("pgd_accuracy", "natural_accuracy"),
        ("PGD accuracy", "natural accuracy"),
        strict=True,
    ):
        for colour, (label, results) in zip(_cycle(groups), groups.items(), strict=True):
            for prefix, style in (("", "-"), ("train_", "--")):
                epochs, mean, deviation = _mean_curve(results, prefix + name)
                if not epochs:
                    continue
                last = max(last, epochs[-1])
                marker = "." if len(epochs) == 1 else None
                shown = label if not prefix else None
                axes.plot(epochs, mean, style, color=colour, label=shown, marker=marker, lw=1.5)
                axes.fill_between(
                    epochs, mean - deviation, mean + deviation, color=colour, alpha=0.15, lw=0
                )
        for colour, curve in zip(_cycle(published, len(groups)), published, strict=True):
            values = curve.robust if name == "pgd_accuracy" else curve.natural
            until = sum(epoch <= last for epoch in curve.epochs)
            axes.plot(
                curve.epochs[:until],
                [100 * value for value in values[:until]],
                ":",
                color=colour,
                label=f"published: {curve.name}",
            )
        axes.set(xlabel="epoch", ylabel="accuracy (%)", title=heading)
        axes.grid(alpha=0.3)
    handles, labels = both[0].get_legend_handles_labels()
    grey = [plt.Line2D([], [], color="grey", ls=style) for style in ("-", "--")]
    labels = [*labels, "test", "training"]
    columns = max(1, min(len(labels), int(_LEGEND_WIDTH / (8 + max(map(len, labels))))))
    figure.legend(
        [*handles, *grey], labels, loc="outside lower center", ncols=columns, fontsize="small"
    )
    figure.suptitle(title)
    _save(figure, path)


def _cycle(items, offset: int = 0):
    return [_COLOURS[(offset + index) % len(_COLOURS)] for index in range(len(items))]


class Sweep(NamedTuple):
    """Accuracy over one setting.

    Attributes:
      axis: name of the setting.
      labels: its values, left to right.
      accuracies: which epoch ("best", ...) -> a Spread or None for each value, in [0, 1].
      references: label of a horizontal line, which ends in ", best" or ", last" -> its value, in [0, 1].
      second: name and values (Spread or None) of what the lower panel shows, in its own unit.
    """

    axis: str
    labels: Sequence[str]
    accuracies: dict[str, Sequence[Spread | None]]
    references: dict[str, Spread | None]
    second: tuple[str, Sequence[Spread | None]]


def _line(axes, values: Sequence[Spread | None], scale: float, **style) -> None:
    """Means with their deviations as bars; values that are missing leave a gap."""
    means = [np.nan if value is None else scale * value.mean for value in values]
    deviations = [scale * value.std if value and value.std else 0.0 for value in values]
    bars = {"yerr": deviations, "capsize": 3} if any(deviations) else {}
    axes.errorbar(range(len(values)), means, lw=1.5, ms=5, **bars, **style)


def draw_sweep(sweep: Sweep, title: str, path: pathlib.Path) -> None:
    """Draws robust test accuracy over a setting, best and last, with a second panel below it, as PNG."""
    figure, (upper, lower) = plt.subplots(
        2, 1, figsize=(7, 6.2), sharex=True, height_ratios=(2, 1), layout="constrained"
    )
    for which, values in sweep.accuracies.items():
        if any(values):
            _line(upper, values, 100, **_SELECTIONS[which])
    styles = ("--", ":", "-.")
    colours = {"best": "tab:red", "last": "tab:blue"}
    for index, (label, value) in enumerate(sweep.references.items()):
        if value is not None:
            colour = colours[label.rpartition(", ")[2]]
            style = styles[index // 2 % len(styles)]
            upper.axhline(100 * value.mean, color=colour, ls=style, lw=1, label=label)
    upper.set(ylabel="PGD accuracy, test (%)", title=title)
    heading, values = sweep.second
    _line(lower, values, 1, color="tab:green", marker="o")
    lower.set(ylabel=heading, xlabel=sweep.axis)
    lower.set_xticks(range(len(sweep.labels)), sweep.labels)
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
    handles, labels = upper.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize="small")
    _save(figure, path)
