"""Lists the runs of an experiment: a config and a directory for every point and seed."""

import ast
import fnmatch
import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_collections

from rwp_jax.errors import InputError
from rwp_jax.names import hint_at, matches
from rwp_jax.reproduce.experiments import Experiment, Point
from rwp_jax.reproduce.scales import SCALES
from rwp_jax.runs import layout
from rwp_jax.runs.config import flatten
from rwp_jax.runs.metrics import read_metrics

RUNS = "runs"
_SELF_EXPLAINING = ("weight_perturbation.name", "model.name")


class Run(NamedTuple):
    """One training run of an experiment.

    Attributes:
      name: describes the setting; experiments that share a run share its name.
      point: the run's point in the experiment.
      config: the run's config.
      directory: WORKDIR/runs/NAME.
    """

    name: str
    point: Point
    config: ml_collections.ConfigDict
    directory: pathlib.Path

    @property
    def finished(self) -> bool:
        """Whether training has finished."""
        return layout.finished(self.directory, self.config.epochs) is not None

    @property
    def epochs_done(self) -> int:
        return len({r["epoch"] for r in read_metrics(self.directory) if r["split"] == "train"})


class Override(NamedTuple):
    """An --override: sets `key` to the text `value` in runs whose names match `pattern`."""

    pattern: str
    key: str
    value: str


def parse_override(text: str) -> Override:
    """Parses [PATTERN:]KEY=VALUE; raises InputError for anything else."""
    left, equals, value = text.partition("=")
    pattern, _, key = left.rpartition(":")
    if not equals or not key:
        raise InputError(
            f"override={text} must be KEY=VALUE, or PATTERN:KEY=VALUE for runs whose names match"
        )
    return Override(pattern or "*", key, value)


def _typed(override: Override, default: Any) -> Any:
    """Converts the value to the type of `default`; raises InputError if it cannot."""
    if isinstance(default, str):
        return override.value
    try:
        numerator, slash, denominator = override.value.partition("/")
        if isinstance(default, float) and slash:
            return float(numerator) / float(denominator)
        if isinstance(default, float):
            return float(override.value)
        value = ast.literal_eval(override.value)
        if type(value) is type(default):
            return value
    except (ValueError, SyntaxError, ZeroDivisionError):
        pass
    raise InputError(
        f"override={override.key}={override.value} must be of type {type(default).__name__}"
    )


def _run_name(config: str, changes: dict[str, Any], seed: int) -> str:
    """Returns a run's name, such as digits_at_awp_gamma0.02_seed0."""
    parts = [config.replace(":", "_")]
    for key, value in changes.items():
        what = "" if key in _SELF_EXPLAINING else key.rpartition(".")[2]
        parts.append(f"{what}{value:g}" if isinstance(value, float) else f"{what}{value}")
    return "_".join([*parts, f"seed{seed}"])


def _make_run(
    point: Point, experiment: Experiment, seed: int, overrides, directory, load_config
) -> Run:
    fixed = {key for other in experiment.points for key in other.changes}
    config = load_config(point.config)
    defaults = flatten(config.to_dict())
    # Values equal to the default are not part of the name, so that experiments share runs.
    changes = {key: value for key, value in point.changes.items() if defaults[key] != value}
    scale = SCALES[experiment.scale]
    name = _run_name(point.config, changes, seed)
    if experiment.scale != scale.prefix:  # another scale uses configs of the same names
        name = f"{experiment.scale}_{name}"
    changes |= scale.changes | experiment.changes
    for override in overrides:
        if override.key not in defaults or override.key == "seed":
            hint = "seeds= sets it" if override.key == "seed" else hint_at(override.key, defaults)
            raise InputError(f"override=: {override.key}: no such key; {hint}")
        if override.key in {"threat.norm", *fixed}:
            raise InputError(f"override=: {override.key} is set by the experiment itself")
        if fnmatch.fnmatch(name, override.pattern):
            changes[override.key] = _typed(override, defaults[override.key])
    config.update_from_flattened_dict(changes)
    config.seed = seed
    return Run(name, point, config, directory / RUNS / name)


def list_runs(
    experiment: Experiment,
    seeds: int | None,
    overrides: list[Override],
    directory: pathlib.Path,
    load_config: Callable[[str], ml_collections.ConfigDict],
) -> list[Run]:
    """All runs of an experiment, seed by seed.

    Args:
      experiment: see `experiments.make_experiment`.
      seeds: number of seeds, from 0; None for the experiment's default.
      overrides: see `parse_override`.
      directory: directory of the runs and reports.
      load_config: maps the name of a config, such as `cifar10_at:l2`, to the config.

    Raises:
      InputError: for an override with an unknown key, a wrong type or no matching run.
    """
    seeds = experiment.seeds if seeds is None else seeds
    if seeds < 1:
        raise InputError(f"seeds={seeds} must be at least 1")
    runs = [
        _make_run(point, experiment, seed, overrides, directory, load_config)
        for seed in range(seeds)
        for point in experiment.points
    ]
    for override in overrides:
        if not fnmatch.filter([run.name for run in runs], override.pattern):
            raise InputError(f"override={override.pattern}:{override.key}: no run of that name")
    return runs


def select(runs: list[Run], patterns: str) -> list[Run]:
    """Returns the runs that match any of the comma-separated shell patterns; InputError if none does."""
    chosen = [run for run in runs if matches(run.name, patterns)]
    if not chosen:
        raise InputError(f"only={patterns}: no run of that name; list= shows them")
    return chosen


def check_directory(run: Run) -> None:
    """Raises InputError if the run's directory belongs to something else; changes nothing."""
    layout.check(run.directory, json.loads(run.config.to_json()), resume=True)
