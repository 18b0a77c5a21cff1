"""Shows the settings of runs that are compared, and says where they make figures incomparable."""

import pathlib
from collections.abc import Callable, Sequence

from rwp_jax.report import titles
from rwp_jax.report.results import Result, measured_since
from rwp_jax.report.summary import Groups
from rwp_jax.report.table import MISSING, Table


def _data(config) -> str:
    """Names the data set, and the file of one that has no name."""
    path = config.data.get("path", "") if config.data.name == "npz" else ""
    return f"{titles.images(config)} {pathlib.Path(path).name}".rstrip()


def _perturbation(config) -> str:
    name = config.weight_perturbation.name
    return "none" if name == "none" else name.upper()


def _perturbed(key: str, *methods: str) -> Callable:
    """Returns a function from a config to a key of its weight perturbation, MISSING for other methods."""

    def figure(config) -> str:
        perturbation = config.weight_perturbation
        return f"{perturbation[key]:g}" if perturbation.name in methods else MISSING

    return figure


_COLUMNS: dict[str, Callable] = {
    "data": _data,
    "network": titles.network,
    "objective": lambda config: config.objective.name.upper(),
    "weight perturbation": _perturbation,
    "γ": _perturbed("gamma", "awp", "rwp"),
    "c_min": _perturbed("c_min", "rwp"),
    "K2": _perturbed("steps", "rwp"),
    "norm": lambda config: titles.NORMS.get(config.threat.norm, config.threat.norm),
    "ε": lambda config: titles.radius(config.threat.epsilon).removeprefix("ε = "),
    "batch": lambda config: str(config.batch_size),
    "learning rate": lambda config: f"{config.optimizer.learning_rate:g}",
    "epochs": lambda config: str(config.epochs),
}
# What makes accuracies incomparable, in words; a picture shows all runs on one axis.
_INCOMPARABLE = {"data": "data sets", "norm": "norms", "ε": "radii"}


def settings_table(groups: Groups) -> Table:
    """Returns a table with a row per group of runs: its settings, and its seeds."""
    rows = []
    for name, results in groups.items():
        config = results[0].config
        seeds = ", ".join(str(seed) for seed in sorted(result.config.seed for result in results))
        rows.append([name, *(column(config) for column in _COLUMNS.values()), seeds])
    note = "γ and K2: size and steps of the weight perturbation; ε in units of pixels in [0, 1]."
    return Table("Settings", ["run", *_COLUMNS, "seeds"], rows, note)


def incomparable(results: Sequence[Result]) -> list[str]:
    """Returns a remark on the settings that differ and make accuracies incomparable; [] if none does."""
    found = []
    for column, plural in _INCOMPARABLE.items():
        values = sorted({_COLUMNS[column](result.config) for result in results})
        if len(values) > 1:
            found.append(f"{plural} ({', '.join(values)})")
    if not found:
        return []
    return [
        f"These runs have different {' and '.join(found)}: their accuracies are not comparable."
    ]


def histories(results: Sequence[Result]) -> list[str]:
    """Returns a remark on each run that changed during training, or that began with given weights."""
    found = []
    for result in results:
        begun = result.history.init_from
        told = [f"begun with the weights of {begun.get('source')}"] if begun else []
        told += [change.described() for change in result.history.changes]
        since = measured_since(result.epochs, result.history)
        told += [f"the best epoch is chosen after epoch {since}, as the evaluation changed"] * (
            since > 0
        )
        if told:
            found.append(f"{result.directory}: {'; '.join(told)}.")
    return found
