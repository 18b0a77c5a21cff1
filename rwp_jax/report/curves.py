"""Learning curves of several runs in one picture."""

import math
import pathlib
from collections.abc import Sequence

from matplotlib.lines import Line2D

from rwp_jax.report import style
from rwp_jax.report.published import PublishedCurve
from rwp_jax.report.results import Result
from rwp_jax.report.spread import Spread, spread
from rwp_jax.report.titles import setting

_PANELS = {"pgd_accuracy": "PGD accuracy (%)", "natural_accuracy": "natural accuracy (%)"}


def mean_curve(results: Sequence[Result], name: str) -> dict[int, Spread]:
    """Epoch (from 1) -> figure `name` over runs, at the epochs at which all have it."""
    curves = [dict(zip(*result.curve(name), strict=True)) for result in results]
    epochs = sorted(set.intersection(*map(set, curves)))
    examples = results[0].test_images if not name.startswith("train_") else None
    values = {epoch: spread([curve[epoch] for curve in curves], examples) for epoch in epochs}
    return {epoch: value.within(0, 1) for epoch, value in values.items()}


def drops(result: Result) -> list[float]:
    """After how many epochs the learning rate drops, by the run's schedule (see `optimizer`)."""
    epochs = result.config.epochs
    if result.config.optimizer.schedule == "piecewise":
        return [epochs / 2, 3 * epochs / 4]
    if result.config.optimizer.schedule == "piecewise_epoch":  # counts from 1: an epoch early
        return [math.ceil(epochs / 2) - 1, math.ceil(3 * epochs / 4) - 1]
    return []


def _draw(axes, curve: dict[int, Spread], index: int, label: str | None, training: bool) -> list:
    """One mean with its band; returns the values drawn, in %, without those of the first third."""
    epochs, points = list(curve), [point.scaled(100) for point in curve.values()]
    means = [point.mean for point in points]
    if training:  # beside the test curve, without a band of its own
        points = [point._replace(low=None, high=None) for point in points]
    look = {"marker": None, "ls": style.DASHED, "lw": 0.8} if training else {}
    style.draw_mean(axes, epochs, points, index, label, **look)
    if not training and points:
        style.mark_best(axes, epochs, means, index, below=index % 2 == 1)
    # Accuracies climb from chance: an axis that held these would hide what is to be compared.
    late = max(epochs, default=0) / 3
    shown = [
        point.mean if end is None else end
        for epoch, point in zip(epochs, points, strict=True)
        if epoch > late
        for end in (point.low, point.high)
    ]
    return shown if training or not means else [*shown, max(means)]


def draw_learning_curves(
    groups: dict[str, Sequence[Result]],
    published: Sequence[PublishedCurve],
    title: str,
    path: pathlib.Path,
) -> str:
    """Draws PGD accuracy over epochs, and natural accuracy below it, runs of a group as one mean.

    Test accuracies are solid, with their 95% intervals as bands and their best ringed; training ones,
    where they were measured, are dashed, published ones dotted, for the epochs that the runs have.

    Args:
      groups: name -> runs that differ in the seed alone.
      published: see `published.choose_published`.
      title: over the picture.
      path: of the PNG file to write.

    Returns:
      A caption.
    """
    results = [result for members in groups.values() for result in members]
    counts = [len(members) for members in groups.values()]
    falls = sorted({epoch for result in results for epoch in drops(result)})
    with style.panels(path, 2.6, 2.0, sharex=True) as (figure, both):
        last = max(result.epochs[-1]["epoch"] + 1 for result in results)
        for axes, (name, heading) in zip(both, _PANELS.items(), strict=True):
            shown = []
            for index, (label, members) in enumerate(groups.items()):
                shown += _draw(axes, mean_curve(members, name), index, label, False)
                shown += _draw(axes, mean_curve(members, f"train_{name}"), index, None, True)
            for index, curve in enumerate(published, len(groups)):
                values = curve.robust if name == "pgd_accuracy" else curve.natural
                until = sum(epoch <= last for epoch in curve.epochs)
                values = [100 * value for value in values[:until]]
                label = f"published: {curve.name}"
                look = {"color": style.colour(index), "marker": style.marker(index)}
                axes.plot(
                    curve.epochs[:until], values, ":", label=label, markevery=20, ms=2.5, **look
                )
                shown += values[until // 3 :]
            for epoch in falls if len(falls) <= 4 else ():
                axes.axvline(epoch, color=style.GREY, ls=style.DOTTED, lw=0.8, zorder=0)
            axes.set(ylabel=heading)
            style.show_percent(axes, shown)
        both[-1].set(xlabel="epoch")
        lines = [("test", "-"), ("training", style.DASHED)]
        dashed = any(mean_curve(m, "train_pgd_accuracy") for m in groups.values())
        extra = [
            Line2D([], [], color=style.GREY, ls=ls, label=label, lw=1)
            for label, ls in lines[: 1 + dashed]
        ]
        style.title(figure, title, setting(results, counts))
        style.legend(figure, both[0], extra, columns=3)
    return _caption(counts, falls, bool(published))


def _caption(counts: Sequence[int], falls: Sequence[float], published: bool) -> str:
    kinds = ["over seeds"] * (max(counts) > 1) + ["over test images for one seed"] * (
        min(counts) == 1
    )
    parts = [
        f"Accuracy on test images (solid) over epochs, with 95% intervals {' or '.join(kinds)} as bands "
        "and the best epoch of each mean ringed"
    ]
    if 0 < len(falls) <= 4:
        parts.append(
            f"the learning rate falls after {' and '.join(f'{fall:g}' for fall in falls)} epochs"
        )
    if published:
        parts.append("published curves are dotted")
    return "; ".join(parts) + "."
