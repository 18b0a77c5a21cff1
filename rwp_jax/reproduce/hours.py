"""What the runs of an experiment take at least on hardware that is not there."""

import json
import sys
from collections.abc import Sequence

from rwp_jax.errors import InputError
from rwp_jax.hardware.plan import Plan, make_plan
from rwp_jax.hardware.topology import Hardware
from rwp_jax.reproduce.plan import Run
from rwp_jax.workdir import flatten

# Numbers inside a compiled step that do not change what it costs.
_CONSTANTS = (
    "seed",
    "checkpoint_steps",
    "parallel",
    "threat.epsilon",
    "attack.step_size",
    "evaluation.step_size",
    "objective.beta",
    "objective.entropy_weight",
    "optimizer.learning_rate",
    "weight_perturbation.gamma",
    "weight_perturbation.c_min",
    "weight_perturbation.lsc_low",
    "weight_perturbation.lsc_high",
)


def device_hours(runs: Sequence[Run], hardware: Hardware) -> list[tuple[float, float]]:
    """Device-hours of each run at least, with no step of weight ascent and with K2 in every step.

    Runs that differ in what costs nothing are compiled once.

    Raises:
      InputError: for a run that does not fit.
    """
    plans: dict[str, Plan] = {}
    hours = []
    for number, run in enumerate(runs, 1):
        key = _key(run.config)
        if key not in plans:
            print(f"compiling {run.name} ({number}/{len(runs)})", file=sys.stderr, flush=True)
            try:
                plans[key] = make_plan(run.config, hardware)
            except InputError as error:
                raise InputError(f"run {run.name}: {error}") from None
        floors = plans[key].floors
        device_seconds = [hardware.devices * floors[i].run for i in (0, -1)]
        hours.append((device_seconds[0] / 3600, device_seconds[1] / 3600))
    return hours


def _key(config) -> str:
    """What a run's cost depends on."""
    values = flatten(config.to_dict())
    return json.dumps({key: str(v) for key, v in values.items() if key not in _CONSTANTS})
