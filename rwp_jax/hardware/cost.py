"""Estimates the cost of a run in images, forward passes and floating-point operations; runs nothing.

Image files are read once, for their sizes. The sizes of named data sets are known.
"""

import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np

from rwp_jax.data import sources, stored
from rwp_jax.data.order import Mixture, make_mixture
from rwp_jax.data.sources import NAMED, DataSize, images_to_choose_from, size_of_named
from rwp_jax.errors import InputError, check_path
from rwp_jax.evaluation.accuracy import stepped_attack
from rwp_jax.hardware.hlo import parse
from rwp_jax.hardware.operations import module_operations
from rwp_jax.models.classifier import make_classifier
from rwp_jax.training import experiment
from rwp_jax.training.objectives import make_objective
from rwp_jax.training.recipe import weight_perturbation_of
from rwp_jax.training.self_training import check_first_stage, teacher_config

# Forward passes per image of Table 2's columns. A gradient step costs 2. AutoAttack's is the maximum, for
# an image that stays robust: APGD-CE, 9 targets of APGD-T, 9 of FAB-T (it tests every point), Square.
EVALUATION = {
    "natural": 1,
    "fgsm": 2 + 1,
    "pgd20": 2 * 20 + 1,
    "pgd100": 2 * 100 + 1,
    "cw": 2 * 100 + 1,
    "autoattack": 200 + 9 * 200 + 9 * 300 + 5000,
}


PUBLISHED_EXTRA = 500_000  # images in ti_500K_pseudo_labeled.pickle


def data_size(config) -> DataSize:
    """Returns the sizes of the config's data set: from a table if it is named, else from its file.

    Training examples include unlabelled ones and exclude the validation set.
    """
    if config.data.name in NAMED:
        return size_of_named(config.data)
    path = config.data.path and check_path("config.data.path", config.data.path)
    changed = path.stat().st_mtime_ns if path and path.is_file() else 0
    return _size_of_file(config.data.to_json(), changed)


@functools.cache
def _size_of_file(data: str, changed: int) -> DataSize:
    """Returns the sizes of the data set of config.data (as JSON); `changed` is the file's mtime."""
    data = sources.load(**json.loads(data))
    extra = 0 if data.x_extra is None else len(data.x_extra)
    return DataSize(
        len(data.x_train) + extra, len(data.x_test), data.x_train.shape[1:], data.num_classes
    )


@functools.cache
def _labels_in_file(path: str, changed: int) -> np.ndarray:
    """Returns the labels of extra images; `changed` is the mtime of their file or directory."""
    return stored.open_extra(path)[1]


@functools.cache
def forward_flops(model: str, image_shape: tuple[int, int, int], num_classes: int) -> float:
    """Returns the FLOPs of the matrix products in a forward pass of one image, without compiling."""
    classifier = make_classifier(model, num_classes)
    params, batch_stats = classifier.shapes(image_shape)
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    traced = jax.jit(classifier.eval).trace(params, batch_stats, image)
    # XLA's own count is missing on GPUs.
    module = traced.lower(lowering_platforms=("cpu",)).compiler_ir("hlo").as_hlo_module()
    return module_operations(parse(module.to_string()))


def passes_of_a_step(config, k: float) -> float:
    """Returns the forward passes per image in a training step with k weight-ascent steps."""
    attack = 2 * config.attack.steps
    if config.objective.name == "natural":
        return 3
    if config.objective.name == "at":
        return attack + 3 * (k + 1)
    return 1 + attack + 6 * (k + 1)  # TRADES and RST run on clean and attacked images


def labelled_examples(config) -> int:
    """Returns the number of training examples that keep their label."""
    return config.data.labeled_examples or data_size(config).train


def extra_examples(config) -> int:
    """Returns the number of extra images that the run's objective can use.

    These are the images of the extra file (the size of the published file if it is missing) or, without a
    file, the training images whose labels config.data.labeled_examples dropped.
    """
    if not config.extra_data.unlabeled_fraction:
        return 0
    unlabelled_too = make_objective(**config.objective.to_dict()).uses_unlabelled
    if not config.extra_data.path:
        left_out = data_size(config).train - labelled_examples(config)
        return left_out if unlabelled_too or config.self_training.epochs else 0
    path = check_path("config.extra_data.path", config.extra_data.path)
    if not (unlabelled_too or config.extra_data.use_labels):
        return 0
    if not path.exists():
        return PUBLISHED_EXTRA
    labels = _labels_in_file(str(path), path.stat().st_mtime_ns)
    return len(labels) if unlabelled_too else int((labels >= 0).sum())


