import pytest

from configs import (
    cifar10_at_rwp,
    cifar10_trades,
    digits_at,
    digits_at_rwp,
    digits_rst_rwp,
    svhn_at,
)
from rwp_jax import cost
from tests.small import write_two_classes


def test_a_forward_pass_of_preactresnet18():
    # 0.56 billion multiplications and as many additions (He et al., 2016); those with padding's zeros
    # are not counted.
    assert 0.9e9 < cost.forward_flops("preactresnet18", (32, 32, 3), 10) < 1.2e9


def test_training_in_forward_passes():
    config = digits_at.get_config()
    images = 1437 // 64 * 64
    evaluation = (360 + 360) * (2 + 2 * 20)
    assert cost.training_passes(config) == 30 * (images * (2 * 10 + 3) + evaluation)
    config.evaluation.train_examples = 0
    config.ema_decay = 0.9
    assert cost.training_passes(config) == 30 * (images * 23 + 2 * 360 * 42)


def test_weight_ascent_counts_at_most_k2_steps_from_its_first_epoch_on():
    config = digits_at_rwp.get_config()
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
    config = digits_at.get_config()
    config.data.name = "npz"
    config.data.path = write_two_classes(tmp_path / "data.npz", 30, 20)
    config.data.validation_examples = 10
    assert cost.data_size(config) == (20, 20, (8, 8, 1), 2)


def test_evaluation_is_counted_for_every_image():
    config = cifar10_trades.get_config()
    config.model.name = "preactresnet18"
    forward = cost.forward_flops("preactresnet18", (32, 32, 3), 10)
    assert cost.evaluation_flops(config, ("natural", "pgd20")) == pytest.approx(
        forward * 42 * 10_000
    )
    assert cost.evaluation_flops(config, ()) == 0
