"""The picture that every run draws of itself."""

import pathlib

from rwp_jax.report import style

_SPLITS = {"test": "-", "train": style.DASHED, "validation": (0, (1, 1))}  # split -> its line
_FIGURES = {"pgd_accuracy": "PGD", "natural_accuracy": "natural"}


def draw_learning_curve(records: list[dict], title: str, path: pathlib.Path) -> None:
    """Draws natural and robust accuracy of every split over epochs, the best epoch marked, as PNG.

    Args:
      records: of metrics.jsonl, see `metrics.read_metrics`.
      title: over the picture.
      path: of the file to write.
    """
    with style.panels(path, 2.6) as (figure, (axes,)):
        shown = []
        for index, (name, label) in zip((2, 0), _FIGURES.items(), strict=True):
            for split, dash in _SPLITS.items():
                points = [
                    (r["epoch"] + 1, 100 * r[name])
                    for r in records
                    if r["split"] == split and name in r
                ]
                if not points:
                    continue
                epochs, values = zip(*points, strict=True)
                look = {"color": style.colour(index), "marker": style.marker(index)}
                every = max(1, len(epochs) // 8)
                thin = {} if split == "test" else {"lw": 0.8, "ms": 2.5}
                axes.plot(
                    epochs,
                    values,
                    ls=dash,
                    label=f"{label}, {split}",
                    markevery=every,
                    **look,
                    **thin,
                )
                shown += values
                if (split, name) == ("test", "pgd_accuracy"):
                    style.mark_best(axes, epochs, values, index, below=False)
        axes.set(xlabel="epoch", ylabel="accuracy (%)")
        style.show_percent(axes, shown)
        style.title(figure, title, "")
        if shown:  # an imported run has no epochs of its own
            style.legend(figure, axes)
