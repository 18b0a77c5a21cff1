"""Builds the network and the training step of a case from its settings."""

from typing import Any, NamedTuple

from rwp_jax.attacks.threat_model import make_threat_model
from rwp_jax.models.classifier import Classifier, make_classifier
from rwp_jax.parity import inputs
from rwp_jax.pytorch.state_dict import from_state_dict
from rwp_jax.training.objectives import make_objective
from rwp_jax.training.optimizer import make_sgd
from rwp_jax.training.train_step import PGDSettings, Recipe
from rwp_jax.training.weight_perturbation import make_weight_perturbation

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)


class CaseNetwork(NamedTuple):
    classifier: Classifier
    params: Any
    batch_stats: Any


def make_network(
    settings: dict, image_shape: tuple[int, int, int], num_classes: int, dtype: str = "float64"
) -> CaseNetwork:
    """Builds the network settings["model"] with weights drawn from settings["seed"]."""
    model, seed = settings["model"], settings.get("seed", 0)
    mean, std = (MEAN, STD) if settings.get("normalize", True) else ((), ())
    activation = settings.get("activation", "")
    classifier = make_classifier(model, num_classes, mean, std, dtype, activation=activation)
    templates = classifier.shapes(image_shape)
    entry = lambda name, shape: inputs.tensor(name, shape, seed)
    params, batch_stats = (
        from_state_dict(model, tree, entry, collection)
        for tree, collection in zip(templates, ("params", "batch_stats"), strict=True)
    )
    return CaseNetwork(classifier, params, batch_stats)


def make_recipe(
    settings: dict, classifier: Classifier, objective: str, perturbation: str
) -> Recipe:
    """Builds the training step of the authors' script for `objective`: at, trades or rst."""
    variant, step_size = "madry", settings["alpha"]
    if objective != "at":
        variant = "trades"
        if settings["norm"] == "l_2":
            step_size = 2 * settings["eps"] / settings["pgd_steps"]
    return Recipe(
        classifier,
        make_objective(objective, beta=settings.get("beta", 0.0)),
        make_threat_model(settings["norm"], settings["eps"], variant),
        PGDSettings(settings["pgd_steps"], step_size, settings["bn_attack"]),
        make_weight_perturbation(
            perturbation, settings["gamma"], settings["rwp_steps"], settings["c_min"]
        ),
        0,
        make_sgd(
            settings["lr"],
            settings["momentum"],
            settings["weight_decay"],
            settings.get("nesterov", False),
        ),
    )
