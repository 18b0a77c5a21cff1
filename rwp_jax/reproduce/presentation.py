"""Lays out the runs of an experiment as its table or figure, next to the paper's numbers."""

import pathlib
from collections.abc import Callable, Sequence

from rwp_jax.report.page import Section
from rwp_jax.report.published import PublishedCurve
from rwp_jax.reproduce import figures, tables
from rwp_jax.reproduce.experiments import Experiment
from rwp_jax.reproduce.trained import Trained

CURVES = "curves"  # the only layout that can show published curves
_LAYOUTS: dict[str, Callable[[Experiment, Trained, pathlib.Path], Section]] = {
    "table1": tables.table1,
    "table2": tables.table2,
    "sweep": figures.sweep,
    "gamma": figures.gamma,
}


def lay_out(
    experiment: Experiment,
    trained: Trained,
    picture: pathlib.Path,
    published: Sequence[PublishedCurve] = (),
) -> Section:
    """Makes the experiment's tables and draws its figure, if it has one, as a PNG at `picture`.

    The curves in `published` are drawn only in learning curves.
    """
    if experiment.layout == CURVES:
        return figures.curves(experiment, trained, picture, published)
    return _LAYOUTS[experiment.layout](experiment, trained, picture)
