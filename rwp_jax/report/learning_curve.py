"""Plots the learning curve of a single run."""

import pathlib

from rwp_jax.report import style
from rwp_jax.report.drops import NONE, draw_drops
from rwp_jax.report.results import measured_since
from rwp_jax.report.titles import words
from rwp_jax.runs.history import History

_SPLITS = {"test": "-", "train": style.DASHED, "validation": (0, (1, 1))}  # split -> its line
_FIGURES = {"pgd_accuracy": ("PGD", 6), "natural_accuracy": ("natural", 3)}  # not methods' looks


def draw_learning_curve(
    records: list[dict], config, title: str, path: pathlib.Path, history: History = NONE
) -> None:
    """Draws natural and robust accuracy of every split over epochs as PNG and marks the best epochs.

    Args:
      records: records of metrics.jsonl, see `metrics.read_metrics`.
      config: newest config of the run.
      title: title of the picture.
      path: file to write.
      history: changes of the config; the best epochs are those measured as the newest one.
    """
    since = measured_since([r for r in records if r["split"] == "test"], history)
    last = max((record["epoch"] + 1 for record in records), default=0)
    with style.panels(path, 2.8) as (figure, (axes,)):
        shown = []
        for name, (label, index) in _FIGURES.items():
            for split, dash in _SPLITS.items():
                points = [
                    (r["epoch"] + 1, 100 * r[name])
                    for r in records
                    if r["split"] == split and name in r
                ]
                if not points:
                    continue
                epochs, values = zip(*points, strict=True)
                look = {"color": style.colour(index), "marker": style.marker(index), "ls": dash}
                look["markevery"] = max(1, len(epochs) // 8)
                look |= {} if split == "test" else {"lw": 0.8, "ms": 3, "mfc": "white", "mew": 0.7}
                axes.plot(epochs, values, label=f"{label}, {split}", **look)
                shown += values
                if split == "test":
                    style.mark_best(axes, epochs, values, index, since)
        axes.set(ylabel="accuracy (%)")
        style.show_percent(axes, shown)
        if shown:  # an imported run has no epochs of its own
            draw_drops([axes], [(config, history)])
            style.show_epochs(axes, last)
            style.legend(figure, axes)
        style.title(figure, title, ", ".join([*words(config, last), f"seed {config.seed}"]))
