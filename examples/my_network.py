"""Registers a user-defined network and objective, and names them in a config.

    python main.py --config examples/my_network.py --workdir runs/my_network
    python main.py --mode evaluate --workdir runs/my_network --attacks natural,pgd20

The run records the path of this file; evaluate, pseudo_label, explain and `rwp_jax.load_run` import it.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp

import rwp_jax
from rwp_jax.configs import digits_at_rwp
from rwp_jax.losses import cross_entropy


class MyNetwork(nn.Module):
    """Two convolutions. BatchNorm takes moments over all devices of a run, the mapped axis `axis_name`."""

    num_classes: int
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train):
        norm = functools.partial(
            nn.BatchNorm,
            use_running_average=not train,
            momentum=0.9,
            axis_name=self.axis_name,
            dtype=self.dtype,
        )
        for features in (16, 32):
            x = nn.relu(norm()(nn.Conv(features, (3, 3), use_bias=False, dtype=self.dtype)(x)))
            x = nn.avg_pool(x, (2, 2), (2, 2))
        return nn.Dense(self.num_classes)(x.reshape(len(x), -1))


def logit_pairing(pairing: float, **_: float) -> rwp_jax.Objective:
    """Adversarial logit pairing (Kannan et al., 2018): cross-entropy plus distance of the two logits."""

    def per_example(train, params, batch):
        logits_adv, moments_adv = train(params, batch.x_adv)
        logits, moments = train(params, batch.x)
        robust = cross_entropy(logits_adv, batch.y)
        distance = jnp.mean((logits - logits_adv) ** 2, -1)
        loss = robust + pairing * distance
        correct = jnp.argmax(logits_adv, -1) == batch.y
        terms = {"robust_loss": robust, "logit_distance": distance}
        return batch.weight * loss, rwp_jax.Aux(loss, (moments_adv, moments), correct, terms)

    def attack_loss(forward, x, y):
        return lambda logits: cross_entropy(logits, y)

    return rwp_jax.Objective(per_example, attack_loss)


rwp_jax.register_model("my_network", rwp_jax.from_linen(MyNetwork))
rwp_jax.register_objective("logit_pairing", logit_pairing)


def get_config():
    config = digits_at_rwp.get_config("full")
    config.model.name = "my_network"
    config.objective.name = "logit_pairing"
    config.objective.pairing = 0.5
    return config
