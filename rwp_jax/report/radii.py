"""Plots the accuracy of one network over the radius of the attacks."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from rwp_jax.files import write_json
from rwp_jax.report import style
from rwp_jax.report.spread import Spread
from rwp_jax.report.titles import DATASETS, NORMS, radius, words

_NATURAL = "natural"


def curves(summaries: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, list[tuple]]:
    """Returns column -> [(radius, entry of evaluation.json)], starting with natural accuracy at radius 0.

    Args:
      summaries: contents of evaluation.json, one for each radius, in ascending order.
      names: columns to return; `natural` is ignored.
    """
    natural = summaries[0]["columns"][_NATURAL]
    return {
        name: [(0.0, natural), *((s["epsilon"], s["columns"][name]) for s in summaries)]
        for name in names
        if name != _NATURAL
    }


def draw_radii(
    summaries: Sequence[dict[str, Any]],
    headings: Mapping[str, str],
    config,
    title: str,
    path: pathlib.Path,
) -> str:
    """Draws accuracy under each attack over its radius as PNG; writes the values to a JSON file next to it.

    Args:
      summaries: contents of evaluation.json, see `curves`.
      headings: column to draw -> its name in the legend.
      config: config of the run; its training radius is marked.
      title: title of the picture.
      path: PNG file to write.

    Returns:
      The caption.
    """
    found, first = curves(summaries, list(headings)), summaries[0]
    norm, examples = first["norm"], first["examples"]
    with style.panels(path, 2.8) as (figure, (axes,)):
        shown: list[float] = []
        for index, (name, points) in enumerate(found.items(), start=3):  # looks that no method uses
            x = [epsilon for epsilon, _ in points]
            spreads = [
                Spread(entry["accuracy"], None, 1, *entry["interval_95"]).scaled(100)
                for _, entry in points
            ]
            style.draw_mean(axes, x, spreads, index, headings[name], markevery=1)
            shown += [value for s in spreads for value in (s.mean, s.low, s.high)]
        axes.set(xlabel=f"radius ε ({NORMS[norm]})", ylabel="accuracy (%)")
        style.show_percent(axes, shown)
        trained, largest = norm == config.threat.norm, summaries[-1]["epsilon"]
        if trained:
            label = f"trained at {radius(config.threat.epsilon)}"
            look = {"color": style.GREY, "ls": style.DASHED, "lw": 0.9}
            axes.axvline(config.threat.epsilon, label=label, **look)
            largest = max(largest, config.threat.epsilon)
        axes.set_xlim(-0.03 * largest, 1.05 * largest)  # so that markers at 0 are not clipped
        data = DATASETS.get(first["data"], pathlib.Path(first["data"]).stem)
        evaluated = f"{examples:,} {first['split']} images of {data}"
        network = ", ".join([*words(config, 0), f"seed {config.seed}"])
        style.title(figure, title, f"{evaluated}\ntrained on {network}")
        style.legend(figure, axes)
    caption = (
        f"Accuracy of one network under each attack over the attack's radius, on {evaluated}, with 95% "
        "intervals (Wilson) over images"
    )
    caption += "; the dashed line marks the training radius." if trained else "."
    write_json(path.with_suffix(".json"), {"caption": caption, "radii": list(summaries)})
    return caption