def is_streamed(config) -> bool:
    """Returns whether extra images are read from disk, so that devices hold no training images."""
    path = config.extra_data.path and check_path("config.extra_data.path", config.extra_data.path)
    return bool(path) and stored.is_set(path) and extra_examples(config) > 0


def training_examples(config) -> int:
    """Returns the number of examples whose labels, and images if not streamed, every device holds."""
    return labelled_examples(config) + extra_examples(config)


def planned_mixture(config) -> Mixture:
    """Returns how the batches of an epoch are composed."""
    return make_mixture(
        labelled_examples(config),
        config.batch_size,
        extra_examples(config),
        config.extra_data.unlabeled_fraction,
        config.epoch_examples,
    )


def check(config) -> None:
    """Checks a run's config against the sizes of its data; raises InputError if they do not fit."""
    kept, held = config.data.train_examples, config.data.validation_examples
    if kept and config.data.name in NAMED:
        classes = NAMED[config.data.name].num_classes
        high = images_to_choose_from(config.data) - classes
        if not classes <= kept <= high:
            raise InputError(
                f"config.data.train_examples={kept} must be 0 or in [{classes}, {high}]"
            )
    size = data_size(config)
    if size.train <= 0:
        raise InputError(
            f"config.data.validation_examples={held} leaves no training images of {size.train + held}"
        )
    if labelled_examples(config) > size.train:
        raise InputError(
            f"config.data.labeled_examples={config.data.labeled_examples} must be at most the number of "
            f"training images, {size.train}"
        )
    has_extra = bool(config.extra_data.path) or labelled_examples(config) < size.train
    if config.self_training.epochs:
        check_first_stage(config, has_extra)
    experiment.check_shapes(config, planned_mixture(config), has_extra, size.image_shape)


def evaluated_examples(config) -> list[int]:
    """Returns the size of each set evaluated after an epoch: test, validation, part of training."""
    size = data_size(config)
    parts = (
        size.test,
        config.data.validation_examples,
        min(config.evaluation.train_examples, labelled_examples(config)),
    )
    return [count for count in parts if count]


def validation_steps(config) -> int:
    """Returns the number of attack steps on held-out images."""
    attack = config.evaluation.validation_attack
    return stepped_attack(attack, None).steps if attack else config.evaluation.steps


def evaluations(config) -> int:
    """Returns how many times training evaluates."""
    return math.ceil(config.epochs / config.evaluation.every)


def perturbed_epochs(config) -> int:
    """Returns the number of epochs that may perturb the weights."""
    return max(0, config.epochs - config.weight_perturbation.start_epoch)


def training_passes(config, k: float | None = None) -> float:
    """Returns the forward passes of single images in a training run, without RST's first stage.

    Evaluations after epochs are included.

    Args:
      config: the run's config.
      k: mean number of weight-ascent steps; None for the maximum.
    """
    images = planned_mixture(config).steps * config.batch_size
    perturbed = perturbed_epochs(config)
    if k is None:
        steps = perturbed * passes_of_a_step(config, weight_perturbation_of(config).steps)
        steps += (config.epochs - perturbed) * passes_of_a_step(config, 0)
    else:
        steps = config.epochs * passes_of_a_step(config, k)
    a_network = sum(evaluated_examples(config)) * (2 + 2 * config.evaluation.steps)
    further = validation_steps(config) - config.evaluation.steps
    a_network += config.data.validation_examples * 2 * further
    networks = 2 if config.ema_decay else 1
    return images * steps + evaluations(config) * networks * a_network


def teacher_passes(config) -> float:
    """Returns the forward passes of RST's first stage, 0 if there is none."""
    return training_passes(teacher_config(config)) if config.self_training.epochs else 0.0


def _forward_flops(config) -> float:
    size = data_size(config)
    return forward_flops(config.model.name, size.image_shape, size.num_classes)


def training_flops(config, k: float | None = None) -> float:
    """Returns the floating-point operations of `training_passes`."""
    return training_passes(config, k) * _forward_flops(config)


def teacher_flops(config) -> float:
    """Returns the floating-point operations of `teacher_passes`."""
    return teacher_passes(config) * _forward_flops(config)


def evaluation_flops(config, attacks: tuple[str, ...]) -> float:
    """Returns the maximum floating-point operations of columns of Table 2 on the test set."""
    passes = data_size(config).test * sum(EVALUATION[name] for name in attacks)
    return passes * _forward_flops(config)
