"""Effect of the Loss Stationary Condition in training: share of open gates and steps of weight ascent."""

import pathlib
from collections.abc import Sequence

from rwp_jax.report import palette, style
from rwp_jax.report.drops import draw_drops
from rwp_jax.report.results import Result
from rwp_jax.report.spread import spread
from rwp_jax.report.titles import setting
from rwp_jax.runs.config import flatten


def perturbs(result: Result) -> bool:
    """Checks whether a run perturbs its weights at all, and has recorded for how many examples."""
    return (
        result.config.weight_perturbation.name != "none"
        and bool(result.mean("train_perturbation_steps"))
        and result.mean("train_gate_open") is not None
    )


def draw_gate(groups: dict[str, Sequence[Result]], title: str, path: pathlib.Path) -> str:
    """Draws the share of examples whose gate is open, and k below it, over epochs; returns a caption.

    Args:
      groups: name -> runs that differ only in the seed. Groups that do not perturb weights are not drawn,
        but count in the choice of colours, so that these match the other pictures.
      title: title of the picture.
      path: PNG file to write.
    """
    shown = {name: members for name, members in groups.items() if all(map(perturbs, members))}
    results = [result for members in shown.values() for result in members]
    counts = [len(members) for members in shown.values()]
    looks = palette.looks(members[0].config for members in groups.values())
    last = max(result.epochs[-1]["epoch"] + 1 for result in results)
    most = max(result.config.weight_perturbation.steps for result in results)
    with style.panels(path, 1.8, 1.6, sharex=True) as (figure, (upper, lower)):
        marked = [(result.config, result.history) for result in results]
        falls = draw_drops((upper, lower), marked)
        for index, (label, members) in zip(looks, groups.items(), strict=True):
            if label not in shown:
                continue
            share = [_shares(result) for result in members]
            steps = [dict(zip(*r.curve("train_perturbation_steps"), strict=True)) for r in members]
            for axes, curves, unit, top in ((upper, share, 100, 100), (lower, steps, 1, most)):
                epochs = sorted(set.intersection(*map(set, curves)))
                values = [spread([curve[e] for curve in curves]).scaled(unit) for e in epochs]
                values = [value.within(0, top) for value in values]
                style.draw_mean(axes, epochs, values, index, label)
        upper.set(ylabel="gate open (%)")
        style.show_percent(upper, (0, 100))
        lower.set(ylabel="steps k")
        style.show_epochs(lower, last)
        style.show_all(lower, [most])
        style.title(figure, title, setting(results, counts))
        style.legend(figure, upper, columns=3)
    parts = [
        "Share of the adversarial examples that the weights are perturbed for (RWP: those with a loss "
        "below c_min at w; AWP: all), and k, the steps of weight ascent taken; means over the training "
        "steps of an epoch"
    ]
    parts += ["bands: 95% intervals over seeds"] * (max(counts) > 1)
    parts += [falls] * bool(falls)
    return "; ".join(parts) + "."


def _shares(result: Result) -> dict[int, float]:
    """Returns epoch -> share of a batch with an open gate before the first step, in [0, 1]."""
    flat = flatten(result.config.to_dict())
    batch = lambda epoch: result.history.config_at(flat, epoch - 1)["batch_size"]
    return {e: count / batch(e) for e, count in zip(*result.curve("train_gate_open"), strict=True)}
