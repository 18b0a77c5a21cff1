"""From a config to the parts of a run, with every value checked before anything is compiled."""

import functools
import re
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from rwp_jax.attacks.arguments import check_radius
from rwp_jax.data.augment import make_augment
from rwp_jax.data.order import Mixture
from rwp_jax.data.sources import Dataset
from rwp_jax.distributed.devices import (
    AXIS,
    Mapped,
    check_batch_size,
    data_parallel,
    filling_batch,
)
from rwp_jax.errors import InputError, first_line, named_in
from rwp_jax.evaluation.accuracy import Sizes, make_count_correct, make_evaluation
from rwp_jax.models.classifier import MODELS, make_classifier
from rwp_jax.models.fingerprint import fingerprint
from rwp_jax.models.precision import matmul_precision
from rwp_jax.runs.network_record import NetworkRecord
from rwp_jax.training.config_checks import check_numbers, check_precision
from rwp_jax.training.objective_checks import checked, taken_name
from rwp_jax.training.objectives import OBJECTIVES
from rwp_jax.training.recipe import (
    Numbers,
    check_recipe,
    make_recipe,
    numbers_of,
    param_dtype,
)
from rwp_jax.training.train_step import (
    Metrics,
    Recipe,
    attack_and_update,
    init_state,
    make_train_step,
)
from rwp_jax.training.training_data import mixture_of, objective_of

_MOST_STEPS = 2**28  # schedules count quarters of training in int32


class Parts(NamedTuple):
    """The parts of a run.

    Attributes:
      recipe: what a training step is made of.
      numbers: the recipe's, as arguments of the step.
      train_step: (state, TrainingSet, sent, key, numbers) -> (state, Metrics, stop). `sent`, from
        `devices.with_flag`, are this host's indices and whether it was asked to stop; `stop`, whether any
        was.
      count_correct: the program of an evaluation, see `accuracy.make_count_correct`.
      evaluate: see `accuracy.make_evaluation`.
      evaluation_sizes: epsilon and step size, which `evaluate` takes.
    """

    recipe: Recipe
    numbers: Numbers
    train_step: Mapped
    count_correct: Mapped
    evaluate: Callable
    evaluation_sizes: Sizes


def check_sizes(config, dataset: Dataset) -> None:
    """Checks what depends on the data; raises InputError."""
    mixture, has_extra = mixture_of(config, dataset), dataset.x_extra is not None
    check_shapes(config, mixture, has_extra, dataset.x_train.shape[1:])
    if MODELS.origin(config.model.name) or OBJECTIVES.origin(config.objective.name):
        _try_own(config, dataset)


def _try_own(config, dataset: Dataset) -> None:
    """Traces a network or an objective of the user's own; raises InputError for what goes wrong in it."""
    recipe = build(config, dataset.num_classes, steps_per_epoch=1).recipe
    # One device: no axis to share moments over.
    own = config.model.name, dataset.num_classes, config.model.mean, config.model.std
    recipe = recipe._replace(
        classifier=make_classifier(*own, dtype=config.dtype), objective=checked(recipe.objective)
    )
    names = f"config.model.name={own[0]!r} with config.objective.name={config.objective.name!r}"

    def step(key):
        shape = dataset.x_train.shape[1:]
        state = init_state(recipe, key, shape)
        x, y = (
            jnp.zeros((2, *shape), jax.tree.leaves(state.params)[0].dtype),
            jnp.zeros(2, jnp.int32),
        )
        attack_loss = None
        if recipe.objective.attack_loss:
            forward = lambda images: recipe.classifier.eval(state.params, state.batch_stats, images)
            attack_loss = recipe.objective.attack_loss(forward, x, y)(forward(x))
        return attack_and_update(recipe, state, x, y, jnp.zeros_like(x))[2].aux, attack_loss

    try:
        aux, _ = jax.eval_shape(step, jax.random.key(0))
        wrong = taken_name(recipe.objective, aux)
    except InputError as error:
        if re.match(
            "(per_example|gate_loss|attack_loss)=", str(error)
        ):  # arguments of the objective's
            raise InputError(f"config.objective.name={config.objective.name!r}: {error}") from None
        raise
    except Exception as error:  # whatever the user's code raises
        why = f"{type(error).__name__}: {first_line(error)}"
        raise InputError(
            f"{names} cannot be traced on images {list(dataset.x_train.shape[1:])} ({why})"
        ) from None
    if wrong:
        raise InputError(f"config.objective.name={config.objective.name!r}: {wrong}")


