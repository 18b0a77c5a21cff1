"""The finished runs of an experiment, by what they are in it."""

from collections.abc import Sequence

from rwp_jax.report import summary
from rwp_jax.report.results import Result
from rwp_jax.reproduce.experiments import Experiment, Point

Trained = Sequence[tuple[Point, Result]]  # every finished run and what it is of the experiment


def results_of(trained: Trained, label: str, group: tuple[str, ...] = ()) -> list[Result]:
    """The runs of one point."""
    return [r for point, r in trained if point.label == label and point.group == group]


def groups_of(experiment: Experiment, trained: Trained) -> summary.Groups:
    """The points that have runs, in the experiment's order, by their names."""
    groups = {
        point.name: results_of(trained, point.label, point.group) for point in experiment.points
    }
    return {name: results for name, results in groups.items() if results}
