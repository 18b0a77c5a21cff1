"""Finished runs of an experiment, by point."""

from collections.abc import Callable, Sequence

from rwp_jax.report import summary
from rwp_jax.report.differences import Pair, difference_table, verdicts
from rwp_jax.report.results import Result
from rwp_jax.report.table import Table
from rwp_jax.report.titles import setting
from rwp_jax.reproduce.experiments import Experiment, Point

Trained = Sequence[tuple[Point, Result]]  # every finished run with its point


def results_of(trained: Trained, label: str, group: tuple[str, ...] = ()) -> list[Result]:
    """Returns the runs of one point."""
    return [r for point, r in trained if point.label == label and point.group == group]


def groups_of(experiment: Experiment, trained: Trained) -> summary.Groups:
    """Returns the runs by point name, in the experiment's order, without points that have none."""
    groups = {
        point.name: results_of(trained, point.label, point.group) for point in experiment.points
    }
    return {name: results for name, results in groups.items() if results}


def compared(
    experiment: Experiment, trained: Trained, shown: Callable[[str], str] = str
) -> tuple[list[Table], list[str]]:
    """Returns the table of differences, if any seeds can be compared, and its findings in words.

    Args:
      experiment: the experiment whose pairs are compared.
      trained: its finished runs.
      shown: maps the name of a point to its name in the table.
    """
    named = groups_of(experiment, trained)
    pairs = [
        Pair(shown(ours), shown(other), named[ours], named[other])
        for ours, other in experiment.pairs
        if ours in named and other in named
    ]
    table = difference_table(pairs)
    return [table] if table.rows else [], verdicts(pairs, experiment.compared)


def setting_of(experiment: Experiment, trained: Trained) -> str:
    """Describes the settings that the runs share and the number of seeds, for titles."""
    counts = [len(results) for results in groups_of(experiment, trained).values()]
    return setting([result for _, result in trained], counts)
