"""Accuracy of one network over the radius of the attacks."""

import pathlib
from collections.abc import Sequence
from typing import Any

from rwp_jax.files import write_json
from rwp_jax.report import style
from rwp_jax.report.spread import Spread
from rwp_jax.report.titles import NORMS, radius, words

_NATURAL = "natural"


def curves(summaries: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, list[tuple]]:
    """Column -> (radius, its entry of evaluation.json) in ascending order, from natural accuracy at 0.

    Args:
      summaries: what evaluation.json holds, one for each radius, in ascending order.
      names: of the columns; those that a radius lacks are left out there.
    """
    natural = summaries[0]["columns"][_NATURAL]
    return {
        name: [
            (0.0, natural),
            *((s["epsilon"], s["columns"][name]) for s in summaries if name in s["columns"]),
        ]
        for name in names
        if name != _NATURAL
    }


def draw_radii(
    summaries: Sequence[dict[str, Any]],
    headings: dict[str, str],
    config,
    title: str,
    path: pathlib.Path,
) -> str:
    """Draws accuracy under each attack over its radius as PNG, and writes the values beside it as JSON.

    Args:
      summaries: see `curves`.
      headings: column -> its name in the legend; these are drawn.
      config: of the run, whose radius of training is marked.
      title: over the picture.
      path: of the picture.

    Returns:
      A caption.
    """
    found = curves(summaries, list(headings))
    norm, examples = summaries[0]["norm"], summaries[0]["examples"]
    with style.panels(path, 2.8) as (figure, (axes,)):
        shown: list[float] = []
        for index, (name, points) in enumerate(found.items(), start=3):  # looks of no method
            x = [epsilon for epsilon, _ in points]
            spreads = [
                Spread(entry["accuracy"], None, 1, *entry["interval_95"]).scaled(100)
                for _, entry in points
            ]
            style.draw_mean(axes, x, spreads, index, headings[name], markevery=1)
            shown += [value for s in spreads for value in (s.mean, s.low, s.high)]
        axes.set(xlabel=f"radius ε ({NORMS[norm]})", ylabel="accuracy (%)", xlim=(0, None))
        style.show_percent(axes, shown)
        if norm == config.threat.norm:
            label = f"trained at {radius(config.threat.epsilon)}"
            axes.axvline(
                config.threat.epsilon, color=style.GREY, ls=style.DASHED, lw=0.9, label=label
            )
        style.title(figure, title, ", ".join([*words(config, 0), f"seed {config.seed}"]))
        style.legend(figure, axes)
    write_json(path.with_suffix(".json"), {"examples": examples, "radii": list(summaries)})
    images = f"{examples:,} {summaries[0]['split']} images"
    return (
        f"Accuracy of one network under each attack over the attack's radius, on {images}, with 95% "
        "intervals (Wilson) over images; the dashed line is the radius of training."
    )
