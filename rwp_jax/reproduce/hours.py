"""Minimum device-hours of an experiment's runs on a target device, which need not be present."""

import json
import sys
from collections.abc import Sequence

from rwp_jax.errors import InputError
from rwp_jax.hardware.plan import Plan, check, make_plan
from rwp_jax.hardware.topology import Hardware
from rwp_jax.reproduce.run_list import Run
from rwp_jax.runs.config import flatten

# Keys that do not change the cost of a compiled step.
_CONSTANTS = (
    "seed",
    "checkpoint_steps",
    "parallel",
    "threat.epsilon",
    "attack.step_size",
    "evaluation.step_size",
    "objective.beta",
    "optimizer.learning_rate",
    "weight_perturbation.gamma",
    "weight_perturbation.c_min",
    "weight_perturbation.lsc_low",
    "weight_perturbation.lsc_high",
)


def check_runs(runs: Sequence[Run], hardware: Hardware) -> None:
    """Raises an InputError that names the run if one cannot be planned; compiles nothing."""
    for run in runs:
        try:
            check(run.config, hardware)
        except InputError as error:
            raise InputError(f"run {run.name}: {error}") from None


def device_hours(runs: Sequence[Run], hardware: Hardware) -> list[tuple[float, float]]:
    """Returns the minimum remaining device-hours of each run: for k = 0, and for k = K2 in every step.

    Runs that differ only in keys that do not affect the cost are compiled once. Finished runs are not
    compiled.

    Raises:
      InputError: if a run does not fit in memory.
    """
    plans: dict[str, Plan] = {}
    hours = []
    for number, run in enumerate(runs, 1):
        if run.finished:
            hours.append((0.0, 0.0))
            continue
        key = _key(run.config)
        if key not in plans:
            print(f"compiling {run.name} ({number}/{len(runs)})", file=sys.stderr, flush=True)
            try:
                plans[key] = make_plan(run.config, hardware)
            except InputError as error:
                raise InputError(f"run {run.name}: {error}") from None
        plan = plans[key]
        first_stage = 0.0 if run.epochs_done else plan.first_stage
        share = 1 - run.epochs_done / run.config.epochs
        least, most = (first_stage + share * plan.floors[i].run for i in (0, -1))
        hours.append((hardware.devices * least / 3600, hardware.devices * most / 3600))
    return hours


def _key(config) -> str:
    """Returns the keys that determine a run's cost, as JSON."""
    values = flatten(config.to_dict())
    return json.dumps({key: str(v) for key, v in values.items() if key not in _CONSTANTS})
