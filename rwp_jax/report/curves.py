"""Plots the learning curves of several runs in one picture."""

import pathlib
from collections.abc import Sequence

from matplotlib.lines import Line2D

from rwp_jax.report import palette, style
from rwp_jax.report.drops import draw_drops
from rwp_jax.report.published import PublishedCurve
from rwp_jax.report.results import Result, measured_since
from rwp_jax.report.spread import Spread, spread
from rwp_jax.report.titles import setting

_PANELS = {"pgd_accuracy": "PGD accuracy (%)", "natural_accuracy": "natural accuracy (%)"}


def mean_curve(results: Sequence[Result], name: str) -> dict[int, Spread]:
    """Returns epoch (from 1) -> mean of metric `name` over runs, at the epochs that all runs measured."""
    curves = [dict(zip(*result.curve(name), strict=True)) for result in results]
    epochs = sorted(set.intersection(*map(set, curves)))
    examples = results[0].test_images if not name.startswith("train_") else None
    values = {epoch: spread([curve[epoch] for curve in curves], examples) for epoch in epochs}
    return {epoch: value.within(0, 1) for epoch, value in values.items()}


def _draw(
    axes, curve: dict[int, Spread], index: int, label: str | None, training: bool, since: int = 0
) -> list:
    """Draws a mean with its band; returns the values drawn after the first third of epochs, in %.

    The best of the epochs after `since` is ringed, unless the curve is of training images.
    """
    epochs, points = list(curve), [point.scaled(100) for point in curve.values()]
    means = [point.mean for point in points]
    if training:  # drawn next to the test curve, without a band
        points = [point._replace(low=None, high=None) for point in points]
    look = style.training(index) if training else {}
    style.draw_mean(axes, epochs, points, index, label, **look)
    if not training and points:
        style.mark_best(axes, epochs, means, index, since)
    # Accuracies start at chance; an axis with these values would compress the differences of interest.
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
    """Draws PGD accuracy over epochs, and natural accuracy below it, with one mean per group of runs.

    Test accuracies are solid, with 95% intervals as bands and a ring at the best epoch. Training
    accuracies, if measured, are dashed. Published curves are dotted and end with the runs. Colours are
    those of the methods, see `palette.looks`.

    Args:
      groups: name -> runs that differ only in the seed.
      published: curves from `published.choose_published`.
      title: title of the picture.
      path: PNG file to write.

    Returns:
      The caption.
    """
    results = [result for members in groups.values() for result in members]
    counts = [len(members) for members in groups.values()]
    looks = palette.looks((members[0].config for members in groups.values()), len(published))
    with style.panels(path, 2.6, 2.0, sharex=True) as (figure, both):
        last = max(result.epochs[-1]["epoch"] + 1 for result in results)
        falls = draw_drops(both, [(result.config, result.history) for result in results])
        for axes, (name, heading) in zip(both, _PANELS.items(), strict=True):
            shown = []
            for index, (label, members) in zip(looks, groups.items(), strict=False):
                shown += _draw(axes, mean_curve(members, f"train_{name}"), index, None, True)
                since = max(measured_since(r.epochs, r.history) for r in members)
                shown += _draw(axes, mean_curve(members, name), index, label, False, since)
            for index, curve in zip(looks[len(groups) :], published, strict=True):
                values = curve.robust if name == "pgd_accuracy" else curve.natural
                until = sum(epoch <= last for epoch in curve.epochs)
                values = [100 * value for value in values[:until]]
                label = f"published: {curve.name}"
                look = {"color": style.colour(index), "marker": style.marker(index)}
                axes.plot(
                    curve.epochs[:until], values, ":", label=label, markevery=20, ms=2.5, **look
                )
                shown += values[until // 3 :]
            axes.set(ylabel=heading)
            style.show_percent(axes, shown)
        style.show_epochs(both[-1], last)
        dashed = any(mean_curve(m, "train_pgd_accuracy") for m in groups.values())
        lines = [("test", {}), ("training", style.training(0))][: 1 + dashed]
        extra = [
            Line2D([], [], **{"color": style.GREY, "marker": "o", "lw": 1, "label": label} | look)
            for label, look in lines
        ]
        style.title(figure, title, setting(results, counts))
        style.legend(figure, both[0], extra, columns=3)
    return _caption(counts, falls, bool(published), dashed)


def _caption(counts: Sequence[int], falls: str, published: bool, dashed: bool) -> str:
    kinds = ["over seeds"] * (max(counts) > 1) + ["over test images for one seed"] * (
        min(counts) == 1
    )
    parts = [
        f"Accuracy on test images (solid) over epochs, with 95% intervals {' or '.join(kinds)} as bands "
        "and the best epoch of each mean ringed, with its value"
    ]
    parts += ["on training images dashed and hollow"] * dashed
    parts += [falls] * bool(falls)
    parts += ["published curves are dotted"] * published
    return "; ".join(parts) + "."
