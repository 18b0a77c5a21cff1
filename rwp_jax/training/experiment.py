"""Builds the parts of a run from a config; every value is checked before anything is compiled."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jax import lax
from jax.sharding import Mesh

from rwp_jax.attacks.arguments import check_radius
from rwp_jax.data.augment import make_augment
from rwp_jax.data.cutmix import make_cutmix
from rwp_jax.data.order import Mixture
from rwp_jax.data.sources import Dataset
from rwp_jax.distributed.devices import (
    AXIS,
    Mapped,
    check_batch_size,
    data_parallel,
    filling_batch,
)
from rwp_jax.errors import InputError, named_in
from rwp_jax.evaluation.accuracy import (
    Sizes,
    make_count_correct,
    make_evaluation,
    stepped_attack,
)
from rwp_jax.models.classifier import MODELS, Classifier, make_classifier
from rwp_jax.models.fingerprint import fingerprint
from rwp_jax.models.precision import matmul_precision
from rwp_jax.models.sizes import check_image_size
from rwp_jax.runs.config import network_settings
from rwp_jax.runs.network_record import NetworkRecord
from rwp_jax.training.config_checks import check_numbers, check_precision
from rwp_jax.training.objective_checks import try_own
from rwp_jax.training.objectives import OBJECTIVES
from rwp_jax.training.optimizer import decayed
from rwp_jax.training.recipe import (
    Numbers,
    check_recipe,
    make_recipe,
    numbers_of,
    param_dtype,
)
from rwp_jax.training.train_step import Metrics, Recipe, make_train_step
from rwp_jax.training.training_data import check_labels, mixture_of, objective_of

_MOST_STEPS = 2**28  # schedules count quarters of training in int32


class Parts(NamedTuple):
    """The parts of a run.

    Attributes:
      recipe: the parts and settings of a training step.
      numbers: the recipe's hyperparameters, arguments of the step.
      train_step: (state, TrainingSet, sent, key, numbers) -> (state, Metrics, stop). `sent`, from
        `devices.with_flag`, holds this host's indices and whether it was asked to stop; `stop` is whether
        any host was. If images are streamed, those of this host's part of the batch are one more argument.
      count_correct: the evaluation's mapped function, see `accuracy.make_count_correct`.
      evaluate: accuracies of a network, see `accuracy.make_evaluation`.
      validate: the same on held-out images; None if they are attacked as others.
      evaluation_sizes: epsilon and step size, arguments of `evaluate`.
    """

    recipe: Recipe
    numbers: Numbers
    train_step: Mapped
    count_correct: Mapped
    evaluate: Callable
    validate: Callable | None
    evaluation_sizes: Sizes


def check_sizes(config, dataset: Dataset) -> None:
    """Raises InputError if the config does not fit the data set."""
    check_labels(config, dataset)
    mixture, has_extra = mixture_of(config, dataset), dataset.x_extra is not None
    check_shapes(config, mixture, has_extra, dataset.x_train.shape[1:])
    if MODELS.origin(config.model.name) or OBJECTIVES.origin(config.objective.name):
        recipe = build(config, dataset.num_classes, steps_per_epoch=1).recipe
        recipe = recipe._replace(classifier=_one_device_classifier(config, dataset))
        try_own(config, recipe, dataset.x_train.shape[1:])
    if config.optimizer.no_decay:
        classifier = _one_device_classifier(config, dataset)
        params, _ = classifier.shapes(dataset.x_train.shape[1:])
        decayed(params, config.optimizer.no_decay)


def _one_device_classifier(config, dataset: Dataset) -> Classifier:
    # One device: no axis to share moments over.
    network = network_settings(config.model)
    return make_classifier(num_classes=dataset.num_classes, dtype=config.dtype, **network)


def check_shapes(config, mixture: Mixture, has_extra: bool, image_shape: tuple) -> None:
    """Raises InputError if the config does not fit data of these sizes."""
    if config.batch_size - mixture.extra_per_batch > mixture.num_examples:
        raise InputError(
            f"config.batch_size={config.batch_size} is larger than the training set of "
            f"{mixture.num_examples} images"
        )
    if config.epochs * mixture.steps > _MOST_STEPS:
        raise InputError(
            f"config.epochs={config.epochs} of {mixture.steps} steps each exceed {_MOST_STEPS} steps"
        )
    objective = objective_of(config)
    fraction = config.extra_data.unlabeled_fraction
    wanted = has_extra and (fraction > 0 or objective.needs_extra_data)
    if wanted and fraction >= 0 and not int(fraction * config.batch_size):
        raise InputError(
            f"config.extra_data.unlabeled_fraction={fraction} of config.batch_size="
            f"{config.batch_size} is less than one extra example per batch"
        )
    sizes = {
        "config.threat.epsilon": config.threat.epsilon,
        "config.attack.step_size": config.attack.step_size,
        "config.evaluation.step_size": config.evaluation.step_size,
    }
    for key, size in sizes.items():
        check_radius(key, size, config.threat.norm, image_shape)
    with named_in("config.model", "name"):
        check_image_size(config.model.name, image_shape)
    height, width, channels = image_shape
    mean = config.model.mean
    if len(mean) not in (0, channels):
        raise InputError(
            f"config.model.mean={tuple(mean)} and std must have one entry for each of the images' "
            f"{channels} channels, or both be ()"
        )
    for key in ("padding", "cutout"):
        if config.augment[key] >= min(height, width):
            raise InputError(
                f"config.augment.{key}={config.augment[key]} must be smaller than the images, "
                f"{height}x{width}"
            )


def check_values(config, devices: int | None = None) -> None:
    """Checks all values that do not concern the training data; raises InputError.

    `devices` is the number of devices that a batch is split over, by default all of them.
    """
    check_numbers(config)
    check_precision(config)
    check_batch_size("config.batch_size", config.batch_size, devices)
    if config.evaluation.batch_size:
        check_batch_size("config.evaluation.batch_size", config.evaluation.batch_size, devices)
    build(config, num_classes=2, steps_per_epoch=1)


def check_attack_mode(config) -> None:
    """Raises InputError if no reference attacks in the BN mode; runs begun by 0.1.0 may have any mode."""
    objective = objective_of(config)
    if objective.attack_loss and config.attack.bn not in objective.attack_modes:
        raise InputError(
            f"config.attack.bn={config.attack.bn!r} must be one of {', '.join(objective.attack_modes)} for "
            f"config.objective.name={config.objective.name!r}, as in its reference code"
        )


def check_config(config, devices: int | None = None, is_new: bool = True) -> None:
    """Checks everything that training needs and that is known before data are read; raises InputError.

    `is_new=False` skips the check of the attack mode, for runs that may be resumed.
    """
    check_values(config, devices)
    if is_new:
        check_attack_mode(config)
    has_extra_data = config.extra_data.path or config.data.labeled_examples
    if objective_of(config).needs_extra_data and not has_extra_data:
        raise InputError(
            f"config.objective.name={config.objective.name!r} needs extra data: give its file as "
            "config.extra_data.path, or keep only config.data.labeled_examples of the labels"
        )


def network_record(config, dataset: Dataset) -> NetworkRecord:
    """Returns the record of the network for the run's directory."""
    model, image_shape = config.model, dataset.x_train.shape[1:]
    origin, traced = MODELS.origin(model.name), None
    if origin:
        settings = network_settings(model) | {"dtype": param_dtype(config)}
        classifier = make_classifier(num_classes=dataset.num_classes, **settings)
        traced = fingerprint(classifier, image_shape)
    return NetworkRecord(
        image_shape,
        dataset.num_classes,
        origin,
        OBJECTIVES.origin(config.objective.name),
        traced,
    )


