"""The picture that every run draws of itself."""

import pathlib

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  the backend must be chosen first

CURVES = {  # (split, figure): (label, colour, line style)
    ("train", "natural_accuracy"): ("natural, train", "tab:blue", "--"),
    ("test", "natural_accuracy"): ("natural, test", "tab:blue", "-"),
    ("validation", "natural_accuracy"): ("natural, validation", "tab:blue", ":"),
    ("train", "pgd_accuracy"): ("PGD, train", "tab:red", "--"),
    ("test", "pgd_accuracy"): ("PGD, test", "tab:red", "-"),
    ("validation", "pgd_accuracy"): ("PGD, validation", "tab:red", ":"),
}


def draw_learning_curve(records: list[dict], title: str, path: pathlib.Path) -> None:
    """Draws natural and robust accuracy of every split over epochs, the best epoch marked, as PNG.

    Args:
      records: of metrics.jsonl, see `metrics.read_metrics`.
      title: over the picture.
      path: of the file to write.
    """
    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    for (split, name), (label, colour, style) in CURVES.items():
        points = [(r["epoch"] + 1, r[name]) for r in records if r["split"] == split and name in r]
        if points:
            epochs, values = zip(*points, strict=True)
            marker = "." if len(points) == 1 else None
            percent = [100 * value for value in values]
            axes.plot(epochs, percent, style, color=colour, label=label, marker=marker)
    tests = [r for r in records if r["split"] == "test"]
    if tests:
        best = max(tests, key=lambda r: (r["pgd_accuracy"], -r["epoch"]))
        axes.plot(best["epoch"] + 1, 100 * best["pgd_accuracy"], "o", color="tab:red", label="best")
    axes.set(xlabel="epoch", ylabel="accuracy (%)", title=title)
    axes.grid(alpha=0.3)
    if axes.has_data():  # an imported run has no epochs of its own
        axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)
