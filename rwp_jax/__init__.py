"""Robust Weight Perturbation for Adversarial Training (Yu et al., IJCAI 2022) in JAX.

The package provides AutoAttack and PGD for user-defined networks, RWP and AWP for user-defined training
loops, config-driven training, and trained networks. The names below are imported on first use.
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from rwp_jax.version import __version__

if TYPE_CHECKING:
    from rwp_jax.attacks.autoattack import (
        ApgdCE,
        ApgdDLR,
        ApgdLoss,
        ApgdT,
        AutoAttack,
        AutoAttackResult,
        AutoAttackWarning,
        Fab,
        FabT,
        MinimumNormResult,
        Progress,
        Square,
        autoattack,
        minimum_norm,
    )
    from rwp_jax.attacks.pgd import pgd
    from rwp_jax.attacks.threat_model import ThreatModel, make_threat_model
    from rwp_jax.distributed.preemption import Interrupted
    from rwp_jax.errors import InputError, RunWarning
    from rwp_jax.evaluation.benchmark import benchmark
    from rwp_jax.models.adapters import from_linen, from_nnx
    from rwp_jax.models.classifier import Classifier, make_classifier, register_model
    from rwp_jax.models.convolution import conv_general_dilated
    from rwp_jax.pytorch.initial import initial_weights
    from rwp_jax.runs.finished_run import FinishedRun
    from rwp_jax.runs.initial_weights import InitialWeights
    from rwp_jax.runs.loaded import load_run
    from rwp_jax.training.divergence import NonFiniteLoss
    from rwp_jax.training.objective import Aux, Batch, Mixed, Objective
    from rwp_jax.training.objectives import make_objective, register_objective
    from rwp_jax.training.self_training import train
    from rwp_jax.training.weight_ascent import Perturbed, perturb_and_differentiate
    from rwp_jax.training.weight_perturbation import WeightPerturbation, make_weight_perturbation

_MODULES = {
    "attacks.autoattack": (
        "ApgdCE ApgdDLR ApgdLoss ApgdT AutoAttack AutoAttackResult AutoAttackWarning Fab FabT "
        "MinimumNormResult Progress Square autoattack minimum_norm"
    ),
    "attacks.pgd": "pgd",
    "attacks.threat_model": "ThreatModel make_threat_model",
    "distributed.preemption": "Interrupted",
    "errors": "InputError RunWarning",
    "evaluation.benchmark": "benchmark",
    "models.adapters": "from_linen from_nnx",
    "models.classifier": "Classifier make_classifier register_model",
    "models.convolution": "conv_general_dilated",
    "pytorch.initial": "initial_weights",
    "runs.finished_run": "FinishedRun",
    "runs.initial_weights": "InitialWeights",
    "runs.loaded": "load_run",
    "training.divergence": "NonFiniteLoss",
    "training.objective": "Aux Batch Mixed Objective",
    "training.objectives": "make_objective register_objective",
    "training.self_training": "train",
    "training.weight_ascent": "Perturbed perturb_and_differentiate",
    "training.weight_perturbation": "WeightPerturbation make_weight_perturbation",
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}

__all__ = [
    "ApgdCE",
    "ApgdDLR",
    "ApgdLoss",
    "ApgdT",
    "autoattack",
    "AutoAttack",
    "AutoAttackResult",
    "AutoAttackWarning",
    "Aux",
    "Batch",
    "benchmark",
    "Classifier",
    "conv_general_dilated",
    "Fab",
    "FabT",
    "FinishedRun",
    "from_linen",
    "from_nnx",
    "initial_weights",
    "InitialWeights",
    "InputError",
    "Interrupted",
    "load_run",
    "make_classifier",
    "make_objective",
    "make_threat_model",
    "make_weight_perturbation",
    "minimum_norm",
    "MinimumNormResult",
    "Mixed",
    "NonFiniteLoss",
    "Objective",
    "perturb_and_differentiate",
    "Perturbed",
    "pgd",
    "Progress",
    "register_model",
    "register_objective",
    "RunWarning",
    "Square",
    "ThreatModel",
    "train",
    "WeightPerturbation",
    "__version__",
]

# Without the extra `train`, `from rwp_jax import *` and `help(rwp_jax)` omit these names.
if importlib.util.find_spec("ml_collections") is None:
    for _name in (
        "FinishedRun",
        "InitialWeights",
        "initial_weights",
        "load_run",
        "NonFiniteLoss",
        "train",
    ):
        __all__.remove(_name)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith(__name__):
            raise
        raise ImportError(
            f"rwp_jax.{name} needs {error.name}: pip install 'rwp-jax[train]'"
        ) from error
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
