"""Builds the recipe of a config's training step, and the numbers in it that a sweep varies."""

from typing import Any, NamedTuple

import numpy as np
import optax

from rwp_jax.attacks.threat_model import ball, make_threat_model
from rwp_jax.errors import named_in
from rwp_jax.models.classifier import Classifier
from rwp_jax.training.optimizer import make_schedule, make_sgd
from rwp_jax.training.train_step import PGDSettings, Recipe
from rwp_jax.training.training_data import objective_of
from rwp_jax.training.weight_perturbation import (
    WeightPerturbation,
    make_weight_perturbation,
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
        return make_weight_perturbation(**perturbation)


def check_recipe(config) -> None:
    """Raises InputError if a value of the recipe is invalid."""
    with named_in("config.threat", "norm epsilon", variant="config.attack"):
        make_threat_model(config.threat.norm, config.threat.epsilon, config.attack.variant)
    weight_perturbation_of(config)
    _schedule(config, 1, config.optimizer.learning_rate)
    objective_of(config)


def _schedule(config, steps_per_epoch: int, learning_rate) -> optax.Schedule:
    name, epochs = config.optimizer.schedule, config.epochs
    return make_schedule(name, learning_rate, epochs, steps_per_epoch, param_dtype(config))


def make_recipe(
    config, classifier: Classifier, steps_per_epoch: int, numbers: Numbers
) -> tuple[Recipe, optax.Schedule]:
    """Returns the recipe, and its learning rate as a function of the step.

    Args:
      config: has passed `check_recipe`.
      classifier: the config's network.
      steps_per_epoch: positive.
      numbers: the config's; may be traced.
    """
    optimizer = config.optimizer
    schedule = _schedule(config, steps_per_epoch, numbers.learning_rate)
    traced = {"gamma": numbers.gamma, "c_min": numbers.c_min}
    recipe = Recipe(
        classifier,
        objective_of(config),
        ball(config.threat.norm, numbers.epsilon, config.attack.variant),
        PGDSettings(config.attack.steps, numbers.step_size, config.attack.bn),
        perturbing(**_perturbation_settings(config) | traced),
        min(config.weight_perturbation.start_epoch, config.epochs) * steps_per_epoch,
        make_sgd(schedule, optimizer.momentum, optimizer.weight_decay, optimizer.nesterov),
        config.ema_decay,
        config.gradient_dtype,
        config.model.per_device_batch_norm,
    )
    return recipe, schedule
