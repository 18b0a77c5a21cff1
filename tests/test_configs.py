"""Every config builds, and the paper's configs hold the values of the authors' scripts."""

import importlib
import inspect
import pathlib
import tomllib

import pytest

from rwp_jax import configs
from rwp_jax.training import experiment

NAMES = sorted(p.stem for p in pathlib.Path(configs.__path__[0]).glob("[!_]*.py"))
PERTURBATIONS = {"": "none", "_awp": "awp", "_rwp": "rwp"}


def load(name, *threat):
    return importlib.import_module(f"rwp_jax.configs.{name}").get_config(*threat)


@pytest.mark.parametrize("name", NAMES)
def test_every_config_is_accepted(name):
    module = importlib.import_module(f"rwp_jax.configs.{name}")
    threats = ("linf", "l2") if inspect.signature(module.get_config).parameters else ()
    for config in (load(name), *(load(name, threat) for threat in threats)):
        config.extra_data.path = "a file, which RST cannot do without"
        experiment.check_config(config)
    if name != "default":
        assert f"    python main.py --config configs/{name}.py" in module.__doc__


def settings(config):
    """Returns the settings that the authors' scripts have too, with lengths in 255ths."""
    perturbation, optimizer = config.weight_perturbation, config.optimizer
    return {
        "data": config.data.name,
        "epochs": (config.epochs, config.epoch_examples, config.batch_size),
        "model": config.model.name,
        "normalised": bool(config.model.mean),
        "norm": config.threat.norm,
        "epsilon": round(config.threat.epsilon * 255, 6),
        "attack": (config.attack.steps, round(config.attack.step_size * 255, 6)),
        "bn": config.attack.bn,
        "variant": config.attack.variant,
        "objective": config.objective.name,
        "rwp": (perturbation.gamma, perturbation.c_min, perturbation.steps),
        "start_epoch": perturbation.start_epoch,
        "sgd": (optimizer.learning_rate, optimizer.momentum, optimizer.weight_decay),
        "schedule": (optimizer.schedule, optimizer.nesterov),
        "augment": tuple(
            config.augment[key] for key in ("padding", "pad_mode", "flip", "rotation")
        ),
    }


AT = {
    "data": "cifar10",
    "epochs": (200, 0, 128),
    "model": "preactresnet18",
    "normalised": True,
    "norm": "l_inf",
    "epsilon": 8,
    "attack": (10, 2),
    "bn": "train",
    "variant": "madry",
    "objective": "at",
    "rwp": (0.01, 1.7, 10),
    "start_epoch": 0,
    "sgd": (0.1, 0.9, 5e-4),
    "schedule": ("piecewise", False),
    "augment": (4, "reflect", True, 0.0),
}
L2 = {"norm": "l_2", "epsilon": 128, "attack": (10, 15)}
CIFAR100 = {"data": "cifar100", "rwp": (0.01, 4.0, 10), "augment": (4, "zero", True, 15.0)}
SVHN = {
    "data": "svhn_cropped",
    "attack": (10, 1),
    "start_epoch": 5,
    "sgd": (0.01, 0.9, 5e-4),
    "augment": (0, "reflect", False, 0.0),
}
TRADES = {
    "model": "wrn-34-10",
    "normalised": False,
    "bn": "eval",
    "variant": "trades",
    "objective": "trades",
    "rwp": (0.005, 1.7, 10),
    "start_epoch": 9,  # their tenth epoch, counted from 1
    "schedule": ("piecewise_epoch", False),
    "augment": (4, "zero", True, 0.0),
}
RST = TRADES | {
    "epochs": (200, 50_000, 256),
    "model": "wrn-28-10",
    "epsilon": 7.905,
    "attack": (10, 1.785),
    "objective": "rst",
    "schedule": ("cosine_epoch", True),
}


@pytest.mark.parametrize("suffix", PERTURBATIONS)
@pytest.mark.parametrize(
    ("name", "threat", "changes"),
    [
        ("cifar10_at", "linf", {}),
        ("cifar10_at", "l2", L2),
        ("cifar100_at", "linf", CIFAR100),
        ("cifar100_at", "l2", CIFAR100 | L2),
        ("svhn_at", "linf", SVHN),
        ("svhn_at", "l2", SVHN | L2),
        ("cifar10_trades", "linf", TRADES),
        ("cifar10_trades", "l2", TRADES | L2 | {"attack": (10, 25.6)}),  # 2 epsilon / steps
        ("cifar10_rst", None, RST),
    ],
)
def test_the_papers_settings(name, threat, changes, suffix):
    config = load(name + suffix, *[threat] if threat else [])
    assert settings(config) == AT | changes
    assert config.weight_perturbation.name == PERTURBATIONS[suffix]
    assert config.objective.beta == 6.0 and config.extra_data.unlabeled_fraction == 0.5


EDM = {
    "epochs": (400, 50_000, 512),
    "model": "dm-wrn-28-10",
    "bn": "batch",
    "objective": "rst",
    "rwp": (0.005, 2.2, 10),
    "start_epoch": 10,
    "sgd": (0.2, 0.9, 5e-4),
    "schedule": ("one_cycle_epoch", True),
    "augment": (4, "zero", True, 0.0),
}
EDM_100 = EDM | {
    "data": "cifar100",
    "rwp": (0.005, 4.8, 10),
    "augment": (4, "zero", True, 15.0),
}
EDM_L2 = {"attack": (10, 25.6), "variant": "trades"}


@pytest.mark.parametrize("suffix", PERTURBATIONS)
@pytest.mark.parametrize(
    ("name", "changes"), [("cifar10_trades_edm", EDM), ("cifar100_trades_edm", EDM_100)]
)
def test_the_settings_of_wang_and_others(name, changes, suffix):
    """Those of docs/training.md, from the code of Wang et al. (2023)."""
    for threat, further in {"linf": {}, "l2": L2 | EDM_L2}.items():
        config = load(name + suffix, threat)
        assert settings(config) == AT | changes | further
        assert config.weight_perturbation.name == PERTURBATIONS[suffix]
        assert config.extra_data.unlabeled_fraction == 0.7
        assert (config.objective.beta, config.objective.label_smoothing) == (5.0, 0.1)
        assert (config.model.activation, config.model.bn_momentum) == ("", 0.01)
        optimizer = config.optimizer
        assert (optimizer.warmup, optimizer.clip_norm) == (0.025, 0.0)
        assert tuple(optimizer.cycle_momentum) == (0.85, 0.95)
        assert optimizer.no_decay == "(^|/)bn"
        averaging = config.ema_decay, config.ema_start, config.ema_copy_batch_stats
        assert averaging == (0.995, 0.025, True)
        held_out = config.data.validation_examples, config.evaluation.validation_attack
        assert held_out == (1024, "cw40")


def test_requirements_are_those_of_the_package():
    root = pathlib.Path(configs.__path__[0]).parent
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    lines = (root / "requirements.txt").read_text().splitlines()
    required = {line for line in lines if line and not line.startswith("#")}
    assert required == {*project["dependencies"], *project["optional-dependencies"]["train"]}