def check_shapes(config, mixture: Mixture, has_extra: bool, image_shape: tuple) -> None:
    """The same for data of which only sizes are known; raises InputError."""
    if config.batch_size - mixture.extra_per_batch > mixture.num_examples:
        raise InputError(
            f"config.batch_size={config.batch_size} is larger than the training set of "
            f"{mixture.num_examples} images"
        )
    if config.epochs * mixture.steps > _MOST_STEPS:
        raise InputError(
            f"config.epochs={config.epochs} of {mixture.steps} steps make more than {_MOST_STEPS} steps"
        )
    objective = objective_of(config)
    fraction = config.extra_data.unlabeled_fraction
    wanted = has_extra and (fraction > 0 or objective.needs_extra_data)
    if wanted and fraction >= 0 and not int(fraction * config.batch_size):
        raise InputError(
            f"config.extra_data.unlabeled_fraction={fraction} of config.batch_size="
            f"{config.batch_size} is less than one extra example a batch"
        )
    sizes = {
        "config.threat.epsilon": config.threat.epsilon,
        "config.attack.step_size": config.attack.step_size,
        "config.evaluation.step_size": config.evaluation.step_size,
    }
    for key, size in sizes.items():
        check_radius(key, size, config.threat.norm, image_shape)
    height, width, channels = image_shape
    mean = config.model.mean
    if len(mean) not in (0, channels):
        raise InputError(
            f"config.model.mean={tuple(mean)} and std must have one entry for each of the images' "
            f"{channels} channels, or both be ()"
        )
    if config.augment.padding >= min(height, width):
        raise InputError(
            f"config.augment.padding={config.augment.padding} must be smaller than the images, "
            f"{height}x{width}"
        )


def check_values(config, devices: int | None = None) -> None:
    """Checks what a network needs that is not to be trained; raises InputError.

    `devices` are those that a batch is split over, all there are by default.
    """
    check_numbers(config)
    check_precision(config)
    check_batch_size("config.batch_size", config.batch_size, devices)
    if config.evaluation.batch_size:
        check_batch_size("config.evaluation.batch_size", config.evaluation.batch_size, devices)
    build(config, num_classes=2, steps_per_epoch=1)


def check_attack_mode(config) -> None:
    """Raises InputError for a BN mode in which no reference attacks; 0.1.0 began runs with any."""
    objective = objective_of(config)
    if objective.attack_loss and config.attack.bn not in objective.attack_modes:
        raise InputError(
            f"config.attack.bn={config.attack.bn!r} must be one of {', '.join(objective.attack_modes)} for "
            f"config.objective.name={config.objective.name!r}, whose reference attacks so"
        )


def check_config(config, devices: int | None = None, is_new: bool = True) -> None:
    """Checks all that training needs and that can be known before data are read; raises InputError.

    `is_new` says whether the run is to begin, not to continue.
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
    """What a run's directory says of its network."""
    model, image_shape = config.model, dataset.x_train.shape[1:]
    origin, traced = MODELS.origin(model.name), None
    if origin:
        dtype = param_dtype(config)
        moments = tuple(model.mean), tuple(model.std)
        classifier = make_classifier(model.name, dataset.num_classes, *moments, dtype=dtype)
        traced = fingerprint(classifier, image_shape)
    return NetworkRecord(
        image_shape,
        dataset.num_classes,
        origin,
        OBJECTIVES.origin(config.objective.name),
        traced,
    )


def filled(config, platform: str | None = None, devices: int | None = None):
    """The config with a batch of its evaluations that fills the devices where it names none."""
    if config.evaluation.batch_size:
        return config
    config = config.copy_and_resolve_references()
    config.evaluation.batch_size = filling_batch(platform, devices)
    return config


def build(config, num_classes: int, steps_per_epoch: int, mesh: Mesh | None = None) -> Parts:
    """Builds the parts, compiling nothing; raises InputError for values that a part refuses.

    `mesh` has other devices, to compile for; by default the parts run on all there are.
    """
    network = functools.partial(
        make_classifier, config.model.name, num_classes, config.model.mean, config.model.std
    )
    moments_over = None if config.model.per_device_batch_norm else AXIS
    dtype = param_dtype(config)
    with named_in("config.model", "name mean std", dtype="config"):
        classifier = network(dtype=config.dtype, axis_name=moments_over)
        judge = network(dtype=dtype)
    check_recipe(config)
    numbers = numbers_of(config)
    augment = make_augment(**config.augment.to_dict(), dtype=config.dtype)
    config = config.copy_and_resolve_references()  # it is traced later

    def train_step(state, data, sent, key, numbers):
        recipe, schedule = make_recipe(config, classifier, steps_per_epoch, numbers)
        step = make_train_step(recipe, augment, schedule, AXIS)
        with matmul_precision(config.precision):
            state, figures = step(state, data, sent[:-1], key)
        # Within the step, so that all hosts hear it after the same one, and nobody waits for it.
        return state, Metrics.of(figures, dtype), lax.pmax(sent[-1], AXIS)

    split = (False, False, True, False, False)
    train_step = data_parallel(train_step, split, config.parallel, (0,), mesh)
    devices = (mesh.devices.flat[0].platform, mesh.size) if mesh else ()
    batch_size = filled(config, *devices).evaluation.batch_size
    count_correct = make_count_correct(
        judge,
        config.threat.norm,
        steps=config.evaluation.steps,
        batch_size=batch_size,
        mode=config.parallel,
        precision=config.evaluation.precision,
        mesh=mesh,
    )
    evaluate = make_evaluation(count_correct, batch_size)
    recipe, _ = make_recipe(config, classifier, steps_per_epoch, numbers)
    sizes = Sizes(numbers.epsilon, np.asarray(config.evaluation.step_size, dtype))
    return Parts(recipe, numbers, train_step, count_correct, evaluate, sizes)
