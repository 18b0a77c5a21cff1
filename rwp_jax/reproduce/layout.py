"""From the runs of an experiment to its table or figure, the paper's beside ours."""

import pathlib
from collections.abc import Callable, Sequence

from rwp_jax.report import paper, summary
from rwp_jax.report.figures import Sweep, draw_learning_curves, draw_sweep
from rwp_jax.report.page import Section
from rwp_jax.report.results import Result
from rwp_jax.report.table import MISSING, Table
from rwp_jax.reproduce.experiments import METHODS, REFERENCE, SCALES, Experiment, Point
from rwp_jax.robustness import COLUMNS

Trained = Sequence[tuple[Point, Result]]  # every finished run and what it is of the experiment

_THREATS = {"l_inf": "L_inf", "l_2": "L_2"}
_DATASETS = {
    "digits": "digits",
    "svhn_cropped": "SVHN",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
}
SECOND = {  # lower panel of a sweep: its name, its values, their unit
    "gap": ("training − test (points)", summary.gap, 100),
    "steps": ("mean steps k", summary.mean_steps, 1),
}
_SELECTIONS = ("best", "best_by_validation", "last")


def _results(trained: Trained, label: str, group: tuple[str, ...] = ()) -> list[Result]:
    return [r for point, r in trained if point.label == label and point.group == group]


def _best_and_last(results: Sequence[Result]) -> str:
    best, last = (summary.accuracy(results, which, "pgd_accuracy") for which in ("best", "last"))
    return f"{summary.cell(best)} / {summary.cell(last)}" if results else MISSING


def _table1(experiment: Experiment, trained: Trained, _: pathlib.Path) -> Section:
    datasets = SCALES[experiment.scale].datasets.values()
    held_out = any(r.figure("best_by_validation", "epoch") is not None for _, r in trained)
    header = ["threat, method"]
    for name in datasets:
        header.append(f"{_DATASETS[name]}: ours, best / last")
        if held_out:
            header.append(f"{_DATASETS[name]}: ours, best by validation")
        theirs = name if name in paper.TABLE_1["l_inf", "AT"] else "cifar10"
        header.append(f"paper, {_DATASETS[theirs]}, best / last")
    rows = []
    for threat, title in _THREATS.items():
        for suffix in METHODS:
            method, row = f"AT{suffix}", [f"{title}, AT{suffix}"]
            for name in datasets:
                results = _results(trained, method, (threat, name))
                row.append(_best_and_last(results))
                if held_out:
                    chosen = summary.accuracy(results, "best_by_validation", "pgd_accuracy")
                    row.append(summary.cell(chosen))
                published = paper.TABLE_1[threat, method]
                row.append(" / ".join(published.get(name, published["cifar10"])))
            rows.append(row)
    steps = " and ".join(sorted({f"PGD-{r.config.evaluation.steps}" for _, r in trained}))
    note = (
        f"{steps} accuracy in %; the paper's is PGD-20 on PreActResNet-18. Best is the best epoch on the "
        "test set, as in the paper; best by validation is chosen on held-out training images."
    )
    return Section(experiment.title, tables=[Table("Robust test accuracy", header, rows, note)])


def _table2(experiment: Experiment, trained: Trained, _: pathlib.Path) -> Section:
    rows = []
    for method, published in paper.TABLE_2.items():
        results = _results(trained, method)
        for which in ("best", "best_by_validation"):
            evaluations = [r.evaluations[which] for r in results if which in r.evaluations]
            if evaluations:
                rows.append(
                    [f"{method}, ours, {which.replace('_', ' ')}", *summary.columns_of(evaluations)]
                )
        rows.append([f"{method}, paper, best", *published])
    epsilons: dict[str, list[str]] = {}
    for point, result in trained:
        methods = epsilons.setdefault(f"{result.config.threat.epsilon:.4g}", [])
        methods += [point.label] if point.label not in methods else []
    attacked = "; ".join(f"{', '.join(m)}: epsilon {value}" for value, m in epsilons.items())
    note = (
        "Accuracy in %. Best is the best epoch on the test set, as in the paper; best by validation is "
        f"chosen on held-out training images. Ours are attacked within their training's ball ({attacked}), "
        "the paper's, on CIFAR-10 with WRN-34-10 (RST: WRN-28-10), within 8/255."
    )
    table = Table("Natural and robust test accuracy", ["defense", *COLUMNS.values()], rows, note)
    return Section(experiment.title, tables=[table])


def _groups(experiment: Experiment, trained: Trained) -> summary.Groups:
    """The points that have runs, in the experiment's order."""
    groups = {p.label: _results(trained, p.label, p.group) for p in experiment.points}
    return {label: results for label, results in groups.items() if results}


def _curves(experiment: Experiment, trained: Trained, picture: pathlib.Path) -> Section:
    groups = _groups(experiment, trained)
    draw_learning_curves(groups, [], experiment.title, picture)
    return Section(experiment.title, [picture], [summary.summary_table(groups)])


def _sweep(experiment: Experiment, trained: Trained, picture: pathlib.Path) -> Section:
    points = [point for point in experiment.points if point.group != REFERENCE]
    at = [_results(trained, point.label, point.group) for point in points]
    heading, measure, unit = SECOND[experiment.second]
    lower = [measure(results) for results in at]
    lower = [v and v._replace(mean=unit * v.mean, std=v.std and unit * v.std) for v in lower]
    references = {
        f"{point.label}, {which}": summary.accuracy(
            _results(trained, point.label, REFERENCE), which, "pgd_accuracy"
        )
        for point in experiment.points
        if point.group == REFERENCE
        for which in ("best", "last")
    }
    sweep = Sweep(
        experiment.axis,
        [point.label for point in points],
        {which: [summary.accuracy(r, which, "pgd_accuracy") for r in at] for which in _SELECTIONS},
        references,
        (heading, lower),
    )
    draw_sweep(sweep, experiment.title, picture)
    table = summary.summary_table(_groups(experiment, trained))
    table = table._replace(header=[experiment.axis, *table.header[1:]])
    return Section(experiment.title, [picture], [table])


_LAYOUTS: dict[str, Callable[[Experiment, Trained, pathlib.Path], Section]] = {
    "table1": _table1,
    "table2": _table2,
    "curves": _curves,
    "sweep": _sweep,
}


def lay_out(experiment: Experiment, trained: Trained, picture: pathlib.Path) -> Section:
    """Makes the experiment's table, and its figure as PNG at `picture` where it is one."""
    return _LAYOUTS[experiment.layout](experiment, trained, picture)
