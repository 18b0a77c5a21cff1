"""Builds Tables 1 and 2, with the paper's numbers next to ours."""

import pathlib

from rwp_jax.report import palette, paper, summary
from rwp_jax.report.page import Picture, Section
from rwp_jax.report.sweep import Line, Sweep, draw_sweep
from rwp_jax.report.table import Table
from rwp_jax.report.titles import DATASETS
from rwp_jax.reproduce.experiments import METHODS, Experiment
from rwp_jax.reproduce.scales import SCALES
from rwp_jax.reproduce.trained import Trained, compared, results_of, setting_of
from rwp_jax.runs.layout import COLUMNS

THREATS = {"l_inf": "L_inf", "l_2": "L_2"}
_SELECTIONS = ("best", "last", "best_by_validation")


def table1(experiment: Experiment, trained: Trained, picture: pathlib.Path) -> Section:
    """Builds Table 1, a row per threat model, data set and method, its picture and the differences."""
    held_out = any(r.figure("best_by_validation", "epoch") is not None for _, r in trained)
    selections = _SELECTIONS if held_out else _SELECTIONS[:2]
    scale = SCALES[experiment.scale]
    substitutes = sorted(
        {DATASETS[name] for name in scale.datasets.values() if name not in _IN_PAPER}
    )
    rows = []
    for threat in scale.threats:
        for name in scale.datasets.values():
            published = name if name in _IN_PAPER else "cifar10"
            for suffix in METHODS:
                results = results_of(trained, f"AT{suffix}", (threat, name))
                ours = [
                    summary.cell(summary.accuracy(results, which, "pgd_accuracy"))
                    for which in selections
                ]
                best, last = paper.TABLE_1[threat, f"AT{suffix}"][published]
                row = [
                    _row(f"AT{suffix}", (threat, name)),
                    ours[0],
                    best,
                    ours[1],
                    last,
                ]
                rows.append([*row, *ours[2:]])
    header = ["threat model, data set, method", "best", "paper: best", "last", "paper: last"]
    header += ["best by validation"] * held_out
    steps = " and ".join(sorted({f"PGD-{r.config.evaluation.steps}" for _, r in trained}))
    instead = f", on CIFAR-10 in place of {', '.join(substitutes)}" if substitutes else ""
    note = (
        f"{steps} accuracy in %. {summary.INTERVALS} The paper's: PGD-20, PreActResNet-18{instead}, mean ± "
        "standard deviation. Best: the best epoch on the test set, as in the paper; best by validation: "
        "chosen on held-out training images."
    )
    names = {point.name: _row(point.label, point.group) for point in experiment.points}
    differences, said = compared(experiment, trained, names.__getitem__)
    table = Table("Robust test accuracy", header, rows, note)
    return Section(
        experiment.title, [_drawn(experiment, trained, picture)], [table, *differences], said
    )


def _row(label: str, group: tuple[str, ...]) -> str:
    threat, name = group
    return f"{THREATS[threat]}, {DATASETS[name]}, {label}"


def _drawn(experiment: Experiment, trained: Trained, picture: pathlib.Path) -> Picture:
    """Draws best and last accuracy of each method, per threat model and data set that has runs."""
    groups = list(dict.fromkeys(point.group for point, _ in trained))

    def line(label: str, method: str, which: str, name: str) -> Line:
        values = [
            summary.accuracy(results_of(trained, label, group), which, name) for group in groups
        ]
        return Line(f"{label}, {which}", values, palette.METHODS.index(method), which)

    methods = [(f"AT{suffix}", method) for suffix, method in METHODS.items()]
    drawn = Sweep(
        "threat model and data set",
        [f"{THREATS[threat]}, {DATASETS[name]}" for threat, name in groups],
        [line(*method, which, "pgd_accuracy") for method in methods for which in ("last", "best")],
        [],
        ("natural, last (%)", [line(*method, "last", "natural_accuracy") for method in methods]),
        "natural accuracy after the last epoch",
        percent=True,
        joined=False,
    )
    caption = draw_sweep(drawn, experiment.title, setting_of(experiment, trained), picture)
    return Picture(picture, caption)


_IN_PAPER = paper.TABLE_1["l_inf", "AT"]


def table2(experiment: Experiment, trained: Trained, _: pathlib.Path) -> Section:
    """Builds Table 2, a row per objective, method and checkpoint, with the paper's rows."""
    rows = []
    for method, published in paper.TABLE_2.items():
        results = results_of(trained, method)
        for which in ("best", "best_by_validation"):
            if any(which in result.evaluations for result in results):
                cells = summary.columns_of(results, which)
                rows.append([f"{method}, ours, {which.replace('_', ' ')}", *cells])
        rows.append([f"{method}, paper, best", *published])
    epsilons: dict[str, list[str]] = {}
    for point, result in trained:
        methods = epsilons.setdefault(f"{result.config.threat.epsilon:.4g}", [])
        methods += [point.label] if point.label not in methods else []
    attacked = "; ".join(f"{', '.join(m)}: epsilon {value}" for value, m in epsilons.items())
    note = (
        f"Accuracy in %. {summary.INTERVALS} Best is the best epoch on the test set, as in the paper; best "
        f"by validation is chosen on held-out training images. Ours are attacked with the epsilon "
        f"of training ({attacked}); the paper's, on CIFAR-10 with WRN-34-10 (RST: WRN-28-10), with 8/255."
    )
    table = Table("Natural and robust test accuracy", ["defense", *COLUMNS.values()], rows, note)
    return Section(experiment.title, tables=[table])
