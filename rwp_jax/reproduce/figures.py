"""Draws the paper's figures from the runs of an experiment."""

import pathlib
from collections.abc import Sequence

from rwp_jax.report import palette, summary
from rwp_jax.report.curves import draw_learning_curves
from rwp_jax.report.gate import draw_gate, perturbs
from rwp_jax.report.page import Picture, Section
from rwp_jax.report.published import PublishedCurve
from rwp_jax.report.sweep import Line, Sweep, draw_sweep
from rwp_jax.reproduce.experiments import REFERENCE, Experiment
from rwp_jax.reproduce.trained import Trained, compared, groups_of, results_of, setting_of

SECOND = {  # lower panel of a sweep: heading, function, scale factor, description
    "gap": (
        "training − test,\nlast (points)",
        summary.mean_gap,
        100,
        "PGD accuracy on training images minus that on test images, after the last epoch",
    ),
    "steps": (
        "mean steps k",
        summary.mean_steps,
        1,
        "the mean number of weight-ascent steps per training step",
    ),
}
_SELECTIONS = {
    "best": "best (on the test set)",
    "best_by_validation": "best by validation",
    "last": "last",
}


def curves(
    experiment: Experiment,
    trained: Trained,
    picture: pathlib.Path,
    published: Sequence[PublishedCurve],
) -> Section:
    """Draws learning curves; published curves are dotted."""
    groups = groups_of(experiment, trained)
    caption = draw_learning_curves(groups, published, experiment.title, picture)
    differences, said = compared(experiment, trained)
    tables = [summary.summary_table(groups), *differences]
    pictures = [Picture(picture, caption)]
    if any(all(map(perturbs, members)) for members in groups.values()):
        path = picture.with_name(f"{picture.stem}_gate.png")
        pictures.append(Picture(path, draw_gate(groups, "The gate in training", path)))
    return Section(experiment.title, pictures, tables, said)


def sweep(experiment: Experiment, trained: Trained, picture: pathlib.Path) -> Section:
    """Draws best and last accuracy over a setting, with AT and AWP as horizontal lines."""
    points = [point for point in experiment.points if point.group != REFERENCE]
    at = [results_of(trained, point.label, point.group) for point in points]
    heading, measure, unit, below = SECOND[experiment.second]
    lower = [(value := measure(results)) and value.scaled(unit) for results in at]
    # A sweep has one method; a point without perturbation is its zero.
    look = max(palette.METHODS.index(point.method) for point in points)
    lines = [
        Line(title, values, look, which, marked=which == "best")
        for which, title in _SELECTIONS.items()
        if any(values := [summary.accuracy(r, which, "pgd_accuracy") for r in at])
    ]
    references = []
    for point in (point for point in experiment.points if point.group == REFERENCE):
        results = results_of(trained, point.label, REFERENCE)
        for which in ("best", "last") if results else ():
            value = summary.accuracy(results, which, "pgd_accuracy")
            index = palette.METHODS.index(point.method)
            references.append(Line(f"{point.label}, {which}", [value], index, which))
    drawn = Sweep(
        experiment.axis,
        [point.label for point in points],
        lines,
        references,
        (heading, [Line("", lower, look)]),
        below,
    )
    words = setting_of(experiment, trained)
    caption = draw_sweep(drawn, experiment.title, words, picture)
    return _with_tables(experiment, trained, Picture(picture, caption))


def gamma(experiment: Experiment, trained: Trained, picture: pathlib.Path) -> Section:
    """Draws AWP and RWP over gamma: PGD accuracy above, natural accuracy below."""
    multiples = list(
        dict.fromkeys(multiple for point in experiment.points for multiple in point.group)
    )
    plain = results_of(trained, "AT", experiment.points[0].group)

    def line(method: str, which: str, name: str) -> Line:
        at = [plain, *(results_of(trained, method, (multiple,)) for multiple in multiples[1:])]
        values = [summary.accuracy(results, which, name) for results in at]
        index = ("AT", *methods).index(method)
        return Line(
            f"{method}, {which}",
            values,
            index,
            which,
            marked=name == "pgd_accuracy" and which == "last",
        )

    methods = ("AT-AWP", "AT-RWP")
    drawn = Sweep(
        experiment.axis,
        multiples,
        [line(method, which, "pgd_accuracy") for method in methods for which in ("last", "best")],
        [],
        ("natural, last (%)", [line(method, "last", "natural_accuracy") for method in methods]),
        "natural accuracy after the last epoch",
        percent=True,
    )
    words = setting_of(experiment, trained)
    caption = draw_sweep(drawn, experiment.title, words, picture)
    return _with_tables(experiment, trained, Picture(picture, caption))


def _with_tables(experiment: Experiment, trained: Trained, picture: Picture) -> Section:
    table = summary.summary_table(groups_of(experiment, trained))
    table = table._replace(header=[experiment.axis, *table.header[1:]])
    differences, said = compared(experiment, trained)
    return Section(experiment.title, [picture], [table, *differences], said)