def filled(config, platform: str | None = None, devices: int | None = None):
    """Returns the config; an evaluation batch size of 0 is replaced by one that fills the devices."""
    if config.evaluation.batch_size:
        return config
    config = config.copy_and_resolve_references()
    config.evaluation.batch_size = filling_batch(platform, devices)
    return config


def augmentation_of(config) -> tuple[Callable, Callable | None]:
    """Returns the arguments `augment` and `cutmix` of `make_train_step`; raises InputError if invalid."""
    settings = config.augment.to_dict()
    cutmix = make_cutmix(settings.pop("cutmix"), config.dtype)
    return make_augment(**settings, dtype=config.dtype), cutmix


def build(
    config,
    num_classes: int,
    steps_per_epoch: int,
    mesh: Mesh | None = None,
    shift: int = 0,
    streamed: bool = False,
) -> Parts:
    """Builds the parts without compiling anything; raises InputError if a value is invalid.

    `mesh` holds other devices to compile for; by default, the parts run on all available devices. `shift`
    is that of `make_recipe`. `streamed` is whether the images of each batch are arguments of the step.
    """
    settings = network_settings(config.model)
    network = functools.partial(make_classifier, num_classes=num_classes, **settings)
    moments_over = None if config.model.per_device_batch_norm else AXIS
    dtype = param_dtype(config)
    with named_in("config.model", " ".join(settings), dtype="config", remat="config"):
        classifier = network(dtype=config.dtype, axis_name=moments_over, remat=config.remat)
        judge = network(dtype=dtype)
    check_recipe(config)
    numbers = numbers_of(config)
    augment, cutmix = augmentation_of(config)
    config = config.copy_and_resolve_references()  # a copy: tracing reads it later

    def train_step(state, data, sent, key, numbers, *images):
        recipe, schedule = make_recipe(config, classifier, steps_per_epoch, numbers, shift)
        step = make_train_step(recipe, augment, schedule, AXIS, cutmix)
        with matmul_precision(config.precision):
            state, figures = step(state, data, sent[:-1], key, *images)
        # Part of the step: all hosts see the request after the same step, and none waits for it.
        return state, Metrics.of(figures, dtype), lax.pmax(sent[-1], AXIS)

    split = (False, False, True, False, False, *[True] * streamed)
    train_step = data_parallel(train_step, split, config.parallel, (0,), mesh)
    devices = (mesh.devices.flat[0].platform, mesh.size) if mesh else ()
    batch_size = filled(config, *devices).evaluation.batch_size
    make_count = functools.partial(
        make_count_correct,
        judge,
        config.threat.norm,
        batch_size=batch_size,
        mode=config.parallel,
        precision=config.evaluation.precision,
        mesh=mesh,
    )
    count_correct = make_count(steps=config.evaluation.steps)
    evaluate, validate = make_evaluation(count_correct, batch_size), None
    if config.evaluation.validation_attack:
        attack = stepped_attack(config.evaluation.validation_attack, None)
        validate = make_evaluation(make_count(steps=attack.steps, loss=attack.loss), batch_size)
    recipe, _ = make_recipe(config, classifier, steps_per_epoch, numbers, shift)
    sizes = Sizes(numbers.epsilon, np.asarray(config.evaluation.step_size, dtype))
    return Parts(recipe, numbers, train_step, count_correct, evaluate, validate, sizes)
