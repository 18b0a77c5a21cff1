"""Training objectives. All have one signature, which gate, weight ascent and update share."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from rwp_jax.errors import InputError
from rwp_jax.losses import cross_entropy


class Batch(NamedTuple):
    """Examples of one device: clean images x and attacked images x_adv [B, H, W, C] in [0, 1], y [B]."""

    x: jnp.ndarray
    x_adv: jnp.ndarray
    y: jnp.ndarray


class Aux(NamedTuple):
    """What a pass over the batch gives besides the loss.

    Attributes:
      moments: batch moments in the order in which the reference's training forwards fold them into the
        running statistics, once per entry; the first are those of x_adv.
      correct: [B] bool, whether x_adv is classified as y.
    """

    moments: tuple
    correct: jnp.ndarray


class Objective(NamedTuple):
    """What is minimised, and what its attack maximises.

    Attributes:
      per_example: (train, params, Batch) -> (loss [B], Aux), where train is `Classifier.train`.
      attack_loss: (logits of the attacked images [B, classes], y [B]) -> [B].
    """

    per_example: Callable
    attack_loss: Callable


def _at_per_example(train, params, batch):
    logits, moments = train(params, batch.x_adv)
    loss = cross_entropy(logits, batch.y)
    return loss, Aux((moments,), jnp.argmax(logits, -1) == batch.y)


# Adversarial training (Madry et al., 2018): CE(f(x'), y), attacked by the same loss.
at = Objective(per_example=_at_per_example, attack_loss=cross_entropy)

_OBJECTIVES = {"at": at}


def make_objective(name: str) -> Objective:
    """Returns the objective; raises InputError for an unknown name."""
    if name not in _OBJECTIVES:
        raise InputError(f"config.objective.name={name!r} must be one of {', '.join(_OBJECTIVES)}")
    return _OBJECTIVES[name]
