"""What a run costs: forward passes and floating-point operations, without running or loading anything."""

import functools
import pathlib

import jax
import jax.numpy as jnp

from rwp_jax.data import files, sources
from rwp_jax.data.pipeline import make_mixture
from rwp_jax.data.sizes import NAMED, SVHN_EXTRA, DataSize
from rwp_jax.experiment import weight_perturbation_of
from rwp_jax.models.classifier import make_classifier
from rwp_jax.self_training import teacher_config

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
    """Sizes of the config's data set, from a table where it has a name, read from the file otherwise."""
    name = config.data.name
    if name in NAMED:
        size = NAMED[name]
        extra = SVHN_EXTRA if config.data.svhn_extra else 0
        return size._replace(train=size.train + extra - config.data.validation_examples)
    data = sources.load(**config.data.to_dict())
    return DataSize(len(data.x_train), len(data.x_test), data.x_train.shape[1:], data.num_classes)


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


def extra_examples(config) -> int:
    """How many extra images a run has: of its file, where it is there, else of the published one."""
    size, path = data_size(config), config.extra_data.path
    if path:
        there = pathlib.Path(path).is_file()
        return len(files.read_extra(path)[0]) if there else PUBLISHED_EXTRA
    return size.train - (config.data.labeled_examples or size.train)


def training_examples(config) -> int:
    """Images on every device while a run trains, extra ones included."""
    labelled = config.data.labeled_examples or data_size(config).train
    used = config.extra_data.unlabeled_fraction != 0
    return labelled + used * extra_examples(config)


def steps_per_epoch(config) -> int:
    """Training steps in an epoch."""
    labelled = config.data.labeled_examples or data_size(config).train
    fraction = config.extra_data.unlabeled_fraction
    extra = extra_examples(config) if fraction else 0
    return make_mixture(labelled, config.batch_size, extra, fraction, config.epoch_examples).steps


def evaluated_examples(config) -> list[int]:
    """Images in each set that is evaluated after an epoch: test, held out, part of training."""
    size = data_size(config)
    labelled = config.data.labeled_examples or size.train
    parts = (
        size.test,
        config.data.validation_examples,
        min(config.evaluation.train_examples, labelled),
    )
    return [count for count in parts if count]


def perturbed_epochs(config) -> int:
    """Epochs that may perturb the weights."""
    return max(0, config.epochs - config.weight_perturbation.start_epoch)


def training_passes(config, k: float | None = None) -> float:
    """Forward passes of one image in a training run, without RST's first stage.

    Evaluations after every epoch are included.

    Args:
      config: of the run.
      k: mean number of steps of weight ascent; None for the most it may take.
    """
    images = steps_per_epoch(config) * config.batch_size
    perturbed = perturbed_epochs(config)
    if k is None:
        steps = perturbed * passes_of_a_step(config, weight_perturbation_of(config).steps)
        steps += (config.epochs - perturbed) * passes_of_a_step(config, 0)
    else:
        steps = config.epochs * passes_of_a_step(config, k)
    a_network = sum(evaluated_examples(config)) * (2 + 2 * config.evaluation.steps)
    networks = 2 if config.ema_decay else 1
    return images * steps + config.epochs * networks * a_network


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
