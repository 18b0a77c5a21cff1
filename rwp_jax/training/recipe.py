"""Builds the recipe of a config's training step, and the numbers in it that a sweep varies."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import optax

from rwp_jax.attacks.threat_model import ball, make_threat_model
from rwp_jax.errors import InputError, named_in
from rwp_jax.models.classifier import Classifier
from rwp_jax.training.optimizer import check_pattern, make_sgd
from rwp_jax.training.schedules import make_schedule, momentum_schedule
from rwp_jax.training.train_step import PGDSettings, Recipe
from rwp_jax.training.training_data import objective_of
from rwp_jax.training.weight_averaging import Averaging, first_step
from rwp_jax.training.weight_perturbation import (
    WeightPerturbation,
    from_settings,
    perturbing,
)


class Numbers(NamedTuple):
    """Hyperparameters that are arguments of the compiled step, so that a sweep over them compiles it once.

    Scalars of the parameters' dtype: `config.threat.epsilon`, `config.attack.step_size`, gamma and c_min of
    `config.weight_perturbation`, `config.optimizer.learning_rate`.
    """

    epsilon: Any
    step_size: Any
    gamma: Any
    c_min: Any
    learning_rate: Any


def param_dtype(config) -> str:
    """Returns the dtype of parameters, evaluations and Numbers: float32 even if training uses bfloat16."""
    return "float64" if config.dtype == "float64" else "float32"


def numbers_of(config) -> Numbers:
    """Returns the config's Numbers."""
    perturbation = config.weight_perturbation
    numbers = (
        config.threat.epsilon,
        config.attack.step_size,
        perturbation.gamma,
        perturbation.c_min,
        config.optimizer.learning_rate,
    )
    return Numbers(*(np.asarray(number, param_dtype(config)) for number in numbers))


def _perturbation_settings(config) -> dict[str, Any]:
    """Returns the settings without `start_epoch`, which the training step uses, not the perturbation."""
    settings = config.weight_perturbation.to_dict()
    del settings["start_epoch"]
    return settings


def weight_perturbation_of(config) -> WeightPerturbation:
    """Returns the config's weight perturbation; raises InputError if a value is invalid."""
    perturbation = _perturbation_settings(config)
    with named_in("config.weight_perturbation", " ".join(perturbation)):
        return from_settings(**perturbation)


def check_recipe(config) -> None:
    """Raises InputError if a value of the recipe is invalid."""
    with named_in("config.threat", "norm epsilon", variant="config.attack"):
        make_threat_model(config.threat.norm, config.threat.epsilon, config.attack.variant)
    weight_perturbation_of(config)
    schedule_of(config, 1, config.optimizer.learning_rate)
    momentum_of(config, 1)
    check_pattern(config.optimizer.no_decay)
    if not objective_of(config).mixes_labels and config.augment.cutmix:
        raise InputError(
            f"config.augment.cutmix={config.augment.cutmix} needs an objective that takes mixed labels "
            "(Objective.mixes_labels), such as at, trades or rst, not config.objective.name="
            f"{config.objective.name!r}"
        )


def schedule_of(config, steps_per_epoch: int, learning_rate) -> optax.Schedule:
    return make_schedule(
        config.optimizer.schedule,
        learning_rate,
        config.epochs,
        steps_per_epoch,
        param_dtype(config),
        config.optimizer.warmup,
    )


def momentum_of(config, steps_per_epoch: int) -> float | Callable:
    """Returns the momentum, or a function of the step; raises InputError if the cycle is invalid."""
    optimizer = config.optimizer
    cycle = tuple(optimizer.cycle_momentum)
    if not cycle:
        return optimizer.momentum
    key = f"config.optimizer.cycle_momentum={cycle}"
    if len(cycle) != 2 or not 0 <= cycle[0] <= cycle[1] < 1:
        raise InputError(f"{key} must be (), or the lowest and the highest momentum in [0, 1)")
    if optimizer.schedule not in ("one_cycle", "one_cycle_epoch"):
        raise InputError(
            f"{key} needs config.optimizer.schedule='one_cycle' or 'one_cycle_epoch', not "
            f"{optimizer.schedule!r}"
        )
    return momentum_schedule(
        optimizer.schedule, cycle, config.epochs, steps_per_epoch, optimizer.warmup
    )


def averaging_of(config, steps_per_epoch: int, shift: int) -> Averaging:
    """Returns the settings of the averaged weights; the arguments are those of `make_recipe`."""
    first = 0
    if config.ema_start:  # without, it begins with the state's first step, whatever the shift
        first = first_step(config.ema_start, config.epochs * steps_per_epoch) - shift
    return Averaging(config.ema_decay, first, config.ema_copy_batch_stats)


def make_recipe(
    config, classifier: Classifier, steps_per_epoch: int, numbers: Numbers, shift: int = 0
) -> tuple[Recipe, optax.Schedule]:
    """Returns the recipe, and its learning rate as a function of the step.

    Args:
      config: has passed `check_recipe`.
      classifier: the config's network.
      steps_per_epoch: positive.
      numbers: the config's; may be traced.
      shift: steps that the schedule is ahead of the state's count, in a run whose earlier epochs had more
        or fewer steps.
    """
    optimizer = config.optimizer
    later = lambda schedule: (lambda step: schedule(step + shift)) if shift else schedule
    schedule = later(schedule_of(config, steps_per_epoch, numbers.learning_rate))
    momentum = momentum_of(config, steps_per_epoch)
    traced = {"gamma": numbers.gamma, "c_min": numbers.c_min}
    recipe = Recipe(
        classifier,
        objective_of(config),
        ball(config.threat.norm, numbers.epsilon, config.attack.variant),
        PGDSettings(config.attack.steps, numbers.step_size, config.attack.bn),
        perturbing(**_perturbation_settings(config) | traced),
        min(config.weight_perturbation.start_epoch, config.epochs) * steps_per_epoch - shift,
        make_sgd(
            schedule,
            later(momentum) if callable(momentum) else momentum,
            optimizer.weight_decay,
            optimizer.nesterov,
            optimizer.clip_norm,
            optimizer.no_decay,
        ),
        averaging_of(config, steps_per_epoch, shift),
        config.gradient_dtype,
        config.model.per_device_batch_norm,
    )
    return recipe, schedule
