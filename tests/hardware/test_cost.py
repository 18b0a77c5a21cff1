import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rwp_jax.configs import (
    cifar10_at_rwp,
    cifar10_trades,
    digits_at,
    digits_at_rwp,
    digits_rst_rwp,
    svhn_at,
)
from rwp_jax.errors import InputError
from rwp_jax.hardware import cost
from rwp_jax.models.classifier import make_classifier
from rwp_jax.training import training_data
from tests.small import write_two_classes


def test_a_forward_pass_of_preactresnet18():
    # 0.56 billion multiplications and as many additions (He et al., 2016), without those with the
    # zeros of the padding.
    assert 0.9e9 < cost.forward_flops("preactresnet18", (32, 32, 3), 10) < 1.2e9


def test_forward_passes_are_counted_without_xla_s_own_count(monkeypatch):
    shape = (8, 8, 1)
    classifier = make_classifier("wrn-10-1", 10)
    network = jax.eval_shape(lambda key: classifier.init(key, shape), jax.random.key(0))
    image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    theirs = jax.jit(classifier.eval).lower(*network, image).cost_analysis()["flops"]
    # As on GPUs; it counts elementwise arithmetic too.
    monkeypatch.setattr(jax.stages.Lowered, "cost_analysis", lambda self: None)
    assert 0.97 * theirs < cost.forward_flops.__wrapped__("wrn-10-1", shape, 10) < theirs


def test_training_in_forward_passes():
    config = digits_at.get_config("full")
    images = 1437 // 64 * 64
    evaluation = (360 + 360) * (2 + 2 * 20)
    assert cost.training_passes(config) == 30 * (images * (2 * 10 + 3) + evaluation)
    config.evaluation.train_examples = 0
    config.ema_decay = 0.9
    assert cost.training_passes(config) == 30 * (images * 23 + 2 * 360 * 42)
    config.ema_decay, config.data.validation_examples = 0.0, 144
    config.evaluation.validation_attack = "cw40"
    images = (1437 - 144) // 64 * 64
    assert cost.training_passes(config) == 30 * (images * 23 + 360 * 42 + 144 * 82)


def test_weight_ascent_counts_at_most_k2_steps_from_its_first_epoch_on():
    config = digits_at_rwp.get_config("full")
    most = cost.training_passes(config)
    assert most == cost.training_passes(config, k=10)
    config.weight_perturbation.start_epoch = 10
    images = 1437 // 64 * 64
    assert most - cost.training_passes(config) == 10 * images * 30
    assert cost.training_passes(config, k=0) < cost.training_passes(config)


def test_rst_counts_its_first_stage():
    config = digits_rst_rwp.get_config()
    images = 479 // 64 * 64
    assert cost.teacher_passes(config) == 30 * (images * 3 + 720 * 42)
    config.self_training.epochs = 0
    assert cost.teacher_passes(config) == 0


def test_data_sizes(tmp_path):
    assert cost.data_size(cifar10_at_rwp.get_config())[:2] == (50_000, 10_000)
    config = svhn_at.get_config()
    config.data.svhn_extra = True
    assert cost.data_size(config).train == 73_257 + 531_131
    config = digits_at.get_config("full")
    config.data.name = "npz"
    config.data.path = write_two_classes(tmp_path / "data.npz", 30, 20)
    config.data.validation_examples = 10
    assert cost.data_size(config) == (20, 20, (8, 8, 1), 2)


EXTRA_FILE = {"extra_data.path": "extra.npz"}


@pytest.mark.parametrize(
    ("module", "changes"),
    [
        (digits_at, {}),
        (digits_at, {"data.validation_examples": 144, "epoch_examples": 1000}),
        (digits_rst_rwp, {"self_training.epochs": 0, "data.labeled_examples": 200}),
        (digits_at, {"data.labeled_examples": 200}),  # AT has no loss for unlabelled examples
        (digits_at, {"data.train_examples": 300, "data.validation_examples": 100}),
        (digits_at, {"data.name": "npz", "data.train_examples": 200}),
        (digits_at, EXTRA_FILE),
        (digits_at, EXTRA_FILE | {"extra_data.use_labels": False}),
        (digits_at, EXTRA_FILE | {"extra_data.unlabeled_fraction": 0.0}),
        (digits_at, EXTRA_FILE | {"extra_data.unlabeled_fraction": -1.0}),
        (digits_rst_rwp, EXTRA_FILE | {"self_training.epochs": 0, "data.labeled_examples": 0}),
        (digits_at, {"data.name": "npz"}),
        (digits_at, {"data.name": "npz", "data.validation_examples": 30}),
        (
            digits_rst_rwp,
            {"data.name": "npz", "self_training.epochs": 0, "data.labeled_examples": 100},
        ),
    ],
)
def test_sizes_are_those_that_the_trainer_finds(module, changes, tmp_path):
    config = module.get_config()
    config.update_from_flattened_dict({"data.train_examples": 0} | changes)
    if config.data.name == "npz":
        config.data.path = write_two_classes(tmp_path / "data.npz", 300, 40)
    if config.extra_data.path:
        config.extra_data.path = str(tmp_path / "extra.npz")
        labels = np.arange(700) % 11 - 1
        images = np.zeros((700, 8, 8, 1), np.uint8)
        np.savez(config.extra_data.path, data=images, extrapolated_targets=labels)
    data = training_data.load_data(config)
    theirs, ours = training_data.mixture_of(config, data), cost.planned_mixture(config)
    assert ours == theirs
    assert cost.training_examples(config) == len(training_data.training_set(config, data).labels)
    cost.check(config)
    assert cost.data_size(config).test == len(data.y_test)


def test_evaluations_are_counted():
    config = digits_at.get_config("full")
    config.epochs = 7
    for every, times in ((1, 7), (2, 4), (7, 1), (8, 1)):
        config.evaluation.every = every
        assert cost.evaluations(config) == times
    config.data.train_examples = 1788
    with pytest.raises(InputError, match=r"train_examples=1788 must be 0 or in \[10, 1787\]"):
        cost.check(config)


def test_a_file_of_extra_images_that_is_not_here_counts_as_the_published_one():
    config = digits_at.get_config("full")
    config.extra_data.path = "not_here.npz"
    assert cost.extra_examples(config) == 500_000


def test_evaluation_is_counted_for_every_image():
    config = cifar10_trades.get_config()
    config.model.name = "preactresnet18"
    forward = cost.forward_flops("preactresnet18", (32, 32, 3), 10)
    assert cost.evaluation_flops(config, ("natural", "pgd20")) == pytest.approx(
        forward * 42 * 10_000
    )
    assert cost.evaluation_flops(config, ()) == 0
