"""A user-defined module, and helpers that undo its registration and import."""

import sys

from rwp_jax.models.classifier import MODELS
from rwp_jax.training.objectives import OBJECTIVES

MODULE = """
import flax.linen as nn
import jax.numpy as jnp
import rwp_jax
from rwp_jax.losses import cross_entropy

class Tiny(nn.Module):
    num_classes: int
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(4, (3, 3))(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, axis_name=self.axis_name)(x))
        return nn.Dense(self.num_classes)(x.reshape(len(x), -1))

def shifted(shift, **_):
    def per_example(train, params, batch):
        logits, moments = train(params, batch.x_adv)
        loss = cross_entropy(logits, batch.y) + shift
        correct = logits.argmax(-1) == batch.y
        return loss, rwp_jax.Aux(loss, (moments,), correct, {})
    return rwp_jax.Objective(per_example, lambda forward, x, y: lambda logits: cross_entropy(logits, y))

rwp_jax.register_model("tiny", rwp_jax.from_linen(Tiny))
rwp_jax.register_objective("shifted", shifted)
"""


def keep_registered(patch):
    """Restores the current registrations when `patch` is undone."""
    for registry in (MODELS, OBJECTIVES):
        patch.setattr(registry, "_builders", dict(registry._builders))
        patch.setattr(registry, "_origins", dict(registry._origins))


def forget(patch):
    """Removes the module and its registrations, as if in a new process."""
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).endswith("tiny_network.py"):
            patch.delitem(sys.modules, name)
    for registry, name in ((MODELS, "tiny"), (OBJECTIVES, "shifted")):
        patch.delitem(registry._builders, name, raising=False)
        patch.delitem(registry._origins, name, raising=False)
