"""What a run costs: sizes, forward passes and floating-point operations, without running anything.

Files of images are read once, for their sizes; data sets that have a name are not.
"""

import functools
import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from rwp_jax.data import readers, sources
from rwp_jax.data.order import Mixture, make_mixture
from rwp_jax.data.sources import NAMED, DataSize, images_to_choose_from, size_of_named
from rwp_jax.errors import InputError
from rwp_jax.models.classifier import make_classifier
from rwp_jax.training import experiment
from rwp_jax.training.objectives import make_objective
from rwp_jax.training.recipe import weight_perturbation_of
from rwp_jax.training.self_training import check_first_stage, teacher_config

# Forward passes an image of Table 2's columns. A gradient step costs 2. AutoAttack's are at most, for an
# image that nothing breaks: APGD-CE, 9 targets of APGD-T, 9 of FAB-T with its test of every point, Square.
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
    """Sizes of the config's data set, from a table where it has a name, read from the file otherwise.

    Training examples are those with and without a label, without what is held out.
    """
    if config.data.name in NAMED:
        return size_of_named(config.data)
    path = pathlib.Path(config.data.path)
    changed = path.stat().st_mtime_ns if path.is_file() else 0
    return _size_of_file(config.data.to_json(), changed)


@functools.cache
def _size_of_file(data: str, changed: int) -> DataSize:
    """Sizes of the data set that config.data (as JSON) names; `changed` is when its file was."""
    data = sources.load(**json.loads(data))
    extra = 0 if data.x_extra is None else len(data.x_extra)
    return DataSize(
        len(data.x_train) + extra, len(data.x_test), data.x_train.shape[1:], data.num_classes
    )


@functools.cache
def _labels_in_file(path: str, changed: int) -> np.ndarray:
    """Labels of a file of extra images; `changed` is when it was."""
    return readers.read_extra(path)[1]


@functools.cache
def forward_flops(model: str, image_shape: tuple[int, int, int], num_classes: int) -> float:
    """Floating-point operations of a forward pass of one image, by XLA's count; nothing is compiled."""
    classifier = make_classifier(model, num_classes)
    params, batch_stats = jax.eval_shape(
        lambda key: classifier.init(key, image_shape), jax.random.key(0)
    )
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    return jax.jit(classifier.eval).lower(params, batch_stats, image).cost_analysis()["flops"]


def passes_of_a_step(config, k: float) -> float:
    """Forward passes an image in a training step with k steps of weight ascent."""
    attack = 2 * config.attack.steps
    if config.objective.name == "natural":
        return 3
    if config.objective.name == "at":
        return attack + 3 * (k + 1)
    return 1 + attack + 6 * (k + 1)  # TRADES and RST run on clean and attacked images


def labelled_examples(config) -> int:
    """Training examples that keep their label."""
    return config.data.labeled_examples or data_size(config).train


def extra_examples(config) -> int:
    """Extra images that the run's objective has a loss for.

    Those of the file, where it is there, else as many as the published one has; or those whose labels
    config.data.labeled_examples left out.
    """
    if not config.extra_data.unlabeled_fraction:
        return 0
    unlabelled_too = make_objective(**config.objective.to_dict()).uses_unlabelled
    if not config.extra_data.path:
        left_out = data_size(config).train - labelled_examples(config)
        return left_out if unlabelled_too or config.self_training.epochs else 0
    path = pathlib.Path(config.extra_data.path)
    if not (unlabelled_too or config.extra_data.use_labels):
        return 0
    if not path.exists():
        return PUBLISHED_EXTRA
    labels = _labels_in_file(str(path), path.stat().st_mtime_ns)
    return len(labels) if unlabelled_too else int((labels >= 0).sum())


def training_examples(config) -> int:
    """Images on every device while a run trains."""
    return labelled_examples(config) + extra_examples(config)


def planned_mixture(config) -> Mixture:
    """How the batches of an epoch are made."""
    return make_mixture(
        labelled_examples(config),
        config.batch_size,
        extra_examples(config),
        config.extra_data.unlabeled_fraction,
        config.epoch_examples,
    )


def check(config) -> None:
    """Checks a run's config against the sizes of its data; raises InputError."""
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
    """Images in each set that is evaluated after an epoch: test, held out, part of training."""
    size = data_size(config)
    parts = (
        size.test,
        config.data.validation_examples,
        min(config.evaluation.train_examples, labelled_examples(config)),
    )
    return [count for count in parts if count]


def evaluations(config) -> int:
    """How many times training evaluates."""
    return math.ceil(config.epochs / config.evaluation.every)


def perturbed_epochs(config) -> int:
    """Epochs that may perturb the weights."""
    return max(0, config.epochs - config.weight_perturbation.start_epoch)


def training_passes(config, k: float | None = None) -> float:
    """Forward passes of one image in a training run, without RST's first stage.

    Evaluations after epochs are included.

    Args:
      config: of the run.
      k: mean number of steps of weight ascent; None for the most it may take.
    """
    images = planned_mixture(config).steps * config.batch_size
    perturbed = perturbed_epochs(config)
    if k is None:
        steps = perturbed * passes_of_a_step(config, weight_perturbation_of(config).steps)
        steps += (config.epochs - perturbed) * passes_of_a_step(config, 0)
    else:
        steps = config.epochs * passes_of_a_step(config, k)
    a_network = sum(evaluated_examples(config)) * (2 + 2 * config.evaluation.steps)
    networks = 2 if config.ema_decay else 1
    return images * steps + evaluations(config) * networks * a_network


def teacher_passes(config) -> float:
    """Those of RST's first stage, 0 without one."""
    return training_passes(teacher_config(config)) if config.self_training.epochs else 0.0


def _forward_flops(config) -> float:
    size = data_size(config)
    return forward_flops(config.model.name, size.image_shape, size.num_classes)


def training_flops(config, k: float | None = None) -> float:
    """Floating-point operations of `training_passes`."""
    return training_passes(config, k) * _forward_flops(config)


def teacher_flops(config) -> float:
    """Floating-point operations of `teacher_passes`."""
    return teacher_passes(config) * _forward_flops(config)


def evaluation_flops(config, attacks: tuple[str, ...]) -> float:
    """Floating-point operations of columns of Table 2 on the test set, at most."""
    passes = data_size(config).test * sum(EVALUATION[name] for name in attacks)
    return passes * _forward_flops(config)
