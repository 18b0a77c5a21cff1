"""Invalid configs are refused before anything is compiled or written."""

import numpy as np
import pytest

from rwp_jax.errors import InputError
from rwp_jax.training import trainer
from tests.small import write_two_classes
from tests.training.test_trainer import small_config


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    return write_two_classes(tmp_path_factory.mktemp("data") / "data.npz", train=50, test=20)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.name": "vgg"}, "config.model.name='vgg'"),
        ({"objective.name": "tart"}, "config.objective.name='tart' must be one of natural, at"),
        ({"objective.beta": -1.0}, r"config.objective.beta=-1.0 must be in \[0, inf\)"),
        (
            {"objective.name": "rst", "attack.bn": "eval"},
            "config.objective.name='rst' needs extra data",
        ),
        ({"objective.name": "trades"}, "config.attack.bn='train' must be one of eval, batch for"),
        ({"extra_data.unlabeled_fraction": 1.0}, "unlabeled_fraction=1.0 must be in .* labelled"),
        ({"extra_data.weight": -1.0}, "config.extra_data.weight=-1.0 must be in"),
        ({"extra_data.path": "nowhere.npz"}, "config.extra_data.path='nowhere.npz' is not a file"),
        ({"attack.variant": "cw"}, "config.attack.variant='cw' must be one of madry, trades"),
        ({"data.labeled_examples": 49}, "config.data.labeled_examples=49 must be 0 .* 48"),
        ({"data.svhn_extra": True}, "config.data.svhn_extra=True is for svhn_cropped"),
        ({"data.name": "digits"}, "config.data.path=.* is for npz, not config.data.name='digits'"),
        ({"data.name": "mnist", "data.path": ""}, "config.data.name='mnist' must be one of"),
        ({"threat.norm": "l1"}, "config.threat.norm='l1' must be l_inf or l_2"),
        ({"threat.epsilon": -0.1}, "config.threat.epsilon=-0.1"),
        ({"threat.epsilon": 1.0}, r"config.threat.epsilon=1.0 must be in \[0, 1\)"),
        (
            {"threat.norm": "l_2", "threat.epsilon": 500.0},
            r"config.threat.epsilon=500.0 must be in \[0, .*\) .* for l_2 and images",
        ),
        (
            {"threat.norm": "l_2", "evaluation.step_size": 500.0},
            r"config.evaluation.step_size=500.0 must be in \[0, .*\) .* for l_2 and images",
        ),
        ({"weight_perturbation.gamma": -1.0}, "gamma=-1.0"),
        ({"weight_perturbation.c_min": float("nan")}, "c_min=nan"),
        ({"weight_perturbation.steps": -1}, "steps=-1"),
        ({"weight_perturbation.start_epoch": -1}, "config.weight_perturbation.start_epoch=-1"),
        ({"weight_perturbation.steps": 2**31}, "steps=2147483648 must be at least 0 and below"),
        ({"attack.steps": -1}, "config.attack.steps=-1 must be at least 0"),
        ({"attack.bn": "none"}, "config.attack.bn='none' must be one of train, batch, eval"),
        ({"attack.step_size": float("inf")}, "config.attack.step_size=inf"),
        ({"batch_size": 12}, "config.batch_size=12 must be a positive multiple .* 8"),
        ({"batch_size": 64}, "config.batch_size=64 is larger than the training set of 50 images"),
        ({"evaluation.batch_size": -8}, "config.evaluation.batch_size=-8"),
        (
            {"optimizer.no_decay": "norm7"},
            "config.optimizer.no_decay='norm7' is found in no path of a parameter",
        ),
        ({"precision": "tf32"}, "config.precision='tf32' must be one of default, high, highest"),
        (
            {"evaluation.precision": ""},
            "config.evaluation.precision='' must be one of default, high",
        ),
        ({"dtype": "float16"}, "config.dtype='float16' must be one of"),
        ({"parallel": "jit"}, "config.parallel='jit' must be one of pmap, shard_map"),
        ({"epochs": 0}, "config.epochs=0 must be at least 1"),
        ({"evaluation.every": 0}, "config.evaluation.every=0 must be at least 1"),
        ({"data.train_examples": -1}, "config.data.train_examples=-1 must be at least 0"),
        ({"data.train_examples": 49}, "config.data.train_examples=49 must be 0 .* 48"),
        ({"seed": -1}, "config.seed=-1 must be at least 0"),
        ({"optimizer.learning_rate": 0.0}, "config.optimizer.learning_rate=0.0"),
        ({"optimizer.learning_rate": 1e39}, "optimizer.learning_rate=.* must be within 3.4e.38"),
        ({"optimizer.momentum": 1.0}, "config.optimizer.momentum=1.0"),
        ({"optimizer.schedule": "linear"}, "config.optimizer.schedule='linear'"),
        (
            {"model.activation": "gelu"},
            "config.model.activation='gelu' must be relu or silu, or '' for",
        ),
        ({"model.bn_momentum": 0.0}, r"config.model.bn_momentum=0.0 must be in \(0, 1\]"),
        ({"model.bn_momentum": float("nan")}, "config.model.bn_momentum=nan must be in"),
        ({"model.mean": (0.1, 0.2)}, "config.model.mean= has 2 numbers and std= has 0: both need"),
        (
            {"model.mean": (0.1, 0.2), "model.std": (1.0, 1.0)},
            "one entry for each of the images' 1",
        ),
        ({"model.mean": (0.1,), "model.std": (0.0,)}, "std=.* positive"),
        ({"model.mean": ("a",), "model.std": (1.0,)}, "config.model.mean=.* tuple of numbers"),
        ({"augment.padding": 8}, "config.augment.padding=8 must be smaller"),
        ({"augment.cutout": 8}, "config.augment.cutout=8 must be smaller"),
        ({"augment.cutmix": -1.0}, r"config.augment.cutmix=-1.0 must be in \[0, inf\)"),
        (
            {"augment.cutmix": 1.0, "objective.name": "mart", "attack.bn": "eval"},
            "config.augment.cutmix=1.0 needs an objective that takes mixed labels .*='mart'$",
        ),
        (
            {
                "augment.cutmix": 1.0,
                "objective.name": "trades",
                "attack.bn": "eval",
                "data.labeled_examples": 30,
            },
            "config.augment.cutmix=1.0 mixes labels, which .* of .* extra images lack",
        ),
        (
            {"evaluation.validation_attack": "cw", "data.validation_examples": 10},
            "config.evaluation.validation_attack='cw' must be pgdN or cwN for N steps",
        ),
        (
            {"evaluation.validation_attack": "cw40"},
            "validation_attack='cw40' needs config.data.validation_examples > 0",
        ),
    ],
)
def test_refusals_come_before_anything_is_written(npz, tmp_path, changes, message):
    directory = tmp_path / "run"
    with pytest.raises(InputError, match=message) as error:
        trainer.train(small_config(**({"data.path": npz} | changes)), directory)
    assert "\n" not in str(error.value) and not directory.exists()


def test_images_of_a_size_that_the_network_does_not_take(tmp_path):
    x, y = np.zeros((70, 10, 8, 1), np.uint8), np.arange(70) % 2
    np.savez(tmp_path / "x.npz", x_train=x[:50], y_train=y[:50], x_test=x[50:], y_test=y[50:])
    config = small_config(**{"data.path": str(tmp_path / "x.npz"), "model.name": "dm-wrn-10-1"})
    message = (
        "config.model.name='dm-wrn-10-1' needs images whose sides are multiples of 4, not 10x8"
    )
    with pytest.raises(InputError, match=message):
        trainer.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
