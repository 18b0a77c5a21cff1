"""Runs behind each table and figure: those of the paper, and two experiments that test its claims."""

from collections.abc import Callable
from typing import Any, NamedTuple

from rwp_jax.errors import InputError
from rwp_jax.reproduce.scales import SCALES

METHODS = {"": "none", "-AWP": "awp", "-RWP": "rwp"}
_MANY = 5  # seeds, for claims that need confidence intervals
# Columns of the differences that a claim about overfitting needs in words.
_COMPARED = ("best: PGD", "last: PGD", "best − last: PGD", "last: PGD, training − test")
_METHODS_COMPARED = (("AT-RWP", "AT"), ("AT-RWP", "AT-AWP"), ("AT-AWP", "AT"))
REFERENCE = ("reference",)  # group of a sweep's points that are drawn as horizontal lines


class Point(NamedTuple):
    """A setting that is trained once per seed.

    Attributes:
      label: label of its row, its curve or its value on the axis.
      config: file in configs/ without .py, optionally with an argument after a colon: `cifar10_at:l2`.
      changes: changes to the config, by dotted key.
      group: further coordinates, such as (threat model, data set) in Table 1.
    """

    label: str
    config: str
    changes: dict[str, Any]
    group: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of its row in the tables of a figure."""
        return ", ".join([self.label, *self.group]) if self.group != REFERENCE else self.label

    @property
    def method(self) -> str:
        """The weight perturbation: `none`, `awp` or `rwp`."""
        return self.changes["weight_perturbation.name"]


class Experiment(NamedTuple):
    """A table or figure.

    Attributes:
      name: `table1`, ...
      scale: a key of SCALES.
      title: title of the report.
      layout: `table1`, `table2`, `curves`, `sweep` or `gamma`.
      points: all settings that are trained.
      axis: label of the x-axis (layouts `sweep` and `gamma`).
      second: content of a sweep's lower panel, a key of `figures.SECOND`.
      finding: the paper's finding, "" if the paper's numbers are shown next to ours.
      pairs: names of points to compare; the first of each pair is expected to be better.
      seeds: default number of runs per point.
      changes: changes to the config of every run, in addition to those of the scale.
      compared: columns of the difference table whose intervals the report puts into words.
    """

    name: str
    scale: str
    title: str
    layout: str
    points: tuple[Point, ...]
    axis: str = ""
    second: str = ""
    finding: str = ""
    pairs: tuple[tuple[str, str], ...] = ()
    seeds: int = 1
    changes: dict[str, Any] = {}
    compared: tuple[str, ...] = ("last: PGD",)


def _point(label: str, config: str, method: str, group=(), **changes) -> Point:
    """Returns a point; `changes` are keys of config.weight_perturbation."""
    changes = {"name": method} | changes
    changes = {f"weight_perturbation.{key}": value for key, value in changes.items()}
    return Point(label, config, changes, group)


def _at(scale: str, label: str, method: str, group=(), **changes) -> Point:
    """Returns a point that trains AT in L_inf, as all figures do."""
    return _point(label, f"{SCALES[scale].prefix}_at", method, group, **changes)


def _references(scale: str) -> tuple[Point, Point]:
    return _at(scale, "AT", "none", REFERENCE), _at(scale, "AT-AWP", "awp", REFERENCE)


def _table1(scale: str) -> Experiment:
    points = (
        _point(f"AT{suffix}", f"{prefix}_at{argument}", method, (threat, dataset))
        for threat, argument in (("l_inf", ""), ("l_2", ":l2"))
        if threat in SCALES[scale].threats
        for prefix, dataset in SCALES[scale].datasets.items()
        for suffix, method in METHODS.items()
    )
    points = tuple(points)
    title = "Table 1: AT, AT-AWP and AT-RWP under PGD-20"
    pairs = [
        tuple(", ".join([method, *group]) for method in pair)
        for group in dict.fromkeys(point.group for point in points)
        for pair in _METHODS_COMPARED
    ]
    return Experiment("table1", scale, title, "table1", points, pairs=tuple(pairs))


def _table2(scale: str) -> Experiment:
    size = SCALES[scale]
    configs = {"at": size.table2_at, "trades": f"{size.prefix}_trades", "rst": f"{size.prefix}_rst"}
    points = [
        _point(f"{objective.upper()}{suffix}", config, method)
        for objective, config in configs.items()
        for suffix, method in METHODS.items()
    ]
    if size.wide:
        wide = lambda p: p._replace(changes=p.changes | {"model.name": size.wide})
        points = [wide(p) if p.config == size.table2_at else p for p in points]
    title = "Table 2: AT, TRADES and RST with no weight perturbation, AWP and RWP"
    return Experiment("table2", scale, title, "table2", tuple(points), changes=size.table2)


def _fig1a(scale: str) -> Experiment:
    title = "Figure 1(a): robust overfitting of AT"
    finding = "robust accuracy on test images falls after the first drop of the learning rate"
    return Experiment("fig1a", scale, title, "curves", (_at(scale, "AT", "none"),), finding=finding)


def _fig1b(scale: str) -> Experiment:
    multiples = {"1/8": 1 / 8, "1/4": 1 / 4, "1/2": 1 / 2, "1": 1, "2": 2, "4": 4, "8": 8}
    points = [_at(scale, label, "awp", gamma=0.01 * by) for label, by in multiples.items()]
    points = (_at(scale, "0", "none"), *points)
    title = "Figure 1(b): AWP over gamma"
    axis = "gamma, in multiples of 0.01"
    finding = (
        "a larger perturbation narrows the gap between training and test, and costs robustness"
    )
    return Experiment("fig1b", scale, title, "sweep", points, axis, "gap", finding)


def _fig1c(scale: str) -> Experiment:
    points = [
        _at(scale, f"[{low:g}, {high:g})".replace("inf", "∞"), "awp", lsc_low=low, lsc_high=high)
        for low, high in SCALES[scale].lsc_ranges
    ]
    points = (*points, *_references(scale))
    title = "Figure 1(c): AWP on losses in a range"
    axis = "range of the loss"
    finding = (
        "perturbing on small losses cures robust overfitting, on large ones it costs robustness"
    )
    pairs = tuple((point.label, "AT") for point in points if point.group != REFERENCE)
    seeds = _MANY if scale == "digits" else 1
    return Experiment(
        "fig1c",
        scale,
        title,
        "sweep",
        points,
        axis,
        "gap",
        finding,
        pairs,
        seeds,
        compared=_COMPARED,
    )


def _fig2a(scale: str) -> Experiment:
    points = [_at(scale, f"{c_min:g}", "rwp", c_min=c_min) for c_min in SCALES[scale].c_mins]
    points = (*points, *_references(scale))
    title = "Figure 2(a): RWP over c_min, beside AT and AWP"
    finding = "robust accuracy is highest at c_min = 1.7, above AT and AWP"
    return Experiment("fig2a", scale, title, "sweep", points, "c_min", "steps", finding)


def _fig2b(scale: str) -> Experiment:
    points = tuple(_at(scale, f"{k2}", "rwp", steps=k2) for k2 in SCALES[scale].k2s)
    title = "Figure 2(b): RWP over K2"
    finding = "robust accuracy rises with K2 and is flat from 7 on"
    return Experiment("fig2b", scale, title, "sweep", points, "K2", "steps", finding)


def _fig2c(scale: str) -> Experiment:
    points = tuple(_at(scale, f"AT{suffix}", method) for suffix, method in METHODS.items())
    title = "Figure 2(c): learning curves of AT, AT-AWP and AT-RWP"
    finding = "RWP's best is above AWP's and AT's, and its last epoch hardly below its best"
    return Experiment(
        "fig2c", scale, title, "curves", points, finding=finding, pairs=_METHODS_COMPARED
    )


def _overfitting(scale: str) -> Experiment:
    title = "AT, AT-AWP and AT-RWP over training"
    return _fig2c(scale)._replace(name="overfitting", title=title, seeds=_MANY, compared=_COMPARED)


def _gamma(scale: str) -> Experiment:
    points = [_at(scale, "AT", "none", ("0",))]
    for multiple, by in {"1/2": 1 / 2, "1": 1, "2": 2, "4": 4, "8": 8}.items():
        for suffix, method in (("-AWP", "awp"), ("-RWP", "rwp")):
            points.append(_at(scale, f"AT{suffix}", method, (multiple,), gamma=0.01 * by))
    pairs = [
        (f"AT-RWP, {multiple}", other)
        for (multiple,) in dict.fromkeys(point.group for point in points[1:])
        for other in (f"AT-AWP, {multiple}", "AT, 0")
    ]
    title = "AT-AWP and AT-RWP over gamma"
    axis = "gamma, in multiples of 0.01"
    finding = "a large perturbation on all examples costs robustness (Figure 1(b)); RWP is not drawn there"
    return Experiment(
        "gamma", scale, title, "gamma", tuple(points), axis, "", finding, tuple(pairs), _MANY
    )


EXPERIMENTS: dict[str, Callable[[str], Experiment]] = {
    "table1": _table1,
    "table2": _table2,
    "fig1a": _fig1a,
    "fig1b": _fig1b,
    "fig1c": _fig1c,
    "fig2a": _fig2a,
    "fig2b": _fig2b,
    "fig2c": _fig2c,
    "overfitting": _overfitting,
    "gamma": _gamma,
}


def make_experiment(name: str, scale: str) -> Experiment:
    """Builds an experiment; raises InputError for an unknown name or scale."""
    if name not in EXPERIMENTS:
        raise InputError(f"experiment={name} must be one of {', '.join(EXPERIMENTS)}")
    if scale not in SCALES:
        raise InputError(f"scale={scale} must be one of {', '.join(SCALES)}")
    return EXPERIMENTS[name](scale)
