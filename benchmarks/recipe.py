"""The training recipes that the benchmarks time: AT-RWP and TRADES-RWP on CIFAR-10."""

from rwp_jax.attacks.threat_model import make_threat_model
from rwp_jax.models.classifier import make_classifier
from rwp_jax.training.objectives import make_objective
from rwp_jax.training.optimizer import make_sgd
from rwp_jax.training.train_step import PGDSettings, Recipe
from rwp_jax.training.weight_perturbation import make_weight_perturbation

MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2471, 0.2435, 0.2616)
EPSILON, STEP_SIZE, GAMMA, BETA, K1, K2 = 8 / 255, 2 / 255, 0.01, 6.0, 10, 10


def rwp_recipe(model: str, c_min: float, objective: str = "at") -> Recipe:
    """Builds RWP with `at` or `trades` for 10 classes; c_min = inf takes K2 ascent steps, 0 none."""
    variant, bn = {"at": ("madry", "train"), "trades": ("trades", "eval")}[objective]
    return Recipe(
        make_classifier(model, 10, MEAN, STD),
        make_objective(objective, beta=BETA),
        make_threat_model("l_inf", EPSILON, variant),
        PGDSettings(K1, STEP_SIZE, bn),
        make_weight_perturbation("rwp", GAMMA, K2, c_min),
        0,
        make_sgd(0.1, 0.9, 5e-4),
    )
