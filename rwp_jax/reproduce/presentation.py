"""From the runs of an experiment to its table or figure, the paper's beside ours."""

import pathlib
from collections.abc import Callable, Sequence

from rwp_jax.report.page import Section
from rwp_jax.report.published import PublishedCurve
from rwp_jax.reproduce import figures, tables
from rwp_jax.reproduce.experiments import Experiment
from rwp_jax.reproduce.trained import Trained

CURVES = "curves"  # the layout beside which published curves can be drawn
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
    """Makes the experiment's tables, and its figure as PNG at `picture` where it is one.

    `published` are drawn beside learning curves, and nowhere else.
    """
    if experiment.layout == CURVES:
        return figures.curves(experiment, trained, picture, published)
    return _LAYOUTS[experiment.layout](experiment, trained, picture)
